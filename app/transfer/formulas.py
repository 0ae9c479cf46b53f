"""Escaping of CSV cells that a spreadsheet would execute: text that begins like a formula (CWE-1236).

A leading apostrophe makes such a cell text. The same rule adds and removes it, and ignores apostrophes that are already
there, so that an export followed by an import preserves any text.
"""

import re

_FORMULA_PREFIXES = frozenset("=+-@\t\r\n＝＋－＠")  # noqa: RUF001  # Excel accepts the full-width characters too
_HARMLESS_NUMBER_PATTERN = re.compile(r"[+-][0-9 ().-]*")
"""Matches numbers and telephone numbers, which cannot call a function or another program."""


def _is_formula(cell: str) -> bool:
    text = cell.lstrip("'")
    return text[:1] in _FORMULA_PREFIXES and text != "" and _HARMLESS_NUMBER_PATTERN.fullmatch(text) is None


def escape_formula(cell: str) -> str:
    """Return the cell that represents a text."""
    return f"'{cell}" if _is_formula(cell) else cell


def unescape_formula(cell: str) -> str:
    """Return the text that a cell represents."""
    return cell[1:] if cell.startswith("'") and _is_formula(cell) else cell
