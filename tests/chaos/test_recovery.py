"""Back to a moment: a copy taken under write load, a disaster, and what docs/operations.md says to do then."""

import asyncio
import time
from collections import Counter
from copy import deepcopy
from dataclasses import dataclass

import asyncpg
import httpx
import pytest

from app.db.embedded import EmbeddedPostgres
from tests.chaos.load import PATIENTS, Promises, Writers
from tests.chaos.test_kills import BETWEEN, Server, Service, under_load
from tests.documents import commands, run_block
from tests.processes import data_directory, run_command

pytestmark = pytest.mark.chaos

ARCHIVE, COPY = commands("operations.md", "Every moment")
SWITCH, RESTORE, VERIFY = commands("operations.md", "Back to a moment")
CLIENTS = 8
NAME = "before the import"


@dataclass(frozen=True)
class Moment:
    """A moment, and what was promised and begun just before it and just after."""

    before: Promises
    time: str
    after: Promises

    @classmethod
    async def now(cls, writers: Writers, database_url: str) -> "Moment":
        connection = await asyncpg.connect(database_url)
        before = deepcopy(writers.promises)
        moment = await connection.fetchval("SELECT clock_timestamp()::text")
        await connection.execute(f"SELECT pg_create_restore_point('{NAME}')")
        after = deepcopy(writers.promises)
        await connection.close()
        return cls(before, moment, after)


async def archived(database_url: str) -> None:
    """Have all changes archived, and wait until they are."""
    connection = await asyncpg.connect(database_url)
    last = await connection.fetchval("SELECT pg_walfile_name(pg_current_wal_insert_lsn())")
    await asyncio.to_thread(run_block, SWITCH, DATABASE_URL=database_url)
    async with asyncio.timeout(30):
        while await connection.fetchval("SELECT coalesce(last_archived_wal, '') < $1 FROM pg_stat_archiver", last):
            await connection.execute("SELECT pg_sleep(0.02)")
    await connection.close()


async def promoted(database_url: str) -> None:
    """Wait until the server has reached the moment and takes writes."""
    connection = await asyncpg.connect(database_url)
    async with asyncio.timeout(60):
        while await connection.fetchval("SELECT pg_is_in_recovery()"):
            await connection.execute("SELECT pg_sleep(0.02)")
    await connection.close()


@pytest.mark.parametrize("target", ["time", "name"])
async def test_back_to_the_moment_before_a_disaster(target: str) -> None:
    """All that was acknowledged before is there, once, with its entries; nothing that was asked for after it is."""
    with data_directory() as directory:
        (directory / "wal").mkdir()
        (directory / "wal").chmod(0o777)  # PostgreSQL's account may be another
        live = Server(directory / "live")
        try:
            await asyncio.to_thread(run_block, ARCHIVE, DATABASE_URL=live.url, BACKUPS=directory)
            live.stop()
            live.start()
            run_command("migrate", DATABASE_URL=live.url)
            async with under_load(live.url, workers=1) as (service, writers):
                await writers.until(BETWEEN)
                cursor = await a_cursor(service.url)
                base = asyncio.create_task(
                    asyncio.to_thread(run_block, COPY, DATABASE_URL=live.url, BASE=directory / "base")
                )
                await writers.until(BETWEEN)
                await base
                await writers.until(BETWEEN)
                moment = await Moment.now(writers, live.url)
                await writers.until(3 * BETWEEN)
            connection = await asyncpg.connect(live.url)
            await connection.execute("TRUNCATE patients CASCADE")
            await connection.close()
            await archived(live.url)
        finally:
            live.stop()
        began = time.monotonic()
        restored = directory / "restored"
        restored.mkdir()
        block = RESTORE if target == "time" else RESTORE.replace("_time = '$MOMENT'", f"_name = '{NAME}'")
        values = {"BASE": directory / "base", "BACKUPS": directory, "PGDATA": restored / "postgres"}
        await asyncio.to_thread(run_block, block, MOMENT=moment.time, **values)
        with EmbeddedPostgres(restored) as server:
            await promoted(server.url)
            assert "newest entry says" in await asyncio.to_thread(run_block, VERIFY, DATABASE_URL=server.url)
            seconds = time.monotonic() - began
            await compare(server.url, moment, writers.promises, seconds)
            await serve_on(server.url, moment, writers.promises, cursor)


async def compare(database_url: str, moment: Moment, last: Promises, seconds: float) -> None:
    """Compare what is stored with what was promised around the moment, and print a line about it."""
    connection = await asyncpg.connect(database_url)
    rows = await connection.fetch("SELECT unique_id, patient_last_name, patient_race FROM patients")
    looks = await connection.fetch("SELECT ids[1] FROM audit WHERE resource = 'patients' AND method = 'POST'")
    await connection.close()

    stored = {row["unique_id"]: row for row in rows}
    begun = moment.after.begun
    created, deleted = moment.before.created, moment.before.deleted
    kept = [made for made in created.values() if made not in deleted and f"delete {made}" not in begun]
    lost = [made for made in kept if made not in stored] + [made for made in deleted if made in stored]
    lost += [name for name, count in moment.before.counts.items() if int(stored[name]["patient_race"]) < count]
    names = Counter(row["patient_last_name"] for row in rows if row["unique_id"] not in last.counts)
    doubled = [name for name, count in names.items() if count > 1]
    early = [name for name in names if f"create {name}" not in begun]
    for counter in last.counts:
        value = stored[counter]["patient_race"]
        early += [counter] if value != "0" and f"count {counter} {value}" not in begun else []
    on_record = {unique_id for (unique_id,) in looks}
    print(
        f"\nback to a moment: {moment.before.acknowledged} writes acknowledged before it, {len(lost)} lost, "
        f"{len(doubled)} doubled; {last.acknowledged - moment.after.acknowledged} after it, {len(early)} there; "
        f"{len(kept)} patients are back; restored and verified in {seconds:.1f} s"
    )
    assert (lost, doubled, early) == ([], [], [])
    assert kept
    assert set(stored) <= on_record


async def a_cursor(url: str) -> str:
    """The path of a second page."""
    async with httpx.AsyncClient() as client:
        answer = await client.get(f"{url}{PATIENTS}?limit=2")
        return str(answer.links["next"]["url"])


async def serve_on(database_url: str, moment: Moment, last: Promises, cursor: str) -> None:
    """A service on what was restored: cursors go on, keys of before are replayed, and keys of after begin anew."""
    service = Service(database_url, workers=1)
    try:
        await service.ready()
        async with httpx.AsyncClient(base_url=service.url) as client:
            assert (await client.get(cursor)).status_code == 200
            gone = set(last.deleted)
            old = next(key for key, made in moment.before.created.items() if made not in gone)
            new = next(key for key in last.created if f"create {key}" not in moment.after.begun)
            again = {key: await repeated(client, key) for key in (old, new)}
            assert again[old].headers["Idempotency-Replayed"] == "true"
            assert again[old].json()["unique_id"] == last.created[old]
            assert "Idempotency-Replayed" not in again[new].headers
            assert again[new].json()["unique_id"] != last.created[new]
            assert (await client.get(f"{PATIENTS}{last.created[new]}/")).status_code == 404
    finally:
        service.stop()
    verified = run_command("journal", "verify", DATABASE_URL=database_url)
    assert verified.returncode == 0, verified.stdout


async def repeated(client: httpx.AsyncClient, key: str) -> httpx.Response:
    """The answer to a creation that is sent again."""
    answer = await client.post(PATIENTS, json=Writers.patient(key), headers={"Idempotency-Key": key})
    assert answer.status_code == 201, answer.text
    return answer
