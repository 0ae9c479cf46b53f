"""Point-in-time recovery: a backup taken under write load, a disaster, and the procedure of docs/operations.md."""

import asyncio
import time
from collections import Counter
from copy import deepcopy
from dataclasses import dataclass

import asyncpg
import httpx
import pytest

from app.embedded.server import EmbeddedPostgres
from tests.chaos.load import PATIENTS, WriteLog, Writers
from tests.chaos.test_kills import WRITES_BETWEEN_KILLS, RestartablePostgres, Service, under_load
from tests.doc_commands import code_blocks, run_shell_block
from tests.processes import data_directory, run_cli

pytestmark = pytest.mark.chaos

ARCHIVE_COMMANDS, BASE_BACKUP_COMMANDS = code_blocks("operations.md", "Continuous archiving")
SWITCH_WAL_COMMANDS, RESTORE_COMMANDS, VERIFY_COMMANDS = code_blocks("operations.md", "Point-in-time recovery")
CLIENT_COUNT = 8
RESTORE_POINT_NAME = "before the import"


@dataclass(frozen=True)
class RecoveryPoint:
    """A recovery target, with the write log just before and just after it."""

    before: WriteLog
    timestamp: str
    after: WriteLog

    @classmethod
    async def create(cls, writers: Writers, database_url: str) -> "RecoveryPoint":
        connection = await asyncpg.connect(database_url)
        before = deepcopy(writers.write_log)
        timestamp = await connection.fetchval("SELECT clock_timestamp()::text")
        await connection.execute(f"SELECT pg_create_restore_point('{RESTORE_POINT_NAME}')")
        after = deepcopy(writers.write_log)
        await connection.close()
        return cls(before, timestamp, after)


async def archive_all_changes(database_url: str) -> None:
    """Switch the WAL segment and wait until all changes are archived."""
    connection = await asyncpg.connect(database_url)
    last = await connection.fetchval("SELECT pg_walfile_name(pg_current_wal_insert_lsn())")
    await asyncio.to_thread(run_shell_block, SWITCH_WAL_COMMANDS, DATABASE_URL=database_url)
    async with asyncio.timeout(30):
        while await connection.fetchval("SELECT coalesce(last_archived_wal, '') < $1 FROM pg_stat_archiver", last):
            await connection.execute("SELECT pg_sleep(0.02)")
    await connection.close()


async def await_promotion(database_url: str) -> None:
    """Wait until the server has reached the recovery target and accepts writes."""
    connection = await asyncpg.connect(database_url)
    async with asyncio.timeout(60):
        while await connection.fetchval("SELECT pg_is_in_recovery()"):
            await connection.execute("SELECT pg_sleep(0.02)")
    await connection.close()


@pytest.mark.parametrize("target", ["time", "name"])
async def test_point_in_time_recovery_restores_exactly_the_acknowledged_writes(target: str) -> None:
    """All writes acknowledged before the target are restored once, with their entries, and no later ones."""
    with data_directory() as directory:
        (directory / "wal").mkdir()
        (directory / "wal").chmod(0o777)  # PostgreSQL may run as another account
        live = RestartablePostgres(directory / "live")
        try:
            await asyncio.to_thread(run_shell_block, ARCHIVE_COMMANDS, DATABASE_URL=live.url, BACKUPS=directory)
            live.stop()
            live.start()
            run_cli("migrate", DATABASE_URL=live.url)
            async with under_load(live.url, workers=1) as (service, writers):
                await writers.await_acknowledged(WRITES_BETWEEN_KILLS)
                cursor = await second_page_path(service.url)
                base = asyncio.create_task(
                    asyncio.to_thread(
                        run_shell_block, BASE_BACKUP_COMMANDS, DATABASE_URL=live.url, BASE=directory / "base"
                    )
                )
                await writers.await_acknowledged(WRITES_BETWEEN_KILLS)
                await base
                await writers.await_acknowledged(WRITES_BETWEEN_KILLS)
                recovery_point = await RecoveryPoint.create(writers, live.url)
                await writers.await_acknowledged(3 * WRITES_BETWEEN_KILLS)
            connection = await asyncpg.connect(live.url)
            await connection.execute("TRUNCATE patients CASCADE")
            await connection.close()
            await archive_all_changes(live.url)
        finally:
            live.stop()
        began = time.monotonic()
        restored = directory / "restored"
        restored.mkdir()
        block = (
            RESTORE_COMMANDS
            if target == "time"
            else RESTORE_COMMANDS.replace("_time = '$TARGET_TIME'", f"_name = '{RESTORE_POINT_NAME}'")
        )
        values = {"BASE": directory / "base", "BACKUPS": directory, "PGDATA": restored / "postgres"}
        await asyncio.to_thread(run_shell_block, block, TARGET_TIME=recovery_point.timestamp, **values)
        with EmbeddedPostgres(restored) as server:
            await await_promotion(server.url)
            assert "matches its newest entry" in await asyncio.to_thread(
                run_shell_block, VERIFY_COMMANDS, DATABASE_URL=server.url
            )
            seconds = time.monotonic() - began
            await compare_with_writes(server.url, recovery_point, writers.write_log, seconds)
            await check_service_on_restored_data(server.url, recovery_point, writers.write_log, cursor)


async def compare_with_writes(
    database_url: str, recovery_point: RecoveryPoint, final_log: WriteLog, recovery_seconds: float
) -> None:
    """Compare the database with the writes around the recovery target, and print a summary."""
    connection = await asyncpg.connect(database_url)
    rows = await connection.fetch("SELECT unique_id, patient_last_name, patient_race FROM patients")
    audit_rows = await connection.fetch("SELECT ids[1] FROM audit WHERE resource = 'patients' AND method = 'POST'")
    await connection.close()

    stored = {row["unique_id"]: row for row in rows}
    attempted = recovery_point.after.attempted
    created, deleted = recovery_point.before.created, recovery_point.before.deleted
    kept = [made for made in created.values() if made not in deleted and f"delete {made}" not in attempted]
    lost = [made for made in kept if made not in stored] + [made for made in deleted if made in stored]
    lost += [name for name, count in recovery_point.before.counts.items() if int(stored[name]["patient_race"]) < count]
    names = Counter(row["patient_last_name"] for row in rows if row["unique_id"] not in final_log.counts)
    duplicated = [name for name, count in names.items() if count > 1]
    unexpected = [name for name in names if f"create {name}" not in attempted]
    for counter in final_log.counts:
        value = stored[counter]["patient_race"]
        unexpected += [counter] if value != "0" and f"count {counter} {value}" not in attempted else []
    audited_ids = {unique_id for (unique_id,) in audit_rows}
    print(
        f"\npoint-in-time recovery: {recovery_point.before.acknowledged_count} writes acknowledged before it, "
        f"{len(lost)} lost, {len(duplicated)} duplicated; "
        f"{final_log.acknowledged_count - recovery_point.after.acknowledged_count} after, {len(unexpected)} restored; "
        f"{len(kept)} patients restored; recovered and verified in {recovery_seconds:.1f} s"
    )
    assert (lost, duplicated, unexpected) == ([], [], [])
    assert kept
    assert set(stored) <= audited_ids


async def second_page_path(url: str) -> str:
    """Return the path of a second page."""
    async with httpx.AsyncClient() as client:
        response = await client.get(f"{url}{PATIENTS}?limit=2")
        return str(response.links["next"]["url"])


async def check_service_on_restored_data(
    database_url: str, recovery_point: RecoveryPoint, final_log: WriteLog, cursor: str
) -> None:
    """Check that cursors and idempotency keys from before the target work, and that keys from after it start afresh."""
    service = Service(database_url, workers=1)
    try:
        await service.await_ready()
        async with httpx.AsyncClient(base_url=service.url) as client:
            assert (await client.get(cursor)).status_code == 200
            gone = set(final_log.deleted)
            old = next(key for key, made in recovery_point.before.created.items() if made not in gone)
            new = next(key for key in final_log.created if f"create {key}" not in recovery_point.after.attempted)
            again = {key: await repeat_creation(client, key) for key in (old, new)}
            assert again[old].headers["Idempotency-Replayed"] == "true"
            assert again[old].json()["unique_id"] == final_log.created[old]
            assert "Idempotency-Replayed" not in again[new].headers
            assert again[new].json()["unique_id"] != final_log.created[new]
            assert (await client.get(f"{PATIENTS}{final_log.created[new]}/")).status_code == 404
    finally:
        service.stop()
    verified = run_cli("journal", "verify", DATABASE_URL=database_url)
    assert verified.returncode == 0, verified.stdout


async def repeat_creation(client: httpx.AsyncClient, key: str) -> httpx.Response:
    """Return the response to a repeated creation."""
    response = await client.post(PATIENTS, json=Writers.patient_body(key), headers={"Idempotency-Key": key})
    assert response.status_code == 201, response.text
    return response
