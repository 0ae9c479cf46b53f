"""Random requests by eight principals, with some disconnects, compared one by one with journal and audit.

An acknowledged change has one journal entry, a refused one has none, and an abandoned one is all or nothing. Each read
is audited with exactly the records that it showed, in versions that its principal could see at that time.
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
from tests.hostile import journal_and_audit_checks as changes
from tests.hostile import response_checks as showing
from tests.hostile.client_connection import ClientConnection
from tests.hostile.ledger import Ledger
from tests.hostile.random_requests import (
    CALLER_RIGHTS,
    DOCTOR_IDS,
    HOSPITAL_IDS,
    HOT_PATIENT_COUNT,
    PROFILE_IDS,
    REQUEST_KINDS,
    Caller,
    RequestGenerator,
    SentRequest,
)
from tests.processes import port_of, run_cli
from tests.support import ServiceProcess

COMPARED_KINDS = ("create", "update", "delete", "restore", "get", "list", "history", "version", "audit")
CONNECTION_COUNT = 12
DOCTORS = "/doctors/doctors/"
FROM_SERVICE_SESSIONS = "FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'patients-api'"
MAX_ATTEMPTS_PER_KIND = 100
MAX_LISTED_DISCREPANCIES = 20

Serve = Callable[..., ServiceProcess]


class DifferentialRun:
    """Requests to a served process, and the discrepancies found."""

    def __init__(
        self, generator: RequestGenerator, served: ServiceProcess, database_url: str, pool: asyncpg.Pool
    ) -> None:
        self.generator = generator
        self._served = served
        self._url = database_url
        self._pool = pool
        self._compared = 0
        self.discrepancies: list[str] = []

    async def create_initial_records(self) -> None:
        """Create the initial records by requests that are compared like all others."""
        admin, wire = self.generator.callers["admin"], ClientConnection(port_of(self._served.url))
        make = self.generator.make_request
        for route, scope, name, ids in (
            (HOSPITALS, Scope.DIRECTORY_WRITE, "hospital_name", HOSPITAL_IDS),
            (DOCTORS, Scope.DIRECTORY_WRITE, "doctor_first_name", DOCTOR_IDS),
            (PROFILES, Scope.PROFILES_WRITE, "first_name", PROFILE_IDS),
        ):
            for unique_id in ids:
                body = {"unique_id": unique_id, name: unique_id}
                await self.generator.send(wire, make(admin, "create", scope, route, "POST", body=body))
        while len(self.generator.patients) < HOT_PATIENT_COUNT:
            await self.generator.send(wire, self.generator.create(admin))
        await wire.close()

    async def send_each_kind(self) -> None:
        """Send requests of each kind until one is accepted, because random requests may lack an accepted rare one."""
        admin, wire = self.generator.callers["admin"], ClientConnection(port_of(self._served.url))
        for kind in COMPARED_KINDS:
            _, generate = REQUEST_KINDS["history" if kind == "version" else kind]
            for _ in range(MAX_ATTEMPTS_PER_KIND):
                sent = await self.generator.send(wire, generate(self.generator, admin))
                if sent.kind == kind and sent.is_accepted:
                    break
        await wire.close()

    async def send(self, total_requests: int) -> None:
        """Send random requests on several connections until there are `total_requests` in all."""

        async def client() -> None:
            wire = ClientConnection(port_of(self._served.url))
            while len(self.generator.sent_requests) < total_requests:
                await self.generator.send_random(wire)
            await wire.close()

        async with asyncio.TaskGroup() as clients:
            for _ in range(CONNECTION_COUNT):
                clients.create_task(client())

    async def await_quiet(self) -> None:
        """Wait until no work is left, also for clients that have disconnected."""
        lines = -1
        async with asyncio.timeout(30):
            while lines != len(self._served.stdout_lines) or await self._pool.fetchval(
                f"SELECT count(*) {FROM_SERVICE_SESSIONS} AND state <> 'idle'"
            ):
                lines = len(self._served.stdout_lines)
                await self._pool.execute("SELECT pg_sleep(0.3)")

    async def compare(self, *, everything: bool = False) -> None:
        """Compare the requests since the last comparison, or all, with journal and audit."""
        async with self._pool.acquire() as connection:
            ledger = await Ledger.read(connection, self.generator.sent_requests)
        requests = self.generator.sent_requests[0 if everything else self._compared :]
        self._compared = len(self.generator.sent_requests)
        self.discrepancies += self._discrepancies(requests, ledger)
        verified = await asyncio.to_thread(run_cli, "journal", "verify", DATABASE_URL=self._url)
        if verified.returncode != 0:
            self.discrepancies.append(f"the journal disagrees with the records: {verified.stdout}")

    def _discrepancies(self, requests: list[SentRequest], ledger: Ledger) -> Iterator[str]:
        tags = showing.TaggedDocuments(self.generator.sent_requests)
        for asked in requests:
            for flaw in (*changes.find_discrepancies(asked, ledger), *showing.find_discrepancies(asked, ledger, tags)):
                yield f"{asked}: {flaw}"
        groups = defaultdict(list)
        for asked in self.generator.sent_requests:
            if asked.group is not None:
                groups[asked.caller.name, asked.call.path, asked.group].append(asked)
        for group in groups.values():
            for flaw in changes.find_repeat_discrepancies(group, ledger):
                yield f"{', '.join(map(str, group))}: {flaw}"
        for known in (ledger.entries, ledger.audit_rows):
            yield from (f"{request_id}: no client sent it" for request_id in known.keys() - ledger.requests.keys())

    def summary(self) -> str:
        requests = self.generator.sent_requests
        disconnected = [one for one in requests if one.hang_up is not None]
        accepted = [one for one in requests if one.is_accepted]
        unavailable = sum(one.status == 503 for one in requests)
        return (
            f"{len(requests)} requests, {len(disconnected)} disconnects "
            f"({sum(one.status is None for one in disconnected)} of them before any response), "
            f"{sum(one.is_change for one in accepted)} changes, "
            f"{sum(not one.is_change for one in accepted)} reads, {unavailable} times unavailable, "
            f"{len(set(self.discrepancies))} discrepancies"
        )

    def failure_report(self) -> str:
        """Return the discrepancies with a summary, or nothing."""
        if not self.discrepancies:
            return ""
        listed = list(dict.fromkeys(self.discrepancies))[:MAX_LISTED_DISCREPANCIES]
        return "\n".join((self.summary(), *listed))


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[asyncpg.Pool]:
    async with asyncpg.create_pool(database_url, min_size=1, max_size=4) as pool:
        yield pool


async def run_differential(
    serve: Serve, database_url: str, pool: asyncpg.Pool, seed: int, *, checkpoints: list[int]
) -> DifferentialRun:
    """Send random requests and compare at each checkpoint."""
    callers = {}
    for name, (scopes, hospitals) in CALLER_RIGHTS.items():
        limits = None if hospitals is None else list(hospitals)
        key = await make_key(database_url, *scopes, name=name, hospitals=limits)
        callers[name] = Caller(name, key, scopes, None if hospitals is None else frozenset(hospitals))
    served = serve("--workers", "2", DATABASE_URL=database_url, PATIENTS_AUTH="required", PATIENTS_RATE_LIMIT="off")

    async def count_rows(request_id: str, since: float) -> int:
        statement = "SELECT count(*) FROM audit WHERE time >= to_timestamp($1) AND request_id = $2"
        return int(await pool.fetchval(statement, since, request_id))

    run = DifferentialRun(RequestGenerator(f"d{seed}", seed, callers, count_rows), served, database_url, pool)
    await run.create_initial_records()
    await run.send_each_kind()
    for number in checkpoints:
        await run.send(number)
        await run.await_quiet()
        await run.compare(everything=number == checkpoints[-1])
    return run


async def test_responses_agree_with_journal_and_audit(serve: Serve, database_url: str, pool: asyncpg.Pool) -> None:
    """A few hundred requests of all kinds agree with journal and audit, so that the comparison itself stays tested."""
    run = await run_differential(serve, database_url, pool, 18, checkpoints=[600])
    assert run.failure_report() == ""
    kinds = Counter(one.kind for one in run.generator.sent_requests if one.is_accepted)
    assert kinds.keys() >= set(COMPARED_KINDS)
    assert sum(one.hang_up is not None for one in run.generator.sent_requests) > 10


@pytest.mark.chaos
async def test_twenty_thousand_requests_agree_with_journal_and_audit(
    serve: Serve, database_url: str, pool: asyncpg.Pool
) -> None:
    """Twenty thousand requests agree with journal and audit, both at quiet checkpoints and all together at the end.

    Each run prints its seed; DIFFERENTIAL_SEED repeats the same requests, though with different timing.
    """
    seed = int(os.environ.get("DIFFERENTIAL_SEED") or secrets.randbits(32))
    began = time.monotonic()
    run = await run_differential(serve, database_url, pool, seed, checkpoints=list(range(2_000, 20_001, 2_000)))
    print(f"\ndifferential test, DIFFERENTIAL_SEED={seed}: {run.summary()}; {time.monotonic() - began:.0f} s")
    assert run.failure_report() == "", f"DIFFERENTIAL_SEED={seed}\n{run.failure_report()}"
    assert len(run.generator.sent_requests) >= 20_000
