"""Full names in one column, split into title, first names and last name."""

from typing import NamedTuple

from app.locality.particles import PARTICLES
from app.locality.titles import LEADING_TITLES

SUFFIXES = frozenset(["jr", "sr", "jnr", "snr", "ii", "iii", "iv"])
"""Words that belong to the last name in front of them, in lowercase and without a dot."""


class FullName(NamedTuple):
    """The parts of a full name. A part that it does not have is ""."""

    title: str
    first_names: str
    last_name: str


def split_full_name(text: str, *, last_name_first: bool) -> FullName:
    """Split a full name in the order in which it is written.

    A comma separates the last name from the first names, which follow it in either order, with a title in front of
    them or behind them, such as `Adams, Ann Mrs`. Without a comma, the last name is one word with the particles in
    front of it, such as `van der Merwe`, and the suffixes behind it, such as `Jr`. A single word is a last name.
    """
    last_part, comma, first_part = text.partition(",")
    if comma and not all(map(_is_suffix, first_part.split())):
        title, first_words = _split_title(_title_first(first_part.split()))
        other_title, last_words = _split_title(last_part.split())
        return FullName(title or other_title, " ".join(first_words), " ".join(last_words))
    title, words = _split_title(text.replace(",", " ").split())
    first_words, last_words = _split_words(words, last_name_first=last_name_first)
    return FullName(title, " ".join(first_words), " ".join(last_words))


def _split_title(words: list[str]) -> tuple[str, list[str]]:
    """Return the titles in front of a name, and the other words. At least one word is left."""
    count = 0
    while count < len(words) - 1 and words[count].rstrip(".").casefold() in LEADING_TITLES:
        count += 1
    return " ".join(words[:count]), words[count:]


def _title_first(words: list[str]) -> list[str]:
    """Return first names with the title behind them, such as `Ann Mrs`, in front of them."""
    count = 0
    while count < len(words) - 1 and words[-count - 1].rstrip(".").casefold() in LEADING_TITLES - SUFFIXES:
        count += 1
    return words[len(words) - count :] + words[: len(words) - count]


def _split_words(words: list[str], *, last_name_first: bool) -> tuple[list[str], list[str]]:
    """Return the first names and the last name."""
    if last_name_first:
        length = 1
        while length < len(words) and (
            words[length - 1].casefold() in PARTICLES or (_is_suffix(words[length]) and length < len(words) - 1)
        ):
            length += 1
        return words[length:], words[:length]
    start = max(len(words) - 1, 0)
    while start > 1 and _is_suffix(words[start]):
        start -= 1
    while start > 1 and words[start - 1].casefold() in PARTICLES:
        start -= 1
    return words[:start], words[start:]


def _is_suffix(word: str) -> bool:
    return word.rstrip(".").casefold() in SUFFIXES
