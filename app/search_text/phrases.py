"""Phrases in a search text that may be the name of a place."""

from collections.abc import Iterator, Sequence

from app.locality.places import PLACE_ABBREVIATIONS
from app.search_text.parser import Term

MAX_PLACE_WORDS = 4
"""Maximum number of words in the name of a town or region that is recognized."""
MIN_MISSPELLED_LETTERS, MAX_MISSPELLED_WORDS = 5, 2
"""Minimum number of letters, and maximum number of words, in the name of a place that is recognized with an error."""


def phrases_of(terms: Sequence[Term]) -> Iterator[tuple[int, str]]:
    """Yield the index of each term with its number, or with each sequence of adjacent words that contains its word.

    A word that is the abbreviation of a place stands for the place, too.
    """
    words = [term.word for term in terms]
    for start in range(len(words)):
        for end in range(start + 1, min(start + MAX_PLACE_WORDS, len(words)) + 1):
            if all(words[start:end]):
                yield from ((index, " ".join(words[start:end])) for index in range(start, end))
    for index, term in enumerate(terms):
        if place := PLACE_ABBREVIATIONS.get(term.word.lower()):
            yield index, place
        if term.digits:
            yield index, term.digits


def may_be_misspelled(phrase: str) -> bool:
    """Return whether a phrase is long enough for an error, and short enough for a place that is often misspelled."""
    return len(phrase) >= MIN_MISSPELLED_LETTERS and phrase.count(" ") < MAX_MISSPELLED_WORDS and not phrase.isdecimal()
