"""SQL conditions for a parsed search, and the segments of its result list, best match first."""

from collections.abc import Iterator, Sequence
from functools import lru_cache, reduce
from itertools import chain, repeat
from operator import add
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Date, Integer, and_, bindparam, case, func, literal_column, not_, or_
from sqlalchemy.dialects.postgresql import TSQUERY

from app.db.base import FOLDED_TEXT, ID_TEXT
from app.listing.keyset import Segment, starts_with
from app.listing.listing import MAX_CACHED_STATEMENTS
from app.models import Patient
from app.search.parser import ParsedQuery
from app.search.vocabulary import CLOSE_MATCHES, DISTANT_MATCHES, ExpandedWord, MatchKind

_PATIENT_COLUMNS = Patient.__table__.c
_SEARCH_VECTOR = _PATIENT_COLUMNS.patient_search
MAX_NUMBER_PREFIXES = 12
"""Maximum number of digit prefixes per phone number. No country's numbering plan leads to more than ten."""
MAX_LENGTH_DIFFERENCE = 999
"""Maximum difference in the number of letters that the rank takes into account.

In the rank, one step between match kinds counts as at least 1,000 letters. A name with a better match kind therefore
comes first, whatever its length.
"""


class QueryShape(NamedTuple):
    """The part of a parsed search that determines its SQL: the number of terms of each kind, without their values."""

    short_words: tuple[bool, ...] = ()
    """Whether each name word is short (`ExpandedWord.is_short`), in the order of the words."""
    birth_dates: int = 0
    emails: int = 0
    identifiers: int = 0
    numbers: int = 0


def bind_query(parsed: ParsedQuery, expanded_words: Sequence[ExpandedWord]) -> tuple[QueryShape, dict[str, Any]]:
    """Return the shape of a parsed search, and the values of the bind parameters in its statements."""
    parameters: dict[str, Any] = {}
    for index, word in enumerate(expanded_words):
        parameters |= {f"word_{index}_{match_kind:d}": query for match_kind, query in word.queries.items()}
    for reach, match_kinds in _REACH_KINDS.items():
        for prefix_only in (False, True):
            queries = [f"({word.any_of(match_kinds)})" for word in expanded_words if word.is_short is prefix_only]
            parameters[f"all_{reach}_{prefix_only:d}"] = " & ".join(queries)
    parameters["letters"] = sum(word.letter_count for word in expanded_words)
    for kind in ("birth_dates", "emails", "identifiers"):
        parameters |= {f"{kind}_{place}": value for place, value in enumerate(getattr(parsed, kind))}
    for index, number in enumerate(parsed.numbers):
        parameters[f"number_{index}"] = number.text
        # padded to the same number of prefixes, so that searches for different numbers share one statement
        prefixes = chain(number.digit_prefixes, repeat(number.text))
        parameters |= {
            f"digits_{index}_{prefix_index}": value
            for prefix_index, value in zip(range(MAX_NUMBER_PREFIXES), prefixes, strict=False)
        }
    shape = QueryShape(
        tuple(word.is_short for word in expanded_words),
        len(parsed.birth_dates),
        len(parsed.emails),
        len(parsed.identifiers),
        len(parsed.numbers),
    )
    return shape, parameters


_REACH_KINDS: dict[str, Sequence[MatchKind]] = {
    "same": CLOSE_MATCHES[:1],
    "near": CLOSE_MATCHES[1:],
    "far": (*CLOSE_MATCHES[1:], *DISTANT_MATCHES),
}
"""Match kinds by reach. A reach says how much a word in a name may differ from the typed word.

`near` and `far` do not list EXACT, because PREFIX covers it: a word begins with itself.
"""


def _matches(parameter_name: str) -> ColumnElement[bool]:
    return _SEARCH_VECTOR.bool_op("@@")(bindparam(parameter_name, type_=TSQUERY))


def _all_words_conditions(shape: QueryShape, reach: str) -> list[ColumnElement[bool]]:
    """Return the conditions that every typed word matches a word in the patient's names within the reach.

    If the search also has longer words, the condition for short words is written so that PostgreSQL does not use an
    index for it, because half of all patients may match a short word.
    """
    conditions = []
    if not all(shape.short_words):
        conditions.append(_matches(f"all_{reach}_0"))
    if any(shape.short_words):
        prefix_only_match = _matches(f"all_{reach}_1")
        conditions.append(prefix_only_match.is_(literal_column("true")) if conditions else prefix_only_match)
    return conditions


def _non_name_conditions(shape: QueryShape) -> Iterator[ColumnElement[bool]]:
    """Yield the conditions for the terms that are not names: dates of birth, e-mail addresses, ids, phone numbers."""
    for index in range(shape.birth_dates):
        yield _PATIENT_COLUMNS.patient_date_of_birth == bindparam(f"birth_dates_{index}", type_=Date)
    for index in range(shape.emails):
        email_prefix = func.fold(bindparam(f"emails_{index}", type_=FOLDED_TEXT), type_=FOLDED_TEXT)
        yield starts_with(_PATIENT_COLUMNS.patient_email_address_folded, email_prefix)
    for index in range(shape.identifiers):
        yield _PATIENT_COLUMNS.unique_id == bindparam(f"identifiers_{index}", type_=ID_TEXT)
    for index in range(shape.numbers):
        number_prefixes = [
            bindparam(f"digits_{index}_{prefix_index}", type_=ID_TEXT) for prefix_index in range(MAX_NUMBER_PREFIXES)
        ]
        mobile = _PATIENT_COLUMNS.patient_mobile_digits
        yield or_(
            *(starts_with(mobile, number_prefix) for number_prefix in number_prefixes),
            _PATIENT_COLUMNS.unique_id == bindparam(f"number_{index}", type_=ID_TEXT),
        )


def match_conditions(shape: QueryShape, reach: str) -> list[ColumnElement[bool]]:
    """Return the conditions for all patients that match the search within the reach `same`, `near` or `far`."""
    words = _all_words_conditions(shape, reach) if shape.short_words else []
    return [*words, *_non_name_conditions(shape)]


def _best_match_kind(word_index: int) -> ColumnElement[int]:
    """Return the SQL expression for the best match kind between the typed word and the words in a patient's names.

    The patient must match the word. The last kind is therefore not tested: its query is by far the longest.
    """
    *tested_kinds, last_kind = MatchKind
    tiers = [
        (_matches(f"word_{word_index}_{match_kind:d}"), literal_column(f"{match_kind:d}", Integer))
        for match_kind in tested_kinds
    ]
    return case(*tiers, else_=literal_column(f"{last_kind:d}", Integer))


def _length_difference() -> ColumnElement[int]:
    """Return the SQL expression for the difference in length between the patient's names and the typed words.

    The difference is a number of letters, and at most `MAX_LENGTH_DIFFERENCE`.
    """
    lengths = [
        func.coalesce(func.char_length(name), 0)
        for name in (_PATIENT_COLUMNS.patient_last_name, _PATIENT_COLUMNS.patient_first_name)
    ]
    difference = func.abs(lengths[0] + lengths[1] - bindparam("letters", type_=Integer), type_=Integer)
    return func.least(difference, literal_column(str(MAX_LENGTH_DIFFERENCE)), type_=Integer)


@lru_cache(MAX_CACHED_STATEMENTS)
def ranked_segments(shape: QueryShape) -> tuple[list[Segment], list[Segment]]:
    """Return the segments for close matches and the segments for distant matches, each list ordered by relevance.

    A patient is in only one segment. If one word was typed, there is a segment for each match kind, and the patients in
    a segment are ordered by `unique_id`. If several words were typed, the patients that have all words as typed come
    first, ordered by the difference in length (see `_length_difference`). All other patients follow, ordered by rank.
    The rank is the sum of the match kinds of the typed words, in thousands, plus the difference in length.
    """
    non_name_conditions = list(_non_name_conditions(shape))
    if not shape.short_words:
        return [Segment(0, non_name_conditions)], []
    if len(shape.short_words) == 1:
        tiers = [_matches(f"word_0_{match_cost:d}") for match_cost in MatchKind]
        segments = [
            Segment(
                number,
                (tier, *(not_(better_tier) for better_tier in tiers[:number]), *non_name_conditions),
                is_materialized=number > 0,
            )
            for number, tier in enumerate(tiers)
        ]
        return segments[: len(CLOSE_MATCHES)], segments[len(CLOSE_MATCHES) :]
    exact, close, distant = (_all_words_conditions(shape, reach) for reach in _REACH_KINDS)
    difference = _length_difference()
    likeness = reduce(add, (_best_match_kind(word_index) for word_index in range(len(shape.short_words))))
    rank = likeness * literal_column("1000") + difference
    remaining = Segment(2, (*distant, not_(and_(*close)), *non_name_conditions), rank)
    if all(shape.short_words):  # if all words are short, every close match is exact, and there are too many to sort
        return [Segment(0, (*exact, *non_name_conditions))], [remaining]
    return [
        Segment(0, (*exact, *non_name_conditions), difference),
        Segment(1, (*close, not_(and_(*exact)), *non_name_conditions), rank),
    ], [remaining]
