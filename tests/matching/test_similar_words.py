"""The words that names may be misspelt as, which a process keeps."""

import asyncpg
import pytest

from app.db.connection import Connection
from app.matching import similar_words
from app.matching.similar_words import SimilarWords, typing_keys


@pytest.mark.parametrize("errors", [1, 2])
@pytest.mark.parametrize("word", ["", "a", "ab", "anna", "mthembu", "ndlovukazi", "zoë", "李小龍"])
async def test_keys_are_those_of_the_index(connection: asyncpg.Connection, word: str, errors: int) -> None:
    """Python and PostgreSQL compute the same keys."""
    assert typing_keys(word, errors) == {*await connection.fetchval("SELECT typing_keys($1, $2)", word, errors)}


@pytest.mark.parametrize("max_new_words", [500, 1], ids=["few new words", "more than are added"])
async def test_words_of_names_that_are_added_later_are_found(
    connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch, max_new_words: int
) -> None:
    """After a refresh, kept words are similar to new ones by their own number of errors."""
    monkeypatch.setattr(similar_words, "MAX_NEW_WORDS", max_new_words)
    words, database = SimilarWords(), Connection(connection)
    await words.refresh(database)
    names = ["mthembu", "qbnna", "unregistered"]
    await connection.execute("INSERT INTO name_words (word) VALUES ('mthembu'), ('qbnna')")
    assert await words.read(database, names) == {name: {name} for name in names}
    added = ("mtebu", "qbna", "qbnan", "qbn", "unregisterd")
    await connection.executemany("INSERT INTO name_words (word) VALUES ($1)", [(word,) for word in added])
    await words.refresh(database)
    found = {word: {*near} for word, near in (await words.read(database, names)).items()}
    assert found["mthembu"] == {"mthembu", "mtebu"}
    assert found["qbnna"] == {"qbnna", "qbna", "qbnan"}
    assert found["unregistered"] == {"unregistered", "unregisterd"}
    assert found == await SimilarWords().read(database, names)


async def test_a_word_that_is_committed_late_is_found(connection: asyncpg.Connection) -> None:
    """A word whose time precedes the last refresh is new if its transaction commits after it."""
    words, database = SimilarWords(), Connection(connection)
    await connection.execute("INSERT INTO name_words VALUES ('mthembu')")
    await words.refresh(database)
    await words.read(database, ["mthembu"])
    await words.refresh(database)
    await connection.execute("INSERT INTO name_words VALUES ('mtembu', statement_timestamp() - interval '5 s')")
    await words.refresh(database)
    assert await words.read(database, ["mthembu"]) == {"mthembu": {"mthembu", "mtembu"}}


async def test_requests_refresh_only_old_words(connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new word is found by a request after some time. Nothing is kept for restricted principals."""
    words, restricted, database = SimilarWords(), SimilarWords(["a"]), Connection(connection)
    await connection.execute("INSERT INTO name_words (word) VALUES ('mthembu')")
    await words.refresh_if_old(database)
    await words.read(database, ["mthembu"])
    await connection.execute("INSERT INTO name_words (word) VALUES ('mtembu')")
    await words.refresh_if_old(database)
    assert await words.read(database, ["mthembu"]) == {"mthembu": {"mthembu"}}
    monkeypatch.setattr(similar_words, "MAX_AGE_SECONDS", 0)
    await words.refresh_if_old(database)
    await restricted.refresh_if_old(database)
    assert await words.read(database, ["mthembu"]) == {"mthembu": {"mthembu", "mtembu"}}
    assert await restricted.read(database, ["mthembu"]) == {"mthembu": {"mthembu"}}
