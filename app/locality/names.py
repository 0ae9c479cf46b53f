"""Names as they are compared: folded words without titles and placeholders, short forms, and lists of names.

The lists are fixed, so that a score reveals nothing about the names of other patients. They are composed by hand.
"""

import re
import unicodedata
from functools import lru_cache
from itertools import chain
from pathlib import Path

from app.locality.particles import PARTICLES
from app.locality.short_forms import short_forms
from app.locality.titles import TITLES

UNDECOMPOSABLE_LETTERS = dict(
    # the second half are letters of African languages
    zip("łøđðıħŧɓɖɗɛƒƙŋɲʋƴ", "loddihtbddefknnvy", strict=True),
    æ="ae",
    œ="oe",
    ß="ss",
    þ="th",
)
"""Letters of names that are no other letters with accents, and what stands for each, as the database function `fold`
has it."""
_UNDECOMPOSABLE_LETTERS = str.maketrans(UNDECOMPOSABLE_LETTERS)
_APOSTROPHE_PATTERN = re.compile("['’‘`ʼʻ´]")  # noqa: RUF001  # these characters are intended
_WORD_PATTERN = re.compile(r"[^\W_]+")

PLACEHOLDER_WORDS = frozenset(
    """
    anon anonymous baba baby boy child daughter doe female girl infant male newborn noname son test twin unidentified
    unknown unnamed usana
    """.split()  # noqa: SIM905  # one line a word would be a page
)
"""Words that stand in for a name that is unknown or not chosen yet, such as Baby Girl of Thandi. No word of such a text
is compared.
"""
PLACEHOLDER_TEXTS = frozenset(
    text.strip()
    for text in """,
    as above, desconhecido, geen, n/a, na, new born, nil, no, no address, no email, no fixed abode, no name, noemail,
    none, none given, not applicable, not available, not given, not known, not provided, not recorded, not stated, null,
    onbekend, same as above, tba, tbc, unk, unknown, unspecified, x, xx, xxx
    """.split(",")  # noqa: SIM905  # one line a text would be a page
)
"""Texts that stand in for an unknown value."""
_PUNCTUATION = " .,*?()[]_-"
"""Characters that say nothing at the ends of a placeholder, or in place of a text."""
_CHILD_OF_PATTERN = re.compile(r"\s*[bsd]\.?/o\b", re.IGNORECASE)
"""The beginning of a placeholder for the name of a child, such as `B/O Thandi`: baby, son or daughter of somebody."""
NAME_PARTICLES = PARTICLES | {"d", "e", "janse", "v", "vd"}
"""Words before the last word of a name that are left out, abbreviated, or shared by unrelated people."""


def _lines(file_name: str) -> list[list[str]]:
    """Return the words of the lines of a list, without comments."""
    lines = (Path(__file__).parent / file_name).read_text(encoding="utf-8").splitlines()
    return [line.split() for line in lines if not line.startswith("#")]


_SPELLING_GROUPS = _lines("spellings.txt")
SPELLINGS = {word: words[0] for words in _SPELLING_GROUPS for word in words}
"""Maps each spelling of a name that is written in several ways, such as Mahomed, to the first one, such as Mohammed."""
GIVEN_NAMES = frozenset(chain.from_iterable(_lines("given_names.txt")))
"""First names that are different names and not misspellings of each other, however similar they are, such as Jaden and
Jayden.
"""
_LISTED_FREQUENT_NAMES = frozenset(chain.from_iterable(_lines("frequent_names.txt")))
FREQUENT_NAMES = _LISTED_FREQUENT_NAMES.union(
    NAME_PARTICLES, *(words for words in _SPELLING_GROUPS if not _LISTED_FREQUENT_NAMES.isdisjoint(words))
)
"""Names that more than one in five hundred people have in some population, in all spellings, and the particles of
names. Two records that agree on such a name are weaker evidence.
"""
SHORT_FORMS = short_forms()
"""Maps each name to its short forms, and each short form to the names that it may stand for."""


def fold_text(text: str) -> str:
    """Return the text in lowercase without accents."""
    text = text.lower()
    if text.isascii():
        return text
    decomposed = unicodedata.normalize("NFKD", text.translate(_UNDECOMPOSABLE_LETTERS))
    return "".join(character for character in decomposed if not unicodedata.combining(character))


def words_of(text: str) -> list[str]:
    """Return the folded words of a text."""
    return _WORD_PATTERN.findall(fold_text(_APOSTROPHE_PATTERN.sub("", text)))


def known_text(text: str) -> str:
    """Return the text, or an empty text if it stands in for an unknown value."""
    return "" if text.lower().strip().strip(_PUNCTUATION) in PLACEHOLDER_TEXTS else text


@lru_cache(65_536)
def name_words(name: str) -> tuple[str, ...]:
    """Return the folded words of a name without titles. The result is empty if the name is a placeholder."""
    words = words_of(known_text(name))
    if not PLACEHOLDER_WORDS.isdisjoint(words) or _CHILD_OF_PATTERN.match(name):
        return ()
    return tuple(word for word in words if word not in TITLES)
