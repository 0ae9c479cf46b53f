"""Guards of CSV cells against spreadsheets, which would change a text or execute it.

A spreadsheet executes a text that begins like a formula (CWE-1236), and turns a text that looks like a number or a date
into one, which loses leading zeros. A cell with such a text gets a leading apostrophe, which makes the spreadsheet keep
it as text. The same tests decide where an apostrophe is added and where it is removed. They ignore leading apostrophes,
so that an export followed by an import preserves any text.
"""

import re

_FORMULA_PREFIXES = frozenset("=+-@\t\r\n＝＋－＠")  # noqa: RUF001  # Excel accepts the full-width characters too
_HARMLESS_NUMBER_PATTERN = re.compile(r"[+-][0-9 ().-]*")
"""Matches numbers and telephone numbers with a sign. Such numbers cannot call a function or another program."""
_RETYPED_PATTERN = re.compile(
    r"""
    (?:
        [-+(]?\s*[R$€£¥]?\s*[-+]?[0-9.,][0-9.,:/\s()%+-]*(?:[ED][+-]?[0-9]+)?\s*(?:[AP]M?)?   # numbers, dates and times
        | [0-9]{4}-[0-9]{2}-[0-9]{2}[T ].*                                              # timestamps
        | [0-9]{1,4}[\s./,-]*[A-Z]{3,9}[\s./,-]*[0-9]{0,4}                               # 1 Jan 1980
        | [A-Z]{3,9}[\s./,-]*[0-9]{1,4}(?:[\s./,-]+[0-9]{1,4})?                          # Jan 1, 1980
        | TRUE | FALSE
    )
    """,
    re.IGNORECASE | re.VERBOSE,
)
"""Matches texts that a spreadsheet may turn into numbers, dates, times or truth values."""
_TEXT_FORMULA_PATTERN = re.compile(r'="(?P<text>[^"]*)"')
"""Matches a formula that is only a text."""
MAX_RETYPED_CHARACTERS = 255
"""Number of characters above which a spreadsheet keeps every text."""


def _is_formula(text: str) -> bool:
    return text[:1] in _FORMULA_PREFIXES and text != "" and _HARMLESS_NUMBER_PATTERN.fullmatch(text) is None


def _is_retyped(text: str) -> bool:
    text = text.strip()
    return len(text) <= MAX_RETYPED_CHARACTERS and _RETYPED_PATTERN.fullmatch(text) is not None


def escape_cell(cell: str) -> str:
    """Return a text as a CSV cell. A text that begins like a formula gets a leading apostrophe.

    So does a text that begins with an apostrophe which `unescape_cell` would otherwise remove.
    """
    text = cell.lstrip("'")
    return f"'{cell}" if _is_formula(text) or (text != cell and _is_retyped(text)) else cell


def escape_cell_for_excel(cell: str) -> str:
    """Return a text as a CSV cell that Excel keeps as text, also if it looks like a number or a date."""
    text = cell.lstrip("'")
    return f"'{cell}" if _is_formula(text) or _is_retyped(text) else cell


def unescape_cell(cell: str) -> str:
    """Return the text of a CSV cell, without the apostrophe that `escape_cell` or `escape_cell_for_excel` added.

    Other programs write `="0821"` to keep a spreadsheet from making a number of a text.
    """
    if not cell.startswith("'"):
        match = _TEXT_FORMULA_PATTERN.fullmatch(cell)
        return cell if match is None else match["text"]
    text = cell.lstrip("'")
    return cell[1:] if _is_formula(text) or _is_retyped(text) else cell
