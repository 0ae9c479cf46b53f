"""Escapes text in CSV cells. A spreadsheet would execute a text that begins like a formula (CWE-1236).

A cell with such a text gets a leading apostrophe, which makes the spreadsheet treat it as text. The same test for
formulas decides where an apostrophe is added and where it is removed. The test ignores leading apostrophes, so that an
export followed by an import preserves any text.
"""

import re

_FORMULA_PREFIXES = frozenset("=+-@\t\r\n＝＋－＠")  # noqa: RUF001  # Excel accepts the full-width characters too
_HARMLESS_NUMBER_PATTERN = re.compile(r"[+-][0-9 ().-]*")
"""Matches numbers and telephone numbers with a sign. Such numbers cannot call a function or another program."""


def _is_formula(cell: str) -> bool:
    text = cell.lstrip("'")
    return text[:1] in _FORMULA_PREFIXES and text != "" and _HARMLESS_NUMBER_PATTERN.fullmatch(text) is None


def escape_formula(cell: str) -> str:
    """Return a text as a CSV cell. A text that begins like a formula gets a leading apostrophe."""
    return f"'{cell}" if _is_formula(cell) else cell


def unescape_formula(cell: str) -> str:
    """Return the text of a CSV cell, without the apostrophe that `escape_formula` added."""
    return cell[1:] if cell.startswith("'") and _is_formula(cell) else cell
