"""The words of names: learnt by whoever writes, forgotten with the person, and told across no wall."""

import asyncio

import asyncpg
import httpx
import pytest

from app.search.words import MOST_ALIKE
from tests.journal.conftest import Command, command, serving_url
from tests.search.conftest import PATIENTS, SEARCH, Register
from tests.walls.conftest import Register as Walls
from tests.walls.conftest import patient
from tests.walls.conftest import register as walls

__all__ = ["command", "serving_url", "walls"]


async def words(connection: asyncpg.Connection) -> set[str]:
    return {word for (word,) in await connection.fetch("SELECT word FROM name_words")}


async def test_every_word_is_learnt(
    client: httpx.AsyncClient, connection: asyncpg.Connection, register: Register
) -> None:
    """By creating, changing, restoring, and what is written past the service."""
    await register(one="Zoë O'Brien")
    assert await words(connection) == {"zoe", "o", "brien", "obrien"}
    await client.patch(f"{PATIENTS}one/", json={"patient_last_name": "Mokoena"})
    await connection.execute(
        "INSERT INTO patients (unique_id, patient_last_name) VALUES ('two', 'Nel'), ('three', 'Nel')"
    )
    assert {"mokoena", "nel"} <= await words(connection)
    assert await connection.fetchval(
        "SELECT bool_and(tsvector_to_array(patient_search) <@ (SELECT array_agg(word) FROM name_words)) FROM patients"
    )


async def test_the_same_new_words_in_the_same_moment(client: httpx.AsyncClient, connection: asyncpg.Connection) -> None:
    """Whoever writes them in whatever order, nobody waits in a circle."""
    names = ["Aab", "Bbc", "Ccd", "Dde"]
    bodies = [
        {"patient_first_name": " ".join(names[n % 4 :] + names[: n % 4]), "patient_last_name": f"New {n % 3}"}
        for n in range(40)
    ]
    answers = await asyncio.gather(*(client.post(PATIENTS, json=body) for body in bodies))
    assert {answer.status_code for answer in answers} == {201}
    assert {"aab", "bbc", "ccd", "dde"} <= await words(connection)
    deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    assert await connection.fetchval(deadlocks) == 0


async def test_words_are_erased_with_the_person(
    client: httpx.AsyncClient, connection: asyncpg.Connection, register: Register, command: Command
) -> None:
    """All that the person ever had, but those that somebody else has."""
    await register(one="Anna Qwertz", two="Anna Botha")
    await client.patch(f"{PATIENTS}one/", json={"patient_last_name": "Asdfgh"})
    assert {"anna", "qwertz", "asdfgh", "botha"} <= await words(connection)
    done = await command("erase", "patient", "one", "--reason", "asked for it", "--yes")
    assert done.status == 0, done.err
    assert await words(connection) == {"anna", "botha"}


async def test_nobody_is_found_across_a_wall(walls: Walls) -> None:
    """Neither by name, nor by number, date, address or id; nor does who is hidden change what is found, or counted."""
    hidden = patient("Kruisenberge", "hosB", patient_first_name="Ann", patient_date_of_birth="1980-01-01")
    await walls.free.post(
        PATIENTS, json={**hidden, "patient_mobile_number": "0821234567", "patient_email_address": "k@example.com"}
    )
    await walls.free.post(PATIENTS, json=patient("Kruisenbargk", "hosA", patient_first_name="Ann"))
    for text in ("kruisenberge", "ann 1980-01-01", "0821234567", "k@example.com", "pat-Kruisenberge", "kru", "isenber"):
        found = {
            who: (await client.post(SEARCH, json={"search": text, "count": "exact"}))
            for who, client in walls._asdict().items()
        }
        seen = {who: {record["unique_id"] for record in answer.json()} for who, answer in found.items()}
        assert "pat-Kruisenberge" in seen["b"] & seen["both"] & seen["free"]
        assert "pat-Kruisenberge" not in seen["a"]
        assert {who: int(answer.headers["X-Total-Count"]) for who, answer in found.items()} == {
            who: len(ids) for who, ids in seen.items()
        }
    assert [record["unique_id"] for record in (await walls.a.post(SEARCH, json={"search": "kruisenberge"})).json()] == [
        "pat-Kruisenbargk"
    ]


@pytest.mark.parametrize("who", ["a", "b"])
async def test_words_of_others_leave_out_no_own(walls: Walls, connection: asyncpg.Connection, who: str) -> None:
    """However many similar names there are: else, by adding names until one is left out, one would learn of others."""
    hospital = {"a": "hosA", "b": "hosB"}[who]
    await connection.execute(
        "INSERT INTO patients (unique_id, patient_last_name) "
        "SELECT 'p' || n, 'Qwandel' || chr(19968 + n) FROM generate_series(0, $1) n",
        MOST_ALIKE + 20,
    )
    await connection.execute(
        "INSERT INTO patient_hospitals SELECT unique_id, $1 FROM patients WHERE unique_id ~ '^p[0-9]'", hospital
    )
    client: httpx.AsyncClient = getattr(walls, who)
    wanted = {"search": "qwandelx", "limit": 1000, "count": "exact"}
    before = (await client.post(SEARCH, json=wanted)).content
    await connection.execute("INSERT INTO patients (unique_id, patient_last_name) VALUES ('hidden', 'Qwandel')")
    assert (await client.post(SEARCH, json=wanted)).content == before
