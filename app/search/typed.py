"""What was typed into the search box: words of names, dates of birth, telephone numbers, e-mail addresses, ids."""

import re
import unicodedata
from datetime import date
from typing import NamedTuple

from app.resource.identifiers import PATTERN
from app.resource.phones import beginnings, digits_of

MOST_CHARACTERS = 200
MOST_WORDS = 8
"""Of each kind."""

_EMAIL = re.compile(r"""[^\s<>()"',;:]+@[^\s<>()"',;]*""")
_DATES = (
    re.compile(r"(?<![\w.+-])(?P<year>\d{4})([-/.])(?P<month>\d{1,2})\2(?P<day>\d{1,2})(?![\w+-])"),
    re.compile(r"(?<![\w.+-])(?P<day>\d{1,2})([-/.])(?P<month>\d{1,2})\2(?P<year>\d{4})(?![\w+-])"),
)
"""ISO 8601's order, and day first."""
_NUMBER = re.compile(r"(?<![\w@-])\+?\(?\d(?:[\d ().+/-]*\d)?(?![\w@])")
_APOSTROPHES = re.compile("['’‘`ʼ´]")  # noqa: RUF001  # these are what is meant
_IDENTIFIER = re.compile(rf"(?=.*[A-Za-z])(?=.*[^A-Za-z]){PATTERN}")
"""What may be a `unique_id` and is no number, date or name of one word."""


class Number(NamedTuple):
    """A telephone number, or the beginning of one; people use numbers as ids, too."""

    written: str
    digits: tuple[str, ...]
    """With which its spellings begin."""


class Typed(NamedTuple):
    """What all has to hold of a patient."""

    words: tuple[str, ...] = ()
    """Of names: each has to be one of the patient's, or nearly."""
    births: tuple[date | None, ...] = ()
    """Days; None for one that the calendar does not have."""
    numbers: tuple[Number, ...] = ()
    emails: tuple[str, ...] = ()
    """E-mail addresses, or their beginnings."""
    identifiers: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """How much there is of what there is most."""
        return max(len(kind) for kind in self)

    @property
    def is_nobody(self) -> bool:
        """Whether nobody is found: nothing usable was typed, or a day that never was."""
        return self.size == 0 or None in self.births


def understand(text: str, region: str | None = None) -> list[Typed]:
    """The readings of what was typed, in any order; none where it is blank.

    The first in which somebody is found counts: what looks like an id may be something else. Numbers without a
    country's code are of `region`; without one, they have no other spellings.
    """
    text = _plain(text)
    tokens = text.split()
    identifiers = tuple(dict.fromkeys(token for token in tokens if _IDENTIFIER.fullmatch(token)))
    rest = " ".join(token for token in tokens if token not in identifiers)
    readings = [_understand(rest, region)._replace(identifiers=identifiers)] if identifiers else []
    return [*readings, _understand(text, region)] if tokens else []


def _understand(text: str, region: str | None) -> Typed:
    emails, text = _take(_EMAIL, text.replace("mailto:", " "))
    births: list[date | None] = []
    for pattern in _DATES:
        births += [_day(match) for match in pattern.finditer(text)]
        text = pattern.sub(" ", text)
    numbers, text = _take(_NUMBER, text)
    return Typed(
        words=tuple(word for token in text.split() for word in _words(token)),
        births=tuple(dict.fromkeys(births)),
        numbers=tuple(_number(number, region) for number in dict.fromkeys(numbers)),
        emails=tuple(dict.fromkeys(email.rstrip(".") for email in emails)),
    )


def _plain(text: str) -> str:
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


def _take(pattern: re.Pattern[str], text: str) -> tuple[list[str], str]:
    """What matches, and the rest."""
    return [match.group().strip() for match in pattern.finditer(text)], pattern.sub(" ", text)


def _number(written: str, region: str | None) -> Number:
    if region is None:
        return Number(written, (digits_of(written),))
    return Number(written, tuple(beginnings(written, region)))


def _day(match: re.Match[str]) -> date | None:
    try:
        return date(int(match["year"]), int(match["month"]), int(match["day"]))
    except ValueError:
        return None


def _words(token: str) -> list[str]:
    """The words of a text without blanks: separated by what is no letter, digit or mark; O'Brien is one."""
    token = _APOSTROPHES.sub("", token)
    return "".join(" " if unicodedata.category(character)[0] in "PSZ" else character for character in token).split()
