"""The vocabulary of name words: every write adds to it, erasure deletes from it, and it reveals no hidden patient."""

import asyncio

import asyncpg
import httpx
import pytest

from app.vocabulary.expansion import MAX_CANDIDATES
from tests.hospital_scope.conftest import ScopedClients, patient_body, scoped_clients
from tests.journal.conftest import Command, command, serving_url
from tests.search.conftest import PATIENTS, SEARCH, CreatePatients

__all__ = ["command", "scoped_clients", "serving_url"]


async def name_words(connection: asyncpg.Connection) -> set[str]:
    return {word for (word,) in await connection.fetch("SELECT word FROM name_words")}


async def test_every_written_name_word_is_recorded(
    client: httpx.AsyncClient, connection: asyncpg.Connection, create_patients: CreatePatients
) -> None:
    """Creating, changing and writing past the service record the words of names."""
    await create_patients(one="Zoë O'Brien")
    assert await name_words(connection) == {"zoe", "o", "brien", "obrien"}
    await client.patch(f"{PATIENTS}one/", json={"patient_last_name": "Mokoena"})
    await connection.execute(
        "INSERT INTO patients (unique_id, patient_last_name) VALUES ('two', 'Nel'), ('three', 'Nel')"
    )
    assert {"mokoena", "nel"} <= await name_words(connection)
    assert await connection.fetchval(
        "SELECT bool_and(tsvector_to_array(patient_search) <@ (SELECT array_agg(word) FROM name_words)) FROM patients"
    )


async def test_concurrent_writes_of_the_same_words_do_not_deadlock(
    client: httpx.AsyncClient, connection: asyncpg.Connection
) -> None:
    """Concurrent writes of the same words, in any order, do not deadlock."""
    names = ["Aab", "Bbc", "Ccd", "Dde"]
    bodies = [
        {"patient_first_name": " ".join(names[n % 4 :] + names[: n % 4]), "patient_last_name": f"New {n % 3}"}
        for n in range(40)
    ]
    responses = await asyncio.gather(*(client.post(PATIENTS, json=body) for body in bodies))
    assert {response.status_code for response in responses} == {201}
    assert {"aab", "bbc", "ccd", "dde"} <= await name_words(connection)
    deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    assert await connection.fetchval(deadlocks) == 0


async def test_erasure_deletes_unused_words(
    client: httpx.AsyncClient, connection: asyncpg.Connection, create_patients: CreatePatients, command: Command
) -> None:
    """An erasure deletes all words that the patient ever had, except those that another patient has."""
    await create_patients(one="Anna Qwertz", two="Anna Botha")
    await client.patch(f"{PATIENTS}one/", json={"patient_last_name": "Asdfgh"})
    assert {"anna", "qwertz", "asdfgh", "botha"} <= await name_words(connection)
    done = await command("erase", "patient", "one", "--reason", "asked for it", "--yes")
    assert done.status == 0, done.err
    assert await name_words(connection) == {"anna", "botha"}


async def test_search_finds_no_patient_outside_the_scope(scoped_clients: ScopedClients) -> None:
    """A hidden patient is not found by any of its data, and changes neither what others find nor what is counted."""
    hidden = patient_body("Kruisenberge", "hosB", patient_first_name="Ann", patient_date_of_birth="1980-01-01")
    await scoped_clients.free.post(
        PATIENTS, json={**hidden, "patient_mobile_number": "0821234567", "patient_email_address": "k@example.com"}
    )
    await scoped_clients.free.post(PATIENTS, json=patient_body("Kruisenbargk", "hosA", patient_first_name="Ann"))
    for text in ("kruisenberge", "ann 1980-01-01", "0821234567", "k@example.com", "pat-Kruisenberge", "kru", "isenber"):
        responses = {
            who: (await client.post(SEARCH, json={"search": text, "count": "exact"}))
            for who, client in scoped_clients._asdict().items()
        }
        visible_ids = {who: {record["unique_id"] for record in response.json()} for who, response in responses.items()}
        assert "pat-Kruisenberge" in visible_ids["b"] & visible_ids["both"] & visible_ids["free"]
        assert "pat-Kruisenberge" not in visible_ids["a"]
        assert {who: int(response.headers["X-Total-Count"]) for who, response in responses.items()} == {
            who: len(ids) for who, ids in visible_ids.items()
        }
    assert [
        record["unique_id"] for record in (await scoped_clients.a.post(SEARCH, json={"search": "kruisenberge"})).json()
    ] == ["pat-Kruisenbargk"]


@pytest.mark.parametrize("principal", ["a", "b"])
async def test_hidden_words_do_not_change_search_results(
    scoped_clients: ScopedClients, connection: asyncpg.Connection, principal: str
) -> None:
    """Hidden words change no result, however many similar names exist: adding names would reveal them otherwise."""
    hospital = {"a": "hosA", "b": "hosB"}[principal]
    await connection.execute(
        "INSERT INTO patients (unique_id, patient_last_name) "
        "SELECT 'p' || n, 'Qwandel' || chr(19968 + n) FROM generate_series(0, $1) n",
        MAX_CANDIDATES + 20,
    )
    await connection.execute(
        "INSERT INTO patient_hospitals SELECT unique_id, $1 FROM patients WHERE unique_id ~ '^p[0-9]'", hospital
    )
    client: httpx.AsyncClient = getattr(scoped_clients, principal)
    query = {"search": "qwandelx", "limit": 1000, "count": "exact"}
    before = (await client.post(SEARCH, json=query)).content
    await connection.execute("INSERT INTO patients (unique_id, patient_last_name) VALUES ('hidden', 'Qwandel')")
    assert (await client.post(SEARCH, json=query)).content == before
