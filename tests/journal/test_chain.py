"""The hash chain of each record's entries, recomputed outside the database, and the journal head."""

import asyncio
import hashlib
import json
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any

import asyncpg
import httpx
import pytest

from tests.journal.conftest import Command
from tests.processes import run_cli
from tests.support import EXAMPLE_PATIENT, RESOURCE_EXAMPLES

PATIENTS = "/patients/patients/"
SELECT_ENTRIES = (
    "SELECT *, record::text AS record, erasure::text AS erasure FROM journal ORDER BY resource, unique_id, version"
)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def content_hash(entry: asyncpg.Record) -> bytes:
    """Return the hash of an entry's content, as docs/journal.md defines it."""
    fields = [
        entry["salt"] and str(entry["salt"]),
        entry["resource"],
        entry["unique_id"],
        entry["version"],
        entry["action"],
        (entry["time"] - EPOCH) // timedelta(microseconds=1),
        entry["actor"],
        entry["request_id"],
        entry["reason"],
        entry["erasure"],
    ]
    return hashlib.sha256((json.dumps(fields, ensure_ascii=False) + (entry["record"] or "")).encode()).digest()


def chain_hashes(entries: list[asyncpg.Record]) -> list[bytes]:
    """Return the hashes of one record's entries, oldest first."""
    hashes = [b""]
    for entry in entries:
        hashes.append(hashlib.sha256(hashes[-1] + content_hash(entry)).digest())
    return hashes[1:]


async def entries_by_record(connection: asyncpg.Connection) -> list[list[asyncpg.Record]]:
    """Return the entries of each record."""
    entries = await connection.fetch(SELECT_ENTRIES)
    return [list(own) for _, own in groupby(entries, key=lambda entry: (entry["resource"], entry["unique_id"]))]


async def change_records(client: httpx.AsyncClient, count: int = 3) -> None:
    """Create, change, delete and restore records with text that needs escaping."""
    for kind in RESOURCE_EXAMPLES:
        for number in range(count):
            one = f"{kind.path}own-{number}/"
            text: dict[str, Any] = dict.fromkeys(kind.minimal_body, '"\\ \u2028 \t \x7f Zoë 😀')
            assert (await client.post(kind.path, json={"unique_id": f"own-{number}", **text})).status_code == 201
            assert (await client.put(one, json=kind.update_body)).status_code == 200
            if number:
                assert (await client.delete(one)).status_code == 204
                assert (await client.post(f"{one}restore/", json={"version": 1})).status_code == 200


@pytest.mark.usefixtures("hospitals_and_doctors")
async def test_each_entrys_hash_covers_its_content_and_the_previous_hash(
    client: httpx.AsyncClient, connection: asyncpg.Connection
) -> None:
    """An entry's hash covers the previous entry's hash and its own whole content, and every salt is unique."""
    await change_records(client)
    body = {**EXAMPLE_PATIENT, "unique_id": "pat"}
    assert (await client.post(PATIENTS, json=body, headers={"X-Request-ID": "mine"})).status_code == 201
    await asyncio.gather(*(client.put(f"{PATIENTS}pat/", json={"patient_title": str(n)}) for n in range(20)))
    chains = await entries_by_record(connection)
    assert {len(entries) for entries in chains} >= {1, 2, 4, 21}
    for entries in chains:
        assert [entry["hash"] for entry in entries] == chain_hashes(entries)
    salts = [entry["salt"] for entries in chains for entry in entries]
    assert len(set(salts)) == len(salts)
    assert None not in salts


async def test_erasure_lists_removed_and_redacted_hashes(
    client: httpx.AsyncClient, connection: asyncpg.Connection, command: Command
) -> None:
    """An erasure's entry lists what was removed and redacted; a redacted entry keeps its hash and loses its salt."""
    for unique_id in ("pat-a", "pat-b"):
        profile = {"patient_profile": {"unique_id": "prof"}}
        await client.post(PATIENTS, json={"unique_id": unique_id, "patient_last_name": "Doe", **profile})
    await client.put(f"{PATIENTS}pat-b/", json={"patient_profile": None})
    before = {entries[0]["unique_id"]: entries for entries in await entries_by_record(connection)}
    assert (await command("erase", "patient", "pat-a", "--reason", "asked", "--yes")).status == 0
    after = await entries_by_record(connection)
    (of_other,) = [entries for entries in after if entries[0]["unique_id"] == "pat-b"]
    assert [entry["hash"] for entry in of_other] == [entry["hash"] for entry in before["pat-b"]]
    redacted, last = of_other
    assert redacted["salt"] is None
    assert json.loads(redacted["erasure"]) == {"content": content_hash(before["pat-b"][0]).hex()}
    assert last["erasure"] is None
    erased = {entries[0]["resource"]: entries for entries in after if entries[0]["action"] == "erased"}
    for resource, unique_id, hashes in (
        ("patients", "pat-a", []),
        ("profiles", "prof", [[redacted["hash"].hex(), content_hash(redacted).hex()]]),
    ):
        (entry,) = erased[resource]
        listed = json.loads(entry["erasure"])
        assert listed["redacted"] == hashes
        times = [(was["time"] - EPOCH) // timedelta(microseconds=1) for was in before[unique_id]]
        assert listed["removed"] == [
            [time, was["hash"].hex()] for time, was in zip(times, before[unique_id], strict=True)
        ]
        assert chain_hashes(erased[resource]) == [entry["hash"]]
    done = await command("journal", "verify")
    assert (done.status, "erased: 2 records, 2 entries removed, 1 redacted" in done.out) == (0, True)


@pytest.mark.usefixtures("hospitals_and_doctors")
async def test_a_journal_head_stays_valid_after_changes_and_erasures(
    client: httpx.AsyncClient, command: Command
) -> None:
    """Later changes and erasures leave a journal head valid, and verification counts the erased entries."""
    empty = (await command("journal", "head")).out
    await change_records(client)
    assert (await client.post(PATIENTS, json={**EXAMPLE_PATIENT, "unique_id": "pat"})).status_code == 201
    line = (await command("journal", "head")).out
    assert (await command("journal", "verify", "--head", line)).status == 0
    for title in "ab":
        await client.put(f"{PATIENTS}pat/", json={"patient_title": title})
    await client.put(f"{PATIENTS}own-0/", json={"patient_profile": {"unique_id": "prof123"}})
    later = (await command("journal", "head")).out
    for what, unique_id in (("patient", "pat"), ("patient", "own-0"), ("patient", "own-1")):
        assert (await command("erase", what, unique_id, "--reason", "asked", "--yes")).status == 0
    last = (await command("journal", "head")).out
    for text, removed in ((empty, ""), (line, ", except 8 removed"), (later, ", except 11 removed"), (last, "")):
        done = await command("journal", "verify", "--head", text)
        assert (done.status, f"entries up to {text.split()[0]}{removed}" in done.out) == (0, True), done.out
    assert len({text.split()[2] for text in (empty, line, later, last)}) == 4
    assert [int(text.split()[1]) for text in (empty, line, later)] == [5, 47, 50]


@pytest.mark.parametrize("line", ["", "x", "2026-01-01 1 " + "0" * 64, "2026-01-01T00:00:00+00:00 1 " + "0" * 63])
async def test_a_malformed_journal_head_is_refused(command: Command, line: str) -> None:
    """Text that `journal head` has not printed is exit status 1 and one sentence."""
    done = await command("journal", "verify", "--head", line or " ")
    assert (done.status, done.err.startswith("This is not a line from `patients-api journal head`")) == (1, True)


async def test_journal_head_waits_for_open_transactions(
    connection: asyncpg.Connection, database_url: str, command: Command
) -> None:
    """An entry that was inserted before the head was taken and committed only afterwards is included in the head."""
    other = await asyncpg.connect(database_url)
    insert = (
        "INSERT INTO journal (resource, unique_id, version, action, actor) VALUES ('doctors', $1, 1, 'deleted', '')"
    )
    async with connection.transaction():
        await connection.execute(insert, "doc")
        head = asyncio.create_task(asyncio.to_thread(run_cli, "journal", "head", DATABASE_URL=database_url))
        asked = (
            "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_snapshot_xmin%' AND pid <> pg_backend_pid()"
        )
        while not await other.fetchval(asked):
            assert not head.done()
            await asyncio.sleep(0.02)
    await other.close()
    line = (await head).stdout
    assert line.split()[1] == "1"
    done = await command("journal", "verify", "--head", line)
    assert (done.status, "The journal contains all 1 entries" in done.out) == (0, True)
