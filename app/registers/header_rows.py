"""Finds the row of a table that is its header. A message may show a header, but not the data of a patient."""

import re
from collections.abc import Callable, Sequence

from app.registers.values import UNKNOWN_WORDS, is_word
from app.table_files.errors import UnreadableFileError
from app.table_files.tables import Row

MIN_COLUMNS, MIN_SHARE = 3, 4
"""A row is a header if at least three columns, and at least one in four columns, indicate it."""
MAX_EXAMINED_COLUMNS = 100
"""Maximum number of columns that are examined if known names do not decide."""
SAMPLE_ROWS = 20
"""Number of rows that are compared with the first one, or searched for the header, if its names do not decide."""
_DATUM_PATTERN = re.compile(r"@|[0-9]{4}")
_DIGIT_PATTERN = re.compile(r"[0-9@]")


def is_header_row(
    names: Sequence[str],
    are_known: Sequence[bool],
    is_similar: Callable[[str], object],
    rows_below: Callable[[], Sequence[Sequence[str]]],
) -> bool:
    """Return whether a row is the header of a table.

    `are_known` says which of its cells are known names of columns. `is_similar` returns whether a cell is similar to a
    known name. `rows_below` returns some rows below, and is called only if the names do not decide.
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
            one or _is_above_numbers(name, [row[index] for row in rows if index < len(row)])
            for index, (name, one) in enumerate(zip(names, likely, strict=True))
        ]
    return _suffices(sum(likely), names)


def header_below_titles(rows: Sequence[Row], are_known: Callable[[Sequence[str]], Sequence[bool]]) -> int:
    """Return the index of the first of some rows that names columns, or 0 if none does.

    The rows above it, which have only one cell, are the title of the table. `are_known` returns which cells of a row
    are names of columns.

    Raises:
        UnreadableFileError: a row names the columns, but there are rows with several cells above it.
    """
    for index, row in enumerate(rows):
        names = [name for name in row.cells if name.strip()]
        count = sum(are_known(names))
        if len(names) > 1 and (count * 2 >= len(names) or _suffices(count, names)):
            if any(sum(bool(cell.strip()) for cell in above.cells) > 1 for above in rows[:index]):
                raise UnreadableFileError(
                    f"Line {row.line_number} seems to name the columns: remove the lines above it."
                )
            return index
    return 0


def _suffices(count: int, names: Sequence[str]) -> bool:
    return count >= max(MIN_COLUMNS, len(names) / MIN_SHARE)


def _is_above_numbers(name: str, cells: Sequence[str]) -> bool:
    """Return whether a text without digits is above cells that all have digits, such as dates."""
    texts = [cell for cell in cells if not is_word(cell, UNKNOWN_WORDS) and cell.strip()]
    is_text = bool(name) and _DIGIT_PATTERN.search(name) is None and not is_word(name, UNKNOWN_WORDS)
    return is_text and bool(texts) and all(_DIGIT_PATTERN.search(text) for text in texts)
