"""Names of patients in one hospital hide no patients of others in searches, reveal nothing, and break no search."""

import asyncio
from collections.abc import Iterator

import asyncpg
import httpx
import pytest

from app.db.database import Database
from app.search_scores.weights import FEW_MATCHES
from app.statements.hospital_scope import MAX_ID_LOOKUPS
from app.vocabulary.expansion import MAX_CANDIDATES, MAX_RANKED_CANDIDATES
from app.vocabulary.stale_words import delete_stale_words
from tests.hospital_scope.conftest import ScopedClients, patient_body, scoped_clients
from tests.journal.conftest import Command, command
from tests.processes import count_deadlocks, wait_until_blocked
from tests.search.conftest import PATIENTS, SEARCH

__all__ = ["command", "scoped_clients"]

WORDS_OF_A_NAME = 18
"""With words of eight letters and a blank each, about what a field of 150 characters holds."""


def words_one_edit_from(word: str) -> Iterator[str]:
    """Yield other words with one letter inserted or replaced, in alphabetical order."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    inserted = {word[:place] + letter + word[place:] for letter in letters for place in range(len(word) + 1)}
    replaced = {word[:place] + letter + word[place + 1 :] for letter in letters for place in range(len(word))}
    yield from sorted({other for other in inserted | replaced if not other.startswith((word, "dlamini"))})


def name_fields(words: list[str]) -> Iterator[dict[str, str]]:
    """Yield the words as names of patients, as many in each name as fit."""
    for start in range(0, len(words), 2 * WORDS_OF_A_NAME):
        some = words[start : start + 2 * WORDS_OF_A_NAME]
        yield {
            "patient_first_name": " ".join(some[:WORDS_OF_A_NAME]),
            "patient_last_name": " ".join(some[WORDS_OF_A_NAME:]) or "x",
        }


async def search_ids(client: httpx.AsyncClient, text: str) -> list[str]:
    response = await client.post(SEARCH, json={"search": text, "limit": 1000})
    assert response.status_code == 200, response.text
    return [record["unique_id"] for record in response.json()]


async def count_words(connection: asyncpg.Connection, table: str, words: list[str]) -> int:
    number: int = await connection.fetchval(f"SELECT count(*) FROM {table} WHERE word = ANY ($1)", words)  # noqa: S608
    return number


async def delete_unused_words(database_url: str) -> None:
    async with Database(database_url, pool_size=1) as database:
        await delete_stale_words(database)


@pytest.fixture
async def dlamini_ids(connection: asyncpg.Connection, scoped_clients: ScopedClients) -> list[str]:
    """Create thirty patients of that name in another hospital, and return their ids."""
    del scoped_clients
    await connection.execute(
        "INSERT INTO patients (unique_id, patient_last_name) SELECT 'd' || n, 'Dlamini' FROM generate_series(10, 39) n"
    )
    await connection.execute(
        "INSERT INTO patient_hospitals SELECT unique_id, 'hosB' FROM patients WHERE unique_id ~ '^d'"
    )
    return [f"d{number}" for number in range(10, 40)]


async def test_names_added_and_removed_hide_no_patient_from_search(
    scoped_clients: ScopedClients, connection: asyncpg.Connection, dlamini_ids: list[str], database_url: str
) -> None:
    """Renaming a patient again and again with a restricted key hides no patients from misspelled searches of others."""
    words = list(words_one_edit_from("dlamni"))[: MAX_CANDIDATES + 24]
    for name in name_fields(words):
        assert (await scoped_clients.a.patch(f"{PATIENTS}pat-a/", json=name)).status_code == 200
        assert set(dlamini_ids) <= set(await search_ids(scoped_clients.free, "dlamni"))
    await scoped_clients.a.patch(f"{PATIENTS}pat-a/", json={"patient_first_name": None, "patient_last_name": "a"})
    assert set(dlamini_ids) <= set(await search_ids(scoped_clients.free, "dlamni"))
    await delete_unused_words(database_url)
    assert (
        await count_words(connection, "name_words", words)
        == await count_words(connection, "hospital_words", words)
        == 0
    )
    assert await search_ids(scoped_clients.free, "dlamni") == dlamini_ids


@pytest.mark.parametrize("first", ["attacker", "others"])
async def test_similar_names_do_not_hide_a_frequent_one(
    scoped_clients: ScopedClients, connection: asyncpg.Connection, first: str
) -> None:
    """A name of many patients outranks similar names of one patient each, whichever was added first."""
    words = list(words_one_edit_from("dlamni"))[: 2 * MAX_CANDIDATES]
    others = (
        "INSERT INTO patients (unique_id, patient_last_name) SELECT 'd' || n, 'Dlamini' FROM generate_series(1, 8) n"
    )
    if first == "others":
        await connection.execute(others)
    for number, name in enumerate(name_fields(words)):
        body = {"unique_id": f"w{number}", "hospital_ids": ["hosA"], **name}
        assert (await scoped_clients.free.post(PATIENTS, json=body)).status_code == 201
    if first == "attacker":
        await connection.execute(others)
    assert {f"d{number}" for number in range(1, 9)} <= set(await search_ids(scoped_clients.free, "dlamni"))


async def test_later_names_do_not_hide_an_earlier_rare_one(
    scoped_clients: ScopedClients, connection: asyncpg.Connection
) -> None:
    """However many similar names of one patient each are added later, an earlier one still ranks before them."""
    assert (await scoped_clients.free.post(PATIENTS, json=patient_body("Qwandela", "hosB"))).status_code == 201
    await connection.execute(
        "INSERT INTO patients (unique_id, patient_last_name) "
        "SELECT 'p' || n, 'Qwandel' || chr(19968 + n) FROM generate_series(0, $1) n",
        MAX_RANKED_CANDIDATES + 20,
    )
    assert "pat-Qwandela" in await search_ids(scoped_clients.free, "qwandel1")


async def test_a_restricted_principal_searches_only_the_words_of_its_hospitals(
    scoped_clients: ScopedClients, connection: asyncpg.Connection
) -> None:
    """A restricted principal finds the same without the words of all patients and of all other hospitals."""
    for client, name in ((scoped_clients.a, "Kruisenberg"), (scoped_clients.b, "Kruisenburg")):
        body = patient_body(name, "hosA" if client is scoped_clients.a else "hosB")
        assert (await scoped_clients.free.post(PATIENTS, json=body)).status_code == 201
    texts = ("kruisenborg", "kruisenbrug", "uisenb", "krusienbegr")
    before = [await search_ids(scoped_clients.a, text) for text in texts]
    assert before == [["pat-Kruisenberg"]] * 4
    await connection.execute("ALTER TABLE name_words RENAME TO nothing")
    await connection.execute("DELETE FROM hospital_words WHERE hospital_id <> 'hosA'")
    assert [await search_ids(scoped_clients.a, text) for text in texts] == before


async def test_words_of_other_hospitals_change_no_result(
    scoped_clients: ScopedClients, connection: asyncpg.Connection
) -> None:
    """Similar words of other hospitals displace no word even if a hospital has exactly as many as are considered."""
    await connection.execute(
        "INSERT INTO patients (unique_id, patient_last_name) "
        "SELECT 'p' || n, 'Qwandel' || chr(19968 + n) FROM generate_series(1, $1) n",
        MAX_CANDIDATES,
    )
    await connection.execute(
        "INSERT INTO patient_hospitals SELECT unique_id, 'hosA' FROM patients WHERE unique_id ~ '^p[0-9]'"
    )
    before = [await search_ids(scoped_clients.a, text) for text in ("qwandelx", "wande", "qwnadelx")]
    assert [len(ids) for ids in before] == [MAX_CANDIDATES, FEW_MATCHES, FEW_MATCHES]
    for name in ("Qwandela", "Qwandel", "Wande", "Qwandelxy"):
        assert (await scoped_clients.free.post(PATIENTS, json=patient_body(name, "hosB"))).status_code == 201
    assert [await search_ids(scoped_clients.a, text) for text in ("qwandelx", "wande", "qwnadelx")] == before


@pytest.mark.alone  # the time limit of a search counts
@pytest.mark.parametrize("letters", ["long", "wide"])
async def test_no_names_make_a_search_fail(
    scoped_clients: ScopedClients, connection: asyncpg.Connection, letters: str
) -> None:
    """Thousands of similar words of the maximum length make no search fail, for any principal."""
    filler = {"long": "repeat('z', 130)", "wide": "repeat(chr(131072), 50)"}[letters]
    await connection.execute(
        f"""
        INSERT INTO patients (unique_id, patient_last_name)
        SELECT 'p' || n, 'abcd' || chr(131072 + n) || {filler} FROM generate_series(1, 3000) n
        """  # noqa: S608  # the test's own words
    )
    await connection.execute(
        "INSERT INTO patient_hospitals SELECT unique_id, 'hosA' FROM patients WHERE unique_id ~ '^p[0-9]'"
    )
    text = "abcd bcd abc zzzz zzzzz abcde abdc acbd"
    for client in scoped_clients:
        assert (await client.post(SEARCH, json={"search": text, "limit": 1})).status_code == 200
        assert (await client.post(SEARCH, json={"search": "bcd", "limit": 1})).status_code == 200


@pytest.mark.parametrize("character", ["\ufdfa", "\u33af", "\u2100", "\U0002a6b2"])
async def test_characters_that_fold_into_many_letters_are_accepted(
    scoped_clients: ScopedClients, character: str
) -> None:
    """Names and searches with characters that fold into many letters are accepted."""
    body = {"unique_id": "many", "patient_last_name": character * 150, "patient_first_name": character * 150}
    assert (await scoped_clients.free.post(PATIENTS, json=body)).status_code == 201
    assert (await scoped_clients.free.post(SEARCH, json={"search": character * 200})).status_code == 200


async def test_words_are_deleted_with_their_last_patient(
    scoped_clients: ScopedClients, connection: asyncpg.Connection, database_url: str
) -> None:
    """A word leaves a hospital with its last patient of that name there, and the vocabulary with the last of all."""
    for name, *hospitals in (("Zorrilla", "hosA", "hosB"), ("Quixote", "hosA"), ("Sancho", "hosA")):
        assert (await scoped_clients.free.post(PATIENTS, json=patient_body(name, *hospitals))).status_code == 201
    assert await count_words(connection, "hospital_words", ["zorrilla", "quixote", "sancho"]) == 4
    await scoped_clients.free.patch(f"{PATIENTS}pat-Zorrilla/", json={"hospital_ids": ["hosB"]})
    await scoped_clients.free.patch(f"{PATIENTS}pat-Quixote/", json={"patient_last_name": "Sancho"})
    await scoped_clients.free.delete(f"{PATIENTS}pat-Sancho/")
    await delete_unused_words(database_url)
    rows = await connection.fetch("SELECT word, hospital_id FROM hospital_words WHERE length(word) > 4")
    assert {tuple(row) for row in rows} >= {("zorrilla", "hosB"), ("sancho", "hosA")}
    assert ("zorrilla", "hosA") not in {tuple(row) for row in rows}
    assert (
        await count_words(connection, "hospital_words", ["quixote"])
        == await count_words(connection, "name_words", ["quixote"])
        == 0
    )
    assert await count_words(connection, "name_words", ["zorrilla", "sancho"]) == 2
    assert await connection.fetchval("SELECT count(*) FROM stale_words") == 0


async def test_a_restricted_search_reads_no_index_of_other_hospitals(
    scoped_clients: ScopedClients, connection: asyncpg.Connection
) -> None:
    """The search of a principal with few visible patients reads no index with others', so timing reveals nothing."""
    async with connection.transaction():
        await connection.execute(
            "INSERT INTO patients (unique_id, patient_last_name, patient_town) "
            "SELECT 'p' || n, 'Dlamini', 'Soweto' FROM generate_series(1, 5000) n"
        )
        await connection.execute("DELETE FROM pending_comparisons")  # these would read the index in the background
        await connection.execute(
            "INSERT INTO patient_hospitals SELECT unique_id, 'hosB' FROM patients WHERE unique_id ~ '^p[0-9]'"
        )
    await connection.execute("ANALYZE")
    indexes = ["ix_patients_patient_search", "ix_patients_patient_last_name_folded_unique_id"]
    scans = "SELECT sum(idx_scan) FROM pg_stat_user_indexes WHERE indexrelname = ANY ($1)"
    await count_deadlocks(connection)  # makes all sessions report their statistics
    before = await connection.fetchval(scans, indexes)  # by comparisons of new patients
    for query in ({"search": "dlamini"}, {"search": "dlamni x"}, {"patient_last_name": "dlamini", "count": "exact"}):
        assert (await scoped_clients.a.post(SEARCH, json=query)).json() == []
    await count_deadlocks(connection)
    assert await connection.fetchval(scans, indexes) == before


async def test_stale_words_beyond_one_batch_are_deleted(
    scoped_clients: ScopedClients, connection: asyncpg.Connection, database_url: str
) -> None:
    """All stale words are processed across batches, repeated ones once, and one patient adds at most 60 words."""
    await connection.execute(
        "INSERT INTO name_words (word) SELECT 'w' || n FROM generate_series(1, 1000) n;"
        "INSERT INTO hospital_words (word, hospital_id) SELECT 'w' || n, 'hosA' FROM generate_series(1, 1000) n;"
        "INSERT INTO stale_words SELECT 'w' || n FROM generate_series(1, 1000) n, generate_series(1, 5)"
    )
    words = [f"{first}{second}z" for first in "abcdefgh" for second in "abcdefgh"]
    name = {"patient_first_name": " ".join(words[:36]), "patient_last_name": " ".join(words[36:])}
    assert (await scoped_clients.a.patch(f"{PATIENTS}pat-a/", json=name)).status_code == 200
    assert 50 < await count_words(connection, "hospital_words", words) <= 60
    await delete_unused_words(database_url)
    assert await connection.fetchval("SELECT count(*) FROM stale_words") == 0
    assert await connection.fetchval("SELECT count(*) FROM name_words WHERE word ~ '^w[0-9]'") == 0
    assert await connection.fetchval("SELECT count(*) FROM hospital_words WHERE word ~ '^w[0-9]'") == 0


async def test_erasure_blocks_no_writer(
    scoped_clients: ScopedClients, connection: asyncpg.Connection, command: Command
) -> None:
    """While another transaction, such as an import, has written words, an erasure waits and blocks no other writer."""
    async with connection.transaction():
        await connection.execute("INSERT INTO hospital_words (word, hospital_id) VALUES ('imported', 'hosA')")
        erasing = asyncio.ensure_future(command("erase", "patient", "pat-b", "--reason", "asked", "--yes"))
        await wait_until_blocked(connection)
        for number in range(10):
            body = {"unique_id": f"new{number}", "patient_last_name": f"New{number}"}
            assert (await scoped_clients.free.post(PATIENTS, json=body)).status_code == 201
        assert not erasing.done()
    assert (await erasing).status == 0
    assert await count_words(connection, "name_words", ["b"]) == 0


@pytest.mark.parametrize("visible_patients", [1, MAX_ID_LOOKUPS + 1])
async def test_hidden_patients_change_no_search_for_any_detail(
    scoped_clients: ScopedClients, connection: asyncpg.Connection, visible_patients: int
) -> None:
    """Hidden patients with the same details change neither results, order and counts nor the headers of a search."""
    await connection.execute(
        "INSERT INTO patients (unique_id, patient_last_name, patient_first_name, patient_town, patient_mobile_number) "
        "SELECT 'v' || n, 'Dlamini', 'Sipho', 'Paarl', '08' || (10000000 + n) FROM generate_series(1, $1) n",
        visible_patients,
    )
    await connection.execute(
        "INSERT INTO patient_hospitals SELECT unique_id, 'hosA' FROM patients WHERE unique_id ~ '^v[0-9]'"
    )
    texts = (
        *("sipho dlamini", "sipho qwertz", "dlamini paarl", "dlamini soweto", "sipho hosb", "hidden-0", "1990-05-17"),
        *(
            "dlamini 17/05/1990",
            "0821234567",
            "sipho 4567",
            "hidden@example.org",
            "sipho 1990",
            "dlamini Grace Sithole",
        ),
    )

    async def responses() -> list[tuple[bytes, str, str, str]]:
        found = [
            await scoped_clients.a.post(SEARCH, json={"search": text, "limit": 20, "count": "exact"}) for text in texts
        ]
        names = ("X-Total-Count", "Search-Agreement", "Search-Set-Aside")
        return [(response.content, *(response.headers[name] for name in names)) for response in found]  # type: ignore[misc]

    before = await responses()
    hidden = patient_body("Dlamini", "hosB", patient_first_name="Sipho", patient_town="Soweto")
    profile = {"unique_id": "prof-x", "email": "hidden@example.org", "first_name": "Grace", "last_name": "Sithole"}
    for number in range(3):
        body = {**hidden, "unique_id": f"hidden-0{number}", "patient_profile": profile}
        details = {"patient_date_of_birth": "1990-05-17", "patient_mobile_number": "0821234567"}
        response = await scoped_clients.free.post(PATIENTS, json={**body, **details})
        assert response.status_code == 201, response.text
    assert await responses() == before


async def test_a_misspelled_town_shows_only_patients_of_own_hospitals(scoped_clients: ScopedClients) -> None:
    """A misspelled town is compared with those of visible patients, so that it reveals no others, nor their towns."""
    for name, hospital, town in (("near", "hosA", "Paarl"), ("far", "hosB", "Paarl"), ("only", "hosB", "Knysna")):
        body = {**patient_body(name, hospital), "patient_last_name": "Mabena", "patient_town": town}
        assert (await scoped_clients.free.post(PATIENTS, json=body)).status_code == 201
    agreements = []
    for text in ("mabena parrl", "mabena knsyna", "mabena qwrtzu"):
        response = await scoped_clients.a.post(SEARCH, json={"search": text})
        assert [record["unique_id"] for record in response.json()] == ["pat-near"], text
        agreements.append((response.headers["Search-Agreement"], response.headers["Search-Set-Aside"]))
    assert agreements[0][1] == "0"
    assert agreements[1] == agreements[2]
