"""The database function `fold`, which ignores case and accents."""

import asyncpg

from app.locality.names import UNDECOMPOSABLE_LETTERS, fold_text, words_of


async def test_ascii_is_folded_like_any_other_text(connection: asyncpg.Connection) -> None:
    """The shortcut of `fold` for ASCII gives the same result as the function for all texts."""
    differing = await connection.fetch(
        """
        SELECT value
        FROM generate_series(1, 127) a, generate_series(1, 127) b, LATERAL (SELECT chr(a) || chr(b)) AS pair(value)
        WHERE fold(value) IS DISTINCT FROM fold_any_text(value)
        """
    )
    assert differing == []
    assert await connection.fetchrow("SELECT fold(NULL), fold('Zoë'), fold('ZOE')") == (None, "zoe", "zoe")


async def test_matching_folds_letters_of_names_as_searches_do(connection: asyncpg.Connection) -> None:
    """Letters that do not decompose are the same in comparisons of patients and in the vocabulary."""
    letters = [*UNDECOMPOSABLE_LETTERS]
    folded = await connection.fetch("SELECT fold(letter) FROM unnest($1::text[]) AS letter", letters)
    assert [*map(fold_text, letters)] == [letter for (letter,) in folded]
    assert [words_of(name) for name in ("YILDIZ", "Yıldız", "Ɗanƙwairo", "Kaʻōhao")] == [
        ["yildiz"],
        ["yildiz"],
        ["dankwairo"],
        ["kaohao"],
    ]


async def test_plain_names_are_split_like_any_other_names(connection: asyncpg.Connection) -> None:
    """The shortcut of `spellings` for plain names gives the same words as the way for all names.

    An invisible character, which folding removes, makes a name one of the others.
    """
    differing = await connection.fetch(
        """
        WITH part AS (SELECT unnest(ARRAY[NULL, '', 'Anna', 'van der Merwe', 'St. John', 'J.P.', 'JP', ' . ', 'a..b 1'])
            AS text)
        SELECT surname.text, first.text, title.text
        FROM part AS surname, part AS first, part AS title, LATERAL (SELECT
            spellings(surname.text, first.text, 'JP', title.text) AS plain,
            spellings(surname.text, first.text, 'JP', title.text || U&'\\200B') AS other
        ) AS words
        WHERE plain <> other
        """
    )
    assert differing == []
    words = await connection.fetchval("SELECT tsvector_to_array(spellings('van Wyk', 'Anna', 'AB', 'Mrs.'))")
    assert words == ["a", "ab", "anna", "b", "mrs", "van", "vanwyk", "wyk"]


async def test_words_have_a_key_in_common_if_at_most_two_letters_each_differ(connection: asyncpg.Connection) -> None:
    """The keys of a word are its first seven letters without none, one or two of them."""
    assert await connection.fetchval("SELECT typing_keys('aé', 0)") == ["aé"]
    assert sorted(await connection.fetchval("SELECT typing_keys('abc', 1)")) == ["ab", "abc", "ac", "bc"]
    assert {*await connection.fetchval("SELECT typing_keys('abcd', 2)")} == {
        *("abcd", "bcd", "acd", "abd", "abc", "ab", "ac", "ad", "bc", "bd", "cd")
    }
    assert "cdefg" in await connection.fetchval("SELECT typing_keys('abcdefghi', 2)")
    assert await connection.fetchval("SELECT typing_keys('', 2)") == []
