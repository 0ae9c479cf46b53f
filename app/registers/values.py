"""Texts in the spellings of other systems, as the API's fields accept them."""

import re
from typing import NamedTuple

from app.fields.characters import is_blank, normalize_characters
from app.table_files.errors import CellError

NULL_WORDS = frozenset({"null", "n/a", "#n/a", "-"})
"""Null words, in lowercase: texts that stand for a missing value in any field."""
UNKNOWN_WORDS = NULL_WORDS | {"unknown", "onbekend", "none", "nil", "?", "--"}
"""Null words, in lowercase, of fields in which they can have no other meaning, such as dates."""
SPREADSHEET_ERRORS = frozenset({"#value!", "#name?", "#div/0!", "#ref!", "#num!", "#null!", "#spill!", "#calc!"})
"""Texts that spreadsheets show instead of the result of a wrong formula, in lowercase. `#N/A` is a null word."""
GENDER_WORDS = {
    "Male": ("m", "male", "man", "boy", "manlik", "seun"),
    "Female": ("f", "female", "woman", "girl", "v", "vroulik", "vrou", "meisie", "dogter"),
    "Other": ("o", "other", "ander", "non-binary", "nonbinary", "intersex"),
    "Unknown": ("u", "unknown", "unk", "onbekend", "not known", "not stated"),
}
"""The words for each gender, in lowercase."""
MAX_WORD_CHARACTERS = 40
"""Maximum number of characters of a null word. Longer texts are not compared with null words."""
SPREADSHEET_HINT = "format the column as text in the spreadsheet before you enter or paste numbers"

_GENDERS = {word: gender for gender, words in GENDER_WORDS.items() for word in words}
_PLAIN_NUMBER_PATTERN = re.compile(r"\+?[0-9 ()]+")
"""Matches telephone numbers that are not changed. Most of them do."""
_FLOAT_PATTERN = re.compile(r"[+-]?[0-9]+[.,]0+")
_SCIENTIFIC_PATTERN = re.compile(r"[+-]?[0-9]+(?:[.,][0-9]+)?[Ee][+-]?[0-9]+")
_EXTENSION_PATTERN = re.compile(
    r"(?P<number>.*[0-9)]) *[,;/(]? *(?:extension|extn|ext|x|#|uitbreiding|uitbr|bylyn)[.:]? *[0-9]{1,6}\)?",
    re.IGNORECASE,
)
_DECIMAL_COMMA_PATTERN = re.compile(r"[+-]?[0-9]{1,3},[0-9]+")


class CleanNumber(NamedTuple):
    """A telephone number as the API accepts it."""

    number: str
    has_extension: bool
    """Whether an extension has been left out, which is not a part of the number."""


def clean_phone_number(text: str) -> CleanNumber:
    """Return a telephone number without invisible characters, with ASCII digits, spaces and hyphens.

    Raises:
        CellError: a spreadsheet has changed the number, so that it may lack digits.
    """
    if _PLAIN_NUMBER_PATTERN.fullmatch(text) is not None:
        return CleanNumber(text, has_extension=False)
    text = normalize_characters(text).strip()
    if _FLOAT_PATTERN.fullmatch(text) is not None:
        raise CellError("spreadsheet_number", f"Is a number with decimals, not a telephone number: {SPREADSHEET_HINT}")
    if _SCIENTIFIC_PATTERN.fullmatch(text) is not None:
        raise CellError(
            "spreadsheet_number", f"Is a number in scientific notation, which has lost digits: {SPREADSHEET_HINT}"
        )
    if text.startswith("-"):
        raise CellError("spreadsheet_number", "Must not begin with a minus sign, which telephone numbers do not have")
    match = _EXTENSION_PATTERN.fullmatch(text)
    return CleanNumber(text, has_extension=False) if match is None else CleanNumber(match["number"], has_extension=True)


def clean_gender(text: str) -> str:
    """Return the API's name of a gender, or the text itself if it is no word for a gender."""
    return _GENDERS.get(text.strip().casefold(), text)


def clean_degrees(text: str) -> str:
    """Return a latitude or longitude with a decimal point instead of a comma."""
    text = normalize_characters(text.replace("\N{MINUS SIGN}", "-")).strip()
    return text.replace(",", ".") if _DECIMAL_COMMA_PATTERN.fullmatch(text) else text


def is_word(text: str, words: frozenset[str]) -> bool:
    """Return whether a text is blank or one of the null words `words`. Case and surrounding blanks do not matter.

    Long texts are not examined.
    """
    if len(text) > MAX_WORD_CHARACTERS:
        return False
    if text.isascii():
        return text.strip().casefold() in words
    return is_blank(text) or normalize_characters(text).strip().casefold() in words
