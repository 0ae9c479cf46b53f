"""Whether the first row of a table is its header. A message may show a header, but not the data of a patient."""

import re
from collections.abc import Callable, Sequence

from app.registers.values import UNKNOWN_WORDS, is_word

MIN_COLUMNS, MIN_SHARE = 3, 4
"""A row is a header if at least three columns, and one in four, say so."""
MAX_EXAMINED_COLUMNS = 100
"""Maximum number of columns that are examined if known names do not decide."""
SAMPLE_ROWS = 20
"""Number of rows below the first one that are compared with it, if its names do not decide."""
_DATUM_PATTERN = re.compile(r"@|[0-9]{4}")
_DIGIT_PATTERN = re.compile(r"[0-9@]")


def is_header_row(
    names: Sequence[str],
    are_known: Sequence[bool],
    is_similar: Callable[[str], object],
    rows_below: Callable[[], Sequence[Sequence[str]]],
) -> bool:
    """Return whether a row is the header of a table.

    `are_known` says which of its cells are known names of columns. `is_similar` returns whether another one is similar
    to a known name. Only if these do not decide, `rows_below` is called for some rows below.
    """
    known_count = sum(are_known)
    if known_count * 2 >= len(names) or _suffices(known_count, names):
        return True
    names, are_known = names[:MAX_EXAMINED_COLUMNS], are_known[:MAX_EXAMINED_COLUMNS]
    if any(_DATUM_PATTERN.search(name) or (name and not any(map(str.isalpha, name))) for name in names):
        return False
    likely = [is_known or bool(is_similar(name)) for name, is_known in zip(names, are_known, strict=True)]
    if not _suffices(sum(likely), names):
        rows = rows_below()
        likely = [
            one or _is_above_numbers(name, [row[place] for row in rows if place < len(row)])
            for place, (name, one) in enumerate(zip(names, likely, strict=True))
        ]
    return _suffices(sum(likely), names)


def _suffices(count: int, names: Sequence[str]) -> bool:
    return count >= max(MIN_COLUMNS, len(names) / MIN_SHARE)


def _is_above_numbers(name: str, cells: Sequence[str]) -> bool:
    """Return whether a text without digits is above cells that all have digits, such as dates."""
    texts = [cell for cell in cells if not is_word(cell, UNKNOWN_WORDS) and cell.strip()]
    is_text = bool(name) and _DIGIT_PATTERN.search(name) is None and not is_word(name, UNKNOWN_WORDS)
    return is_text and bool(texts) and all(_DIGIT_PATTERN.search(text) for text in texts)
