"""The database function `fold`, which ignores case and accents."""

import asyncpg


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
