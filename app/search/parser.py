"""What was typed into the search box: words of names, dates of birth, telephone numbers, e-mail addresses, ids."""

import re
import unicodedata
from datetime import date
from typing import NamedTuple

from app.fields.phones import ascii_digits, number_prefixes
from app.identifiers import IDENTIFIER_PATTERN

MAX_SEARCH_CHARACTERS = 200
MAX_TERMS_PER_KIND = 8
"""Of each kind."""

_EMAIL_PATTERN = re.compile(r"""[^\s<>()"',;:]+@[^\s<>()"',;]*""")
_DATE_PATTERNS = (
    re.compile(r"(?<![\w.+-])(?P<year>\d{4})([-/.])(?P<month>\d{1,2})\2(?P<day>\d{1,2})(?![\w+-])"),
    re.compile(r"(?<![\w.+-])(?P<day>\d{1,2})([-/.])(?P<month>\d{1,2})\2(?P<year>\d{4})(?![\w+-])"),
)
"""ISO 8601's order, and day first."""
_NUMBER_PATTERN = re.compile(r"(?<![\w@-])\+?\(?\d(?:[\d ().+/-]*\d)?(?![\w@])")
_APOSTROPHE_PATTERN = re.compile("['’‘`ʼ´]")  # noqa: RUF001  # these are what is meant
_IDENTIFIER_PATTERN = re.compile(rf"(?=.*[A-Za-z])(?=.*[^A-Za-z]){IDENTIFIER_PATTERN}")
"""What may be a `unique_id` and is no number, date or name of one word."""


class NumberTerm(NamedTuple):
    """A telephone number, or the beginning of one; people use numbers as ids, too."""

    text: str
    digit_prefixes: tuple[str, ...]
    """With which its spellings begin."""


class ParsedQuery(NamedTuple):
    """What all has to hold of a patient."""

    words: tuple[str, ...] = ()
    """Of names: each has to be one of the patient's, or nearly."""
    birth_dates: tuple[date | None, ...] = ()
    """Days; None for one that the calendar does not have."""
    numbers: tuple[NumberTerm, ...] = ()
    emails: tuple[str, ...] = ()
    """E-mail addresses, or their beginnings."""
    identifiers: tuple[str, ...] = ()

    @property
    def largest_kind_size(self) -> int:
        """How much there is of what there is most."""
        return max(len(kind) for kind in self)

    @property
    def matches_nothing(self) -> bool:
        """Whether nobody is found: nothing usable was typed, or a day that never was."""
        return self.largest_kind_size == 0 or None in self.birth_dates


def parse_search(text: str, region: str | None = None) -> list[ParsedQuery]:
    """The readings of what was typed, in any order; none where it is blank.

    The first in which somebody is found counts: what looks like an id may be something else. Numbers without a
    country's code are of `region`; without one, they have no other spellings.
    """
    text = _normalize(text)
    tokens = text.split()
    identifiers = tuple(dict.fromkeys(token for token in tokens if _IDENTIFIER_PATTERN.fullmatch(token)))
    rest = " ".join(token for token in tokens if token not in identifiers)
    readings = [_parse_terms(rest, region)._replace(identifiers=identifiers)] if identifiers else []
    return [*readings, _parse_terms(text, region)] if tokens else []


def _parse_terms(text: str, region: str | None) -> ParsedQuery:
    emails, text = _extract(_EMAIL_PATTERN, text.replace("mailto:", " "))
    birth_dates: list[date | None] = []
    for pattern in _DATE_PATTERNS:
        birth_dates += [_parse_date(match) for match in pattern.finditer(text)]
        text = pattern.sub(" ", text)
    numbers, text = _extract(_NUMBER_PATTERN, text)
    return ParsedQuery(
        words=tuple(word for token in text.split() for word in _split_words(token)),
        birth_dates=tuple(dict.fromkeys(birth_dates)),
        numbers=tuple(_parse_number(number, region) for number in dict.fromkeys(numbers)),
        emails=tuple(dict.fromkeys(email.rstrip(".") for email in emails)),
    )


def _normalize(text: str) -> str:
    """The text in NFC, with ASCII digits and hyphens, and without characters that nobody sees."""
    characters = []
    for character in unicodedata.normalize("NFC", text):
        category = unicodedata.category(character)
        if character.isspace():
            characters.append(" ")
        elif category == "Pd":  # as word processors write them
            characters.append("-")
        elif character.isdecimal():
            characters.append(str(unicodedata.decimal(character)))
        elif not category.startswith("C"):
            characters.append(character)
    return "".join(characters)


def _extract(pattern: re.Pattern[str], text: str) -> tuple[list[str], str]:
    """What matches, and the rest."""
    return [match.group().strip() for match in pattern.finditer(text)], pattern.sub(" ", text)


def _parse_number(text: str, region: str | None) -> NumberTerm:
    if region is None:
        return NumberTerm(text, (ascii_digits(text),))
    return NumberTerm(text, tuple(number_prefixes(text, region)))


def _parse_date(match: re.Match[str]) -> date | None:
    try:
        return date(int(match["year"]), int(match["month"]), int(match["day"]))
    except ValueError:
        return None


def _split_words(token: str) -> list[str]:
    """The words of a text without blanks: separated by what is no letter, digit or mark; O'Brien is one."""
    token = _APOSTROPHE_PATTERN.sub("", token)
    return "".join(" " if unicodedata.category(character)[0] in "PSZ" else character for character in token).split()
