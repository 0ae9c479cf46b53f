"""Cells of CSV files that a spreadsheet would run: text that begins like a formula (CWE-1236).

An apostrophe before it makes it text. It is put there and taken away by the same rule, which sees through apostrophes
that are there already: so what is exported and imported again is what it was, whatever it was.
"""

import re

_FORMULA_PREFIXES = frozenset("=+-@\t\r\n＝＋－＠")  # noqa: RUF001  # Excel takes the full-width ones too
_HARMLESS_NUMBER_PATTERN = re.compile(r"[+-][0-9 ().-]*")
"""A number or a telephone number, of which no function and no other program can be called."""


def _is_formula(cell: str) -> bool:
    text = cell.lstrip("'")
    return text[:1] in _FORMULA_PREFIXES and text != "" and _HARMLESS_NUMBER_PATTERN.fullmatch(text) is None


def escape_formula(cell: str) -> str:
    """The cell of a file for a text."""
    return f"'{cell}" if _is_formula(cell) else cell


def unescape_formula(cell: str) -> str:
    """The text of a cell."""
    return cell[1:] if cell.startswith("'") and _is_formula(cell) else cell
