"""Reading of cells: converts the text of a cell to the text that the API's field accepts."""

import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

from app.errors import FieldError
from app.fields.types import TIMESTAMP_FIELDS
from app.registers.columns import Column
from app.registers.dates import to_iso
from app.registers.formats import DATE_FIELDS
from app.registers.values import (
    NULL_WORDS,
    SPREADSHEET_ERRORS,
    UNKNOWN_WORDS,
    clean_degrees,
    clean_gender,
    clean_phone_number,
    is_word,
)
from app.table_files.errors import CellError

PHONE_FIELDS = ("patient_mobile_number",)
GENDER_FIELDS = ("patient_gender",)
DEGREES_FIELDS = ("patient_latitude", "patient_longitude")
EMAIL_FIELDS = ("patient_email_address", "patient_profile.email", "email")
LINK_FIELDS = ("hospital_ids", "doctor_ids")
UNKNOWN_WORD_FIELDS = frozenset({*DATE_FIELDS, *TIMESTAMP_FIELDS, *PHONE_FIELDS, *DEGREES_FIELDS, *EMAIL_FIELDS})
"""The fields in which a word such as `unknown` can only mean that there is no value."""
PLAIN_PATTERNS = {
    **dict.fromkeys(DATE_FIELDS, re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")),
    **dict.fromkeys(TIMESTAMP_FIELDS, re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}.*")),
    **dict.fromkeys(PHONE_FIELDS, re.compile(r"\+?[0-9 ()]+")),
    **dict.fromkeys(GENDER_FIELDS, re.compile("Male|Female|Other|Unknown")),
    **dict.fromkeys(DEGREES_FIELDS, re.compile(r"-?[0-9]+\.[0-9]+")),
    **dict.fromkeys(EMAIL_FIELDS, re.compile(r"[!-~]+@[!-~]+")),
    **dict.fromkeys(LINK_FIELDS, re.compile(r"[A-Za-z0-9][A-Za-z0-9._~:@|-]*")),
}
"""Matches texts that are taken as they are, by field. Reading them would take longer than storing them."""
EXTENSION_MESSAGE = "The extension was left out, because the field contains the number only"
ReadCell = Callable[[str], str]


class CellReader(NamedTuple):
    """How the cells of a column are read."""

    name: str
    """The field, with a dot in the name of a nested one."""
    is_plain: Callable[[str], object]
    """Returns whether a text is already as the API accepts it."""
    read: ReadCell
    """Returns the text for the API, or "" if there is no value. Raises CellError."""


def cell_readers(
    column: Column,
    order_of: Callable[[Column], str | None],
    remarks: list[FieldError],
    null_words: frozenset[str],
    *,
    link_names: bool,
) -> Iterator[CellReader]:
    """Yield a reader for each field of a column, or nothing if its cells need no reading.

    `order_of` returns the order of the dates in a column. Remarks about a cell are added to `remarks`. `null_words` are
    null words besides the usual ones. `link_names` says whether the column of a link contains names instead of ids.
    """
    if len(column.fields) != 1:
        return
    (name,) = column.fields
    words = null_words
    if name in UNKNOWN_WORD_FIELDS:
        words = words | UNKNOWN_WORDS
    elif not column.is_literal or name in GENDER_FIELDS:
        words = words | NULL_WORDS
    read = _reader_of(name, column, order_of, remarks)
    if read is _check_ids and link_names:
        read = None
    if words or read is not None:
        plain = None if null_words or (link_names and name in LINK_FIELDS) else PLAIN_PATTERNS.get(name)
        yield CellReader(name, _is_never_plain if plain is None else plain.fullmatch, partial(_read_cell, words, read))


def _reader_of(
    name: str, column: Column, order_of: Callable[[Column], str | None], remarks: list[FieldError]
) -> ReadCell | None:
    if name in DATE_FIELDS or name in TIMESTAMP_FIELDS:
        return lambda text: to_iso(text, order_of(column), with_time=name in TIMESTAMP_FIELDS)
    if name in PHONE_FIELDS:
        return partial(_read_phone_number, name, remarks)
    readers = {GENDER_FIELDS: clean_gender, DEGREES_FIELDS: clean_degrees, LINK_FIELDS: _check_ids}
    return next((read for names, read in readers.items() if name in names), None)


def _is_never_plain(_: str) -> bool:
    return False


def _read_cell(words: frozenset[str], read: ReadCell | None, text: str) -> str:
    """Return the text of a cell as `read` reads it, or "" if it is one of the null words."""
    if not text.strip() or is_word(text, words):
        return ""
    if text.startswith("#") and is_word(text, SPREADSHEET_ERRORS):
        raise CellError("spreadsheet_error", "Is the error of a formula: correct it in the spreadsheet")
    return text if read is None else read(text)


def _read_phone_number(name: str, remarks: list[FieldError], text: str) -> str:
    number, has_extension = clean_phone_number(text)
    if has_extension:
        remarks.append(FieldError((name,), EXTENSION_MESSAGE, "extension_left_out"))
    return number


def _check_ids(text: str) -> str:
    if ";" in text or "," in text:
        raise CellError("id_separator", "Must have a | between two ids, such as hos123|hos456")
    return text
