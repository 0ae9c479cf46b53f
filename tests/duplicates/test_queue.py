"""The queue of possible duplicates: how pairs enter it, leave it, and are seen."""

import asyncio
from typing import Any

import asyncpg
import httpx
import pytest
import structlog

from app.auth.principal import Principal
from app.db.database import Database
from app.matching.pending import MAX_ATTEMPTS, BackgroundComparison
from app.matching.scan import SCAN_POOL_SIZE, scan
from app.observability.metrics import COMPARISON_FAILURES
from app.patients.service import PatientService
from tests.duplicates.support import AGAIN, DUPLICATES, NAMESAKE, PATIENTS, THANDI, TWIN, queue, register
from tests.hospital_scope.conftest import ScopedClients


async def dismiss(client: httpx.AsyncClient, entry: dict[str, Any]) -> httpx.Response:
    return await client.post(f"{DUPLICATES}{entry['unique_id']}/dismiss/", json={"reason": "Sisters, both were here."})


async def test_a_second_registration_enters_the_queue(client: httpx.AsyncClient) -> None:
    """A person who is registered twice is a pair, with what agrees; a namesake is none."""
    await register(client, "b", **THANDI)
    assert await queue(client) == []
    await register(client, "a", **AGAIN)
    await register(client, "c", **NAMESAKE)
    (entry,) = await queue(client)
    assert entry["patients"] == ["a", "b"]
    assert (entry["grade"], entry["status"]) == ("certain", "open")
    assert "patient_first_name" in entry["agrees"]
    assert entry["differs"] == []


async def test_updates_of_either_patient_change_the_queue(client: httpx.AsyncClient) -> None:
    """An update of either patient adds the pair or removes it, and other fields leave it alone."""
    await register(client, "a", **THANDI)
    await register(client, "b", **NAMESAKE)
    assert await queue(client) == []
    for changed, other in (("a", NAMESAKE), ("b", THANDI)):
        original = {"a": THANDI, "b": NAMESAKE}[changed]
        await client.put(f"{PATIENTS}{changed}/", json=other)
        (entry,) = await queue(client)
        await client.put(f"{PATIENTS}{changed}/", json={"patient_race": "Other", "patient_title": "Dr."})
        assert await queue(client) == [entry]
        await client.put(f"{PATIENTS}{changed}/", json=dict.fromkeys(other) | original)
        assert await queue(client) == []


async def test_deleted_patients_leave_and_restored_ones_return(client: httpx.AsyncClient) -> None:
    """The pair of a deleted patient is gone, and returns when the patient is restored."""
    await register(client, "a", **THANDI)
    await register(client, "b", **AGAIN)
    assert len(await queue(client)) == 1
    assert (await client.delete(f"{PATIENTS}a/")).status_code == 204
    assert await queue(client) == []
    assert (await client.post(f"{PATIENTS}a/restore/", json={"version": 1})).status_code == 200
    assert len(await queue(client)) == 1


async def test_a_dismissed_pair_returns_only_when_a_compared_field_changes(
    client: httpx.AsyncClient, database_url: str
) -> None:
    """A decision survives scans, other changes, and a deletion with a restore, until a compared field changes."""
    await register(client, "a", **THANDI)
    await register(client, "b", **TWIN)
    (entry,) = await queue(client)
    response = await dismiss(client, entry)
    assert response.json() == {**entry, "status": "dismissed"}
    await client.put(f"{PATIENTS}a/", json={"patient_race": "Other"})
    assert (await client.delete(f"{PATIENTS}b/")).status_code == 204
    assert (await client.post(f"{PATIENTS}b/restore/", json={"version": 1})).status_code == 200
    async with Database(database_url, pool_size=SCAN_POOL_SIZE) as database:
        await scan(database, lambda _: None)
    assert await queue(client) == []
    assert await queue(client, status="dismissed") == [response.json()]
    await client.put(f"{PATIENTS}b/", json={"patient_first_name": "Thandiwe"})
    (again,) = await queue(client)
    assert again["unique_id"] == entry["unique_id"]
    assert again["found"] > entry["found"]


async def test_a_third_record_shows_that_two_belong_together(client: httpx.AsyncClient) -> None:
    """Two records that hardly resemble each other are a probable pair if both are the same person as a third."""
    one = {name: THANDI[name] for name in ("patient_first_name", "patient_last_name", "patient_date_of_birth")}
    other = {name: THANDI[name] for name in ("patient_mobile_number", "patient_physical_address", "patient_town")}
    await register(client, "a", **one)
    await register(client, "b", **other, patient_first_name="Thandi", patient_last_name="Mthembu")
    assert {entry["grade"] for entry in await queue(client)} <= {"possible"}
    await register(client, "c", **THANDI)
    grades = {tuple(entry["patients"]): entry["grade"] for entry in await queue(client)}
    assert grades == {("a", "c"): "probable", ("b", "c"): "probable", ("a", "b"): "probable"}
    assert (await client.delete(f"{PATIENTS}c/")).status_code == 204
    assert {entry["grade"] for entry in await queue(client)} <= {"possible"}


async def test_pages_filters_and_count(client: httpx.AsyncClient) -> None:
    """The best pairs come first; filters, pages and the count agree."""
    await client.post("/hospitals/hospitals/", json={"unique_id": "hosA", "hospital_name": "A"})
    for number in range(3):
        fields = {"patient_last_name": ("Mthembu", "Botha", "Naidoo")[number]}
        await register(client, f"a{number}", **THANDI | fields, hospital_ids=["hosA"] if number == 0 else [])
        await register(client, f"b{number}", **(TWIN if number else AGAIN) | fields)
    entries = await queue(client)
    assert [entry["score"] for entry in entries] == sorted((entry["score"] for entry in entries), reverse=True)
    assert entries[0]["patients"] == ["a0", "b0"]
    paged: list[dict[str, Any]] = []
    parameters = {"limit": "1", "count": "exact"}
    while True:
        response = await client.get(DUPLICATES, params=parameters)
        assert response.headers.get("X-Total-Count") == (None if paged else str(len(entries)))
        paged += response.json()
        if (cursor := response.headers.get("Next-Cursor")) is None:
            break
        parameters = {"limit": "1", "cursor": cursor}
    assert paged == entries
    certain = [entry for entry in entries if entry["grade"] == "certain"]
    assert await queue(client, grade="certain") == certain
    assert len(certain) < len(entries)
    of_hospital = await queue(client, hospital_id="hosA")
    assert of_hospital == [entry for entry in entries if "a0" in entry["patients"]]
    assert await queue(client, found__lt=entries[0]["found"]) == [
        entry for entry in entries if entry["found"] < entries[0]["found"]
    ]
    assert await queue(client, found__gte="2100-01-01") == []


async def test_a_pair_is_visible_if_both_patients_are(scoped_clients: ScopedClients) -> None:
    """A restricted principal sees, counts and dismisses a pair only if both patients are in its hospital scope."""
    await register(scoped_clients.free, "at-a", **THANDI, hospital_ids=["hosA"])
    await register(scoped_clients.free, "at-b", **AGAIN, hospital_ids=["hosB"])
    seen = {
        name: [entry["patients"] for entry in await queue(client, count="exact")]
        for name, client in scoped_clients._asdict().items()
    }
    assert seen == {"a": [], "b": [], "both": [["at-a", "at-b"]], "free": [["at-a", "at-b"]]}
    response = await scoped_clients.a.get(DUPLICATES, params={"count": "exact"})
    assert response.headers["X-Total-Count"] == "0"
    (entry,) = await queue(scoped_clients.free)
    assert (await dismiss(scoped_clients.a, entry)).status_code == 404
    assert (await dismiss(scoped_clients.both, entry)).status_code == 200
    report = (await scoped_clients.free.get(f"{PATIENTS}at-a/access/")).json()
    assert "Decided that another record is not this person's" in {access["description"] for access in report}


async def test_what_a_killed_process_left_is_compared_later(
    client: httpx.AsyncClient, database_url: str, connection: asyncpg.Connection
) -> None:
    """Patients leave the queue of comparisons in the transaction that stores their pairs, and not before."""
    await register(client, "a", **THANDI)
    await connection.execute("ALTER TABLE duplicates RENAME TO elsewhere")
    await register(client, "b", **AGAIN)
    async with Database(database_url, pool_size=1) as database:
        await BackgroundComparison(database).run()
        assert await connection.fetchval("SELECT count(*) FROM pending_comparisons WHERE patient_id = 'b'") == 1
        await connection.execute("ALTER TABLE elsewhere RENAME TO duplicates")
        await BackgroundComparison(database).run()
    assert await connection.fetchval("SELECT count(*) FROM pending_comparisons") == 0
    assert len(await queue(client)) == 1


REFUSE_PAIRS_OF_A_PATIENT = """
CREATE FUNCTION refuse_pair() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF 'poison' IN (NEW.one_id, NEW.other_id) THEN
        RAISE EXCEPTION 'no pair of %', NEW.other_id;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER refuse_pair BEFORE INSERT ON duplicates FOR EACH ROW EXECUTE FUNCTION refuse_pair()
"""


async def test_a_patient_whose_comparison_fails_is_set_aside(
    client: httpx.AsyncClient, database_url: str, connection: asyncpg.Connection
) -> None:
    """The patients of its batch and of a scan are compared, it is attempted three times, and again after a restart."""
    await connection.execute(REFUSE_PAIRS_OF_A_PATIENT)
    for number, last_name in enumerate(("Botha", "Naidoo")):
        born = {"patient_last_name": last_name, "patient_date_of_birth": f"196{number}-07-21"}
        for letter in "az":
            await register(client, f"{letter}{number}", patient_first_name="Pieter", **born)
    async with Database(database_url, pool_size=SCAN_POOL_SIZE) as database:
        assert await scan(database, lambda _: None) == 4
        await connection.execute("TRUNCATE duplicates")
        await register(client, "poison", **AGAIN)
        await register(client, "p", **THANDI)
        comparison = BackgroundComparison(database)
        failures = COMPARISON_FAILURES._value.get()  # noqa: SLF001  # there is no other way to read a counter
        with structlog.testing.capture_logs() as logs:
            for _ in range(MAX_ATTEMPTS + 2):
                await comparison.run()
        pending = await connection.fetch("SELECT DISTINCT patient_id FROM pending_comparisons ORDER BY 1")
        assert {row[0] for row in pending} == {"p", "poison"}
        assert COMPARISON_FAILURES._value.get() == failures + 2 * MAX_ATTEMPTS  # noqa: SLF001  # as above
        assert [log["event"] for log in logs].count("patient not compared") == 2
        assert "poison" not in str(logs)
        pairs = await connection.fetch("SELECT one_id, other_id FROM duplicates ORDER BY 1")
        assert [tuple(row) for row in pairs] == [("a0", "z0"), ("a1", "z1")]
        assert await scan(database, lambda _: None) == 6
        await connection.execute("DROP TRIGGER refuse_pair ON duplicates")
        await BackgroundComparison(database).run()
    assert await connection.fetchval("SELECT count(*) FROM pending_comparisons") == 0
    assert ["p", "poison"] in [entry["patients"] for entry in await queue(client)]


async def test_an_interrupted_scan_continues(client: httpx.AsyncClient, connection: asyncpg.Connection) -> None:
    """A scan begins after the last patient that an interrupted one has compared, and the next one at the beginning."""
    for unique_id in ("a", "b", "c"):
        await register(client, unique_id, **THANDI)
    await queue(client)
    await connection.execute("TRUNCATE duplicates; INSERT INTO duplicate_scans VALUES ('b')")
    database = client._transport.app.state.services.database  # type: ignore[attr-defined]  # noqa: SLF001
    assert await scan(database, lambda _: None) == 1
    assert {*map(tuple, (entry["patients"] for entry in await queue(client)))} >= {("a", "c"), ("b", "c")}
    assert await scan(database, lambda _: None) == 3


async def test_the_list_waits_for_a_batch_that_is_being_compared(
    client: httpx.AsyncClient, connection: asyncpg.Connection
) -> None:
    """A list that comes while another process compares a batch has the pairs of this batch."""
    await register(client, "a", **THANDI)
    await queue(client)
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute("SELECT pg_advisory_xact_lock($1)", 0x6475706C)
    await register(client, "b", **AGAIN)
    listing = asyncio.create_task(queue(client))
    waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    async with asyncio.timeout(10):
        while not await connection.fetchval(waiting):
            pass
    await transaction.rollback()
    assert len(await listing) == 1


async def test_two_scans_share_the_work(client: httpx.AsyncClient, database_url: str) -> None:
    """Two scans at once compare each patient once, and both end."""
    for number in range(6):
        await register(client, f"p{number}", **{**THANDI, "patient_last_name": f"Mthembu{number}"})
    async with Database(database_url, pool_size=2 * SCAN_POOL_SIZE) as database:
        compared = await asyncio.gather(*(scan(database, lambda _: None, batch_size=1) for _ in range(2)))
    assert sum(compared) == 6
    assert min(compared) > 0


async def test_many_equal_records_imply_no_pairs(client: httpx.AsyncClient, database_url: str) -> None:
    """Registrations of a test patient do not multiply: each is a pair with some others."""
    for number in range(60):
        await register(client, f"p{number:02}", patient_first_name="Test", patient_last_name="Patient")
    async with Database(database_url, pool_size=SCAN_POOL_SIZE) as database:
        await scan(database, lambda _: None, batch_size=10)
    response = await client.get(DUPLICATES, params={"count": "exact", "limit": 1})
    assert int(response.headers["X-Total-Count"]) <= 60 * 20


@pytest.mark.parametrize("name", ["duplicates", "pending_comparisons", "duplicate_scans"])
async def test_an_erasure_removes_the_pairs(
    client: httpx.AsyncClient, connection: asyncpg.Connection, database_url: str, name: str
) -> None:
    """No table of duplicates contains the id of an erased patient."""
    await register(client, "a", **THANDI)
    await register(client, "b", **TWIN)
    (entry,) = await queue(client)
    await dismiss(client, entry)
    async with Database(database_url, pool_size=1) as database:
        await database.transaction(lambda one: PatientService(one, Principal("erase")).erase("a", "asked for it"))
    await connection.execute("INSERT INTO duplicate_scans VALUES ('z') ON CONFLICT DO NOTHING")
    rows = await connection.fetch(f"SELECT * FROM {name}")  # noqa: S608  # a parameter of the test
    assert not [row for row in rows if "a" in row.values()]
