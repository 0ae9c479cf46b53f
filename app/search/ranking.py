"""SQL of a search: the patients that agree with all terms, in segments, best match first, and the score."""

from collections.abc import Sequence
from itertools import chain, islice, repeat
from typing import Any, NamedTuple

from sqlalchemy import (
    Boolean,
    ColumnElement,
    Integer,
    and_,
    bindparam,
    case,
    cast,
    func,
    literal_column,
    not_,
    or_,
    select,
)
from sqlalchemy.dialects.postgresql import TSQUERY

from app.db.base import ID_TEXT
from app.listing.keyset import Segment, starts_with
from app.search_scores.conditions import (
    MATCH_COLUMNS,
    MAX_NUMBER_PREFIXES,
    PATIENT_COLUMNS,
    TERM_COLUMNS,
    Reach,
    alternatives,
    bound_values,
    is_at_hospital,
    is_at_place,
    matches_words,
)
from app.search_scores.scoring import (
    HOSPITALS,
    Context,
    address_words,
    context_agreements,
    own_agreements,
    score_parameters,
    term_points,
)
from app.search_scores.terms import SearchTerm
from app.search_scores.weights import WEIGHTS
from app.vocabulary.expansion import CLOSE_MATCHES

MAX_LENGTH_DIFFERENCE = 999
"""Maximum difference in the number of letters that the order takes into account.

It is less than a point of the score, which counts as 1,000 letters.
"""
MAX_INDEXED_NAMES = 4
"""Maximum number of words that are searched with the index of words: the longest ones. The others are compared."""
SLOT_VALUES = {
    "word": ("match_close", "gender", "places", "hospitals", "ids", "days", "first_day"),
    "number": ("ids", "places", "days", "first_day", "prefixes", "ending"),
    "email": ("ids", "email"),
}
"""The values with which a patient can agree exactly or closely with a term that is not only a name, by its kind."""
MIN_SLOTS = {"word": 2, "number": 2, "email": 1}
"""The number of terms of each kind for which a statement has room, so that most searches share one statement."""


class AgreementShape(NamedTuple):
    """The part of a search that determines the SQL for the patients that agree with all terms.

    A statement with slots is planned for its values. PostgreSQL then leaves out the slots and values that are null.
    """

    names: int
    """Number of words that can only be names, have more than two letters, and are searched with the index."""
    slots: tuple[str, ...]
    """The terms that are not only names: their names, each a key of `SLOT_VALUES` with a number."""
    is_one_word: bool
    """Whether the search text is one word that can only be a name."""
    has_titles: bool
    """Whether the text also has titles, if it is one word. The titles of other texts are null if there are none."""
    restricted: bool
    """Whether the principal is restricted to certain hospitals."""

    @property
    def consists_of_names(self) -> bool:
        """Whether all terms are names, at least one is long, and there are several words.

        The index of words alone then finds the patients, and few of them.
        """
        return self.names > 0 and not self.slots and not self.is_one_word


def bind_agreement(
    terms: Sequence[SearchTerm], titles: Sequence[str], *, restricted: bool
) -> tuple[AgreementShape, dict[str, Any]]:
    """Return the shape of a search, and the values of the bind parameters in its statements."""
    names = [term for term in terms if term.is_name]
    of_kind = {kind: [term for term in terms if not term.is_name and _kind(term) == kind] for kind in SLOT_VALUES}
    parameters = _name_parameters(names)
    slots: tuple[str, ...] = ()
    if len(names) < len(terms):
        slots = tuple(
            f"{kind}_{number}" for kind, found in of_kind.items() for number in range(max(len(found), MIN_SLOTS[kind]))
        )
    drivers = [term for term in terms if not term.is_name and {"days", "email", "prefixes"} & term.values.keys()]
    has_long_name = any(not term.is_short for term in names)
    for slot in slots:
        kind, _, number = slot.partition("_")
        term = of_kind[kind][int(number)] if int(number) < len(of_kind[kind]) else None
        # conditions without an index can be checked only if an index finds few patients with another term
        is_driven = has_long_name or any(driver is not term for driver in drivers)
        parameters |= _slot_parameters(slot, term, is_driven=is_driven)
    if len(names) == 1:
        parameters |= {f"only_{column}": names[0].values.get(column, "") for column in MATCH_COLUMNS.values()}
    parameters["letters"] = sum(len(term.word) for term in names)
    parameters["titles"] = " | ".join(f"'{title}'" for title in titles) or None
    parameters |= score_parameters(terms, [term.factor for term in terms])
    is_one_word = len(names) == len(terms) == 1
    long_names = min(sum(not term.is_short for term in names), MAX_INDEXED_NAMES)
    shape = AgreementShape(
        MAX_INDEXED_NAMES if slots else long_names, slots, is_one_word, is_one_word and bool(titles), restricted
    )
    return shape, parameters


def _kind(term: SearchTerm) -> str:
    return "word" if term.expanded is not None else "email" if "email" in term.values else "number"


def _name_parameters(names: Sequence[SearchTerm]) -> dict[str, Any]:
    """Return the tsqueries of the words that can only be names: the longest ones, and one query for all others."""
    by_length = sorted((term for term in names if not term.is_short), key=lambda term: -len(term.word))
    indexed = by_length[:MAX_INDEXED_NAMES]
    others = [*by_length[MAX_INDEXED_NAMES:], *(term for term in names if term.is_short)]
    parameters: dict[str, Any] = {}
    for column in ("match_exact", "match_close"):
        queries = [term.values[column] for term in indexed]
        rest = " & ".join(f"({term.values[column]})" for term in others) or None
        if not queries and rest is not None:  # nothing else has an index
            queries, rest = [rest], None
        padded = islice(chain(queries, repeat(None)), MAX_INDEXED_NAMES)
        parameters |= {f"{column}_of_{index}": query for index, query in enumerate(padded)}
        parameters[f"{column}_of_others"] = rest
    return parameters


def _slot_parameters(slot: str, term: SearchTerm | None, *, is_driven: bool) -> dict[str, Any]:
    values = {} if term is None else term.values
    prefixes = chain(values.get("prefixes") or (), repeat(values.get("digits")))
    return {
        **{f"{name}_{slot}": values.get(name) for name in TERM_COLUMNS},
        **({} if is_driven else {f"hospitals_{slot}": None}),
        # padded to the same number of prefixes, so that searches for different numbers share one statement
        **{f"prefix_{slot}_{n}": prefix for n, prefix in enumerate(islice(prefixes, MAX_NUMBER_PREFIXES))},
        f"is_absent_{slot}": term is None,
    }


def _query(name: str) -> ColumnElement[str]:
    return bindparam(name, type_=TSQUERY)


def agreement_conditions(shape: AgreementShape, reach: Reach) -> list[ColumnElement[bool]]:
    """Return the conditions that a patient agrees with all terms within the reach `EXACT` or `CLOSE`.

    Each long word has a condition of its own: for one query of several words, the index would evaluate the whole query
    for every patient with one of the similar words, which takes three times as long. The condition for the other words
    is written so that PostgreSQL does not use an index for it, because half of all patients may match a short word.
    """
    name = "match_exact" if reach is Reach.EXACT else "match_close"
    queries = [_query(f"{name}_of_{index}") for index in range(shape.names or 1)]
    conditions = [matches_words(query) for query in queries]
    if shape.slots:
        conditions = [or_(cast(query, TSQUERY).is_(None), matches_words(cast(query, TSQUERY))) for query in queries]
    others = cast(_query(f"{name}_of_others"), TSQUERY)
    conditions.append(or_(others.is_(None), matches_words(others).is_(literal_column("true"))))
    return [*conditions, *(_agrees_with_slot(shape, slot, reach, name) for slot in shape.slots)]


def _agrees_with_slot(shape: AgreementShape, slot: str, reach: Reach, match_column: str) -> ColumnElement[bool]:
    """Return the condition that a patient agrees with a term that is not only a name, if there is one in the slot."""
    values = bound_values(slot)
    known = SLOT_VALUES[slot.partition("_")[0]]
    ways: list[tuple[str, ColumnElement[bool]]] = []
    if "match_close" in known:
        ways.append((match_column, matches_words(cast(values(match_column), TSQUERY))))
    if "places" in known:
        ways.append(("places", or_(*is_at_place(values("places")))))
    if "hospitals" in known and reach is Reach.CLOSE:
        ways.append(("hospitals", is_at_hospital(values("hospitals"), restricted=shape.restricted)))
    if "prefixes" in known:
        mobile = PATIENT_COLUMNS.patient_mobile_digits
        prefixes = (bindparam(f"prefix_{slot}_{number}", type_=ID_TEXT) for number in range(MAX_NUMBER_PREFIXES))
        ways.append(("prefixes", or_(*(starts_with(mobile, prefix) for prefix in prefixes))))
    ways += [
        (each.value, each.condition)
        for each in alternatives(values)
        if each.value in known and each.value != "prefixes" and each.reach <= reach
    ]
    is_absent = bindparam(f"is_absent_{slot}", type_=Boolean)
    return or_(is_absent, *(and_(_is_given(values(value)), condition) for value, condition in ways))


def _is_given(value: ColumnElement[Any]) -> ColumnElement[bool]:
    return cast(value, value.type).is_not(None)


def score(shape: AgreementShape) -> ColumnElement[int]:
    """Return the SQL expression for the score of a patient that agrees with all terms, in thousandths of a point."""
    context = Context([("address", address_words())], [HOSPITALS], shape.restricted)
    return (
        select(term_points([*own_agreements(), *context_agreements(context)]).c.total).scalar_subquery()
        - length_difference()
    )


def title_points() -> ColumnElement[int]:
    """Return the SQL expression for the points that a patient's title adds to the score, in thousandths."""
    added = literal_column(str(1000 * WEIGHTS["title"]), Integer)
    return case((matches_words(_query("titles")), added), else_=literal_column("0"))


def length_difference() -> ColumnElement[int]:
    """Return the SQL expression for the difference in length between the patient's names and the typed words.

    The difference is a number of letters, and at most `MAX_LENGTH_DIFFERENCE`.
    """
    lengths = [
        func.coalesce(func.char_length(name), 0)
        for name in (PATIENT_COLUMNS.patient_last_name, PATIENT_COLUMNS.patient_first_name)
    ]
    difference = func.abs(lengths[0] + lengths[1] - bindparam("letters", type_=Integer), type_=Integer)
    return func.least(difference, literal_column(str(MAX_LENGTH_DIFFERENCE)), type_=Integer)


def agreement_segments(shape: AgreementShape) -> list[Segment]:
    """Return the segments of the patients that agree with all terms, ordered by relevance.

    A patient is in only one segment. If only one word was typed, there is a segment for each match kind, and the
    patients in a segment are ordered by `unique_id`. Otherwise, the patients that have everything as typed come first,
    ordered by their titles and the difference in length (see `length_difference`). All others follow, ordered by the
    score.
    """
    exact, close = (agreement_conditions(shape, reach) for reach in (Reach.EXACT, Reach.CLOSE))
    if shape.is_one_word and not shape.has_titles:
        tiers = [matches_words(_query(f"only_{MATCH_COLUMNS[match_kind]}")) for match_kind in CLOSE_MATCHES]
        return [
            Segment(number, (tier, *(not_(better) for better in tiers[:number])), is_materialized=number > 0)
            for number, tier in enumerate(tiers)
        ]
    if not (shape.names or shape.slots):
        return [Segment(0, exact)]  # every close match of initials is exact, and there are too many to sort
    return [
        Segment(0, exact, length_difference() - title_points()),
        # not `not_`: what a patient lacks, such as a town, agrees neither nor disagrees, but is null
        Segment(1, (*close, and_(*exact).is_not(literal_column("true"))), -(score(shape) + title_points())),
    ]
