"""Towns in a search text that are spelled with one error.

The score compares the towns of candidates with the text, but if many patients have the typed name, most of them are not
candidates. So the towns that are spelled like a part of the text, apart from one error, are looked up, and the patients
that have both such a town and a typed name become candidates, too.
"""

from collections.abc import Collection, Iterator, Sequence
from itertools import islice
from string import ascii_lowercase

from sqlalchemy import ARRAY, Select, bindparam, func, literal_column, select

from app.db.base import FOLDED_TEXT
from app.db.connection import compiled_by_shape
from app.listing.listing import ListShape
from app.search.probes import is_value_of_patients
from app.search_scores.conditions import PATIENT_COLUMNS
from app.search_scores.terms import SearchTerm

MAX_PHRASES = 3
"""Maximum number of phrases that are looked up in a search: the longest ones."""
MAX_TOWNS = 20
"""Maximum number of towns that one search finds in this way."""
_LETTERS = f"{ascii_lowercase} "


def spellings_of_towns(terms: Sequence[SearchTerm], frequent: Collection[int]) -> list[str]:
    """Return the spellings that differ by one error from what may be a misspelled town, folded.

    `frequent` has the indexes of the terms that are frequent names, which are hardly ever words of a town. A phrase has
    no error if all of its words are in names of places or hospitals. There are about 55 spellings for each letter.
    """
    rare = {
        term.word: term.expanded.folded
        for index, term in enumerate(terms)
        if term.expanded is not None and index not in frequent
    }
    known = {term.word for term in terms if term.values.keys() & {"places", "hospitals"}}
    phrases = {
        " ".join(rare[word] for word in words)
        for term in terms
        for phrase in term.phrases
        if rare.keys() >= {*(words := phrase.split(" "))} and not known >= {*words}
    }
    longest = islice(sorted(phrases, key=lambda phrase: (-len(phrase), phrase)), MAX_PHRASES)
    return list({spelling for phrase in longest for spelling in _with_one_error(phrase)})


def _with_one_error(phrase: str) -> Iterator[str]:
    """Yield the spellings with one letter less, one more or another one, and with two adjacent letters swapped."""
    for at in range(len(phrase) + 1):
        before, after = phrase[:at], phrase[at:]
        yield from (f"{before}{letter}{after}" for letter in _LETTERS)
        if after:
            yield before + after[1:]
            yield from (f"{before}{letter}{after[1:]}" for letter in _LETTERS)
            yield before + after[1:2] + after[:1] + after[2:]


@compiled_by_shape
def towns_statement(list_shape: ListShape) -> Select[tuple[str]]:
    """Return the statement that selects which of the bind parameter `spellings` are towns of visible patients."""
    given = func.unnest(bindparam("spellings", type_=ARRAY(FOLDED_TEXT))).table_valued("town", name="given")
    spelling = given.render_derived().c.town
    is_town = is_value_of_patients(list_shape, PATIENT_COLUMNS.patient_town_folded, spelling)
    return select(spelling).where(is_town).limit(literal_column(str(MAX_TOWNS)))
