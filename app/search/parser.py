"""Parser of search texts. It recognises name words, dates of birth, phone numbers, e-mail addresses and ids."""

import re
import unicodedata
from datetime import date
from typing import NamedTuple

from app.fields.characters import normalize_characters
from app.fields.phones import ascii_digits, number_prefixes
from app.identifiers import IDENTIFIER_PATTERN

MAX_SEARCH_CHARACTERS = 200
MAX_TERMS_PER_KIND = 8
"""Maximum number of search terms of each kind. Name words, for example, are one kind, and phone numbers another."""

_EMAIL_PATTERN = re.compile(r"""[^\s<>()"',;:]+@[^\s<>()"',;]*""")
_DATE_PATTERNS = (
    re.compile(r"(?<![\w.+-])(?P<year>\d{4})([-/.])(?P<month>\d{1,2})\2(?P<day>\d{1,2})(?![\w+-])"),
    re.compile(r"(?<![\w.+-])(?P<day>\d{1,2})([-/.])(?P<month>\d{1,2})\2(?P<year>\d{4})(?![\w+-])"),
)
"""Patterns of dates that begin with the year, as in ISO 8601, and of dates that begin with the day."""
_NUMBER_PATTERN = re.compile(r"(?<![\w@-])\+?\(?\d(?:[\d ().+/-]*\d)?(?![\w@])")
_APOSTROPHE_PATTERN = re.compile("['’‘`ʼ´]")  # noqa: RUF001  # these characters are intended
_IDENTIFIER_PATTERN = re.compile(rf"(?=.*[A-Za-z])(?=.*[^A-Za-z]){IDENTIFIER_PATTERN}")
"""Pattern of tokens that may be a `unique_id`.

A match contains an ASCII letter and a character that is not an ASCII letter, so that it cannot be a number, a date or a
single-word name.
"""


class NumberTerm(NamedTuple):
    """A phone number, or the beginning of one, in a search text.

    It may also be a `unique_id`, because some clients use numbers as ids.
    """

    text: str
    digit_prefixes: tuple[str, ...]
    """The different ways to write `text` in digits. A stored phone number matches if it begins with one of them."""


class ParsedQuery(NamedTuple):
    """One interpretation of a search text, as terms by kind. A patient has to match all terms."""

    words: tuple[str, ...] = ()
    """Name words. Each has to match a word of the patient's names, exactly or approximately."""
    birth_dates: tuple[date | None, ...] = ()
    """Dates of birth. None stands for a date that does not exist in the calendar, such as 30 February."""
    numbers: tuple[NumberTerm, ...] = ()
    emails: tuple[str, ...] = ()
    """E-mail addresses, or the beginnings of e-mail addresses."""
    identifiers: tuple[str, ...] = ()

    @property
    def largest_kind_size(self) -> int:
        """The highest number of terms of any one kind."""
        return max(len(kind) for kind in self)

    @property
    def matches_nothing(self) -> bool:
        """Whether no patient can match, because there are no usable terms, or because a date does not exist."""
        return self.largest_kind_size == 0 or None in self.birth_dates


def parse_search(text: str, region: str | None = None) -> list[ParsedQuery]:
    """Return the alternative interpretations of a search text. The list is empty if the text is blank.

    The terms may be in any order. If a token looks like an id, the first interpretation takes it as an id and the
    second does not. Callers use the first interpretation that matches any patient. `region` is the region, such as
    `ZA`, of phone numbers without a country code. Without a `region`, a phone number matches only as it was typed.
    """
    text = normalize_characters(text)
    tokens = text.split()
    identifiers = tuple(dict.fromkeys(token for token in tokens if _IDENTIFIER_PATTERN.fullmatch(token)))
    rest = " ".join(token for token in tokens if token not in identifiers)
    readings = [_parse_terms(rest, region)._replace(identifiers=identifiers)] if identifiers else []
    return [*readings, _parse_terms(text, region)] if tokens else []


def parse_words(text: str) -> list[str]:
    """Return the words of a search text in which everything is a part of a name. Blank text has no words.

    If the text has only punctuation, return an empty word, which no name contains.
    """
    tokens = normalize_characters(text).split()
    return [word for token in tokens for word in _split_words(token)] or [""] * bool(tokens)


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


def _extract(pattern: re.Pattern[str], text: str) -> tuple[list[str], str]:
    """Return all matches of the pattern, and the text with the matches replaced by spaces."""
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
    """Return the words of a token, split at punctuation and symbols.

    Apostrophes are removed and do not split a token, so that O'Brien is one word.
    """
    token = _APOSTROPHE_PATTERN.sub("", token)
    return "".join(" " if unicodedata.category(character)[0] in "PSZ" else character for character in token).split()
