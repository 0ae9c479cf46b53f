"""Random requests by eight principals, some of whose clients hang up, compared one by one with journal and audit.

Each acknowledged change has one journal entry, each refused one none, each that nobody waited for all or nothing; each
look is in the audit with exactly the records that it showed, which are versions that its principal could see then.
"""

import asyncio
import os
import secrets
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Iterator

import asyncpg
import pytest

from app.auth.scopes import Scope
from tests.auth.support import HOSPITALS, PROFILES, make_key
from tests.hostile import changes, showing
from tests.hostile.asking import CALLERS, DOCTOR_IDS, HOSPITAL_IDS, HOT, PROFILE_IDS, Asked, Asker, Caller
from tests.hostile.ledger import Ledger
from tests.hostile.wire import Wire
from tests.processes import port_of, run_command
from tests.support import Served

CONNECTIONS = 12
DOCTORS = "/doctors/doctors/"
OURS = "FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'patients-api'"
LISTED_FLAWS = 20

Serve = Callable[..., Served]


class Run:
    """Requests to a served process, and what is found wrong with them."""

    def __init__(self, asker: Asker, served: Served, database_url: str, pool: asyncpg.Pool) -> None:
        self.asker = asker
        self._served = served
        self._url = database_url
        self._pool = pool
        self._compared = 0
        self.flaws: list[str] = []

    async def fill(self) -> None:
        """What is there at first, made by requests that are compared as all others are."""
        admin, wire = self.asker.callers["admin"], Wire(port_of(self._served.url))
        make = self.asker.asking
        for route, scope, name, ids in (
            (HOSPITALS, Scope.DIRECTORY_WRITE, "hospital_name", HOSPITAL_IDS),
            (DOCTORS, Scope.DIRECTORY_WRITE, "doctor_first_name", DOCTOR_IDS),
            (PROFILES, Scope.PROFILES_WRITE, "first_name", PROFILE_IDS),
        ):
            for unique_id in ids:
                body = {"unique_id": unique_id, name: unique_id}
                await self.asker.send(wire, make(admin, "create", scope, route, "POST", body=body))
        while len(self.asker.patients) < HOT:
            await self.asker.send(wire, self.asker.create(admin))
        await wire.close()

    async def send(self, requests: int) -> None:
        """Send random requests on several connections, until there are so many in all."""

        async def client() -> None:
            wire = Wire(port_of(self._served.url))
            while len(self.asker.asked) < requests:
                await self.asker.send_any(wire)
            await wire.close()

        async with asyncio.TaskGroup() as clients:
            for _ in range(CONNECTIONS):
                clients.create_task(client())

    async def quiet(self) -> None:
        """Wait until nothing is done any more, for clients that have hung up either."""
        lines = -1
        async with asyncio.timeout(30):
            while lines != len(self._served.lines) or await self._pool.fetchval(
                f"SELECT count(*) {OURS} AND state <> 'idle'"
            ):
                lines = len(self._served.lines)
                await self._pool.execute("SELECT pg_sleep(0.3)")

    async def compare(self, *, everything: bool = False) -> None:
        """Compare the requests since the last time, or all, with journal and audit."""
        async with self._pool.acquire() as connection:
            ledger = await Ledger.read(connection, self.asker.asked)
        asked = self.asker.asked[0 if everything else self._compared :]
        self._compared = len(self.asker.asked)
        self.flaws += self._found(asked, ledger)
        verified = await asyncio.to_thread(run_command, "journal", "verify", DATABASE_URL=self._url)
        if verified.returncode != 0:
            self.flaws.append(f"the journal is not what the records are: {verified.stdout}")

    def _found(self, requests: list[Asked], ledger: Ledger) -> Iterator[str]:
        tags = showing.Tags(self.asker.asked)
        for asked in requests:
            for flaw in (*changes.flaws(asked, ledger), *showing.flaws(asked, ledger, tags)):
                yield f"{asked}: {flaw}"
        groups = defaultdict(list)
        for asked in self.asker.asked:
            if asked.group is not None:
                groups[asked.caller.name, asked.call.path, asked.group].append(asked)
        for group in groups.values():
            for flaw in changes.repeats(group, ledger):
                yield f"{', '.join(map(str, group))}: {flaw}"
        for known in (ledger.entries, ledger.rows):
            yield from (f"{request_id}: nobody sent it" for request_id in known.keys() - ledger.asked.keys())

    def figures(self) -> str:
        asked = self.asker.asked
        hung_up = [one for one in asked if one.hang_up is not None]
        accepted = [one for one in asked if one.accepted]
        unavailable = sum(one.status == 503 for one in asked)
        return (
            f"{len(asked)} requests, {len(hung_up)} hang-ups ({sum(one.status is None for one in hung_up)} of them "
            f"before any answer), {sum(one.changes for one in accepted)} changes, "
            f"{sum(not one.changes for one in accepted)} looks, {unavailable} times unavailable, "
            f"{len(set(self.flaws))} flaws"
        )

    def verdict(self) -> str:
        """Nothing, or what is wrong."""
        if not self.flaws:
            return ""
        listed = list(dict.fromkeys(self.flaws))[:LISTED_FLAWS]
        return "\n".join((self.figures(), *listed))


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[asyncpg.Pool]:
    async with asyncpg.create_pool(database_url, min_size=1, max_size=4) as pool:
        yield pool


async def differential(serve: Serve, database_url: str, pool: asyncpg.Pool, seed: int, *, until: list[int]) -> Run:
    """Send random requests, and compare whenever there are so many."""
    callers = {}
    for name, (scopes, hospitals) in CALLERS.items():
        limits = None if hospitals is None else list(hospitals)
        key = await make_key(database_url, *scopes, name=name, hospitals=limits)
        callers[name] = Caller(name, key, scopes, None if hospitals is None else frozenset(hospitals))
    served = serve("--workers", "2", DATABASE_URL=database_url, PATIENTS_AUTH="required", PATIENTS_RATE_LIMIT="off")

    async def count_rows(request_id: str, since: float) -> int:
        statement = "SELECT count(*) FROM audit WHERE time >= to_timestamp($1) AND request_id = $2"
        return int(await pool.fetchval(statement, since, request_id))

    run = Run(Asker(f"d{seed}", seed, callers, count_rows), served, database_url, pool)
    await run.fill()
    for number in until:
        await run.send(number)
        await run.quiet()
        await run.compare(everything=number == until[-1])
    return run


async def test_answers_are_what_journal_and_audit_say(serve: Serve, database_url: str, pool: asyncpg.Pool) -> None:
    """A few hundred requests of all kinds, so that the comparison itself stays sound."""
    run = await differential(serve, database_url, pool, 18, until=[600])
    assert run.verdict() == ""
    kinds = Counter(one.kind for one in run.asker.asked if one.accepted)
    assert kinds.keys() >= {"create", "update", "delete", "restore", "get", "list", "history", "version", "audit"}
    assert sum(one.hang_up is not None for one in run.asker.asked) > 10


@pytest.mark.chaos
async def test_twenty_thousand_requests(serve: Serve, database_url: str, pool: asyncpg.Pool) -> None:
    """The same for minutes; compared at quiet moments in between, and all of it at the end.

    Each run has another seed, which it prints; DIFFERENTIAL_SEED makes up the same requests again, though not in the
    same moments.
    """
    seed = int(os.environ.get("DIFFERENTIAL_SEED") or secrets.randbits(32))
    began = time.monotonic()
    run = await differential(serve, database_url, pool, seed, until=list(range(2_000, 20_001, 2_000)))
    print(f"\ndifferential test, DIFFERENTIAL_SEED={seed}: {run.figures()}; {time.monotonic() - began:.0f} s")
    assert run.verdict() == "", f"DIFFERENTIAL_SEED={seed}\n{run.verdict()}"
    assert len(run.asker.asked) >= 20_000
