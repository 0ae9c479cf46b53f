"""Rows of a register that are no records, although they are below the header: totals, headings and footers."""

import re
from collections.abc import Sequence

from app.errors import FieldError

MIN_COLUMNS = 4
"""Minimum number of columns of a table in which a row with a single value is no record."""
_TOTAL_PATTERN = re.compile(
    r"(?:grand |sub-?|groot)?(?:totals?|totaal|totale)\b.*|(?:record |row )?counts?:?|aantal:?", re.IGNORECASE
)
"""Matches the first value in a row with totals."""
_NUMBER_PATTERN = re.compile(r"[0-9., %]{1,9}")


def other_row_error(cells: Sequence[str], header: Sequence[str]) -> FieldError | None:
    """Return why a row is no record, or None if it may be one. `header` has the names of the columns."""
    values = [value for cell in cells if (value := cell.strip())]
    if len(values) == 1 and len(cells) >= MIN_COLUMNS:
        message = "Has a value in one column only, as headings and footers have: remove the line, or give it an id"
    elif values and _TOTAL_PATTERN.fullmatch(values[0]) and all(map(_NUMBER_PATTERN.fullmatch, values[1:])):
        message = "Seems to contain totals: remove the line"
    elif [_folded(cell) for cell in cells] == [_folded(name) for name in header[: len(cells)]]:
        message = "Repeats the names of the columns: remove the line"
    else:
        return None
    return FieldError((), message, "cells")


def _folded(cell: str) -> str:
    return cell.strip().casefold()
