"""SQL of a search: the patients that agree with all terms, in segments, best match first, and the score."""

from collections.abc import Sequence
from itertools import chain, islice, repeat
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Integer, and_, bindparam, case, func, literal_column, not_, or_, select
from sqlalchemy.dialects.postgresql import TSQUERY

from app.db.base import ID_TEXT
from app.listing.keyset import Segment, starts_with
from app.search.conditions import (
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
from app.search.scoring import (
    HOSPITALS,
    Context,
    address_words,
    context_agreements,
    own_agreements,
    score_parameters,
    term_points,
)
from app.search.terms import SearchTerm
from app.search.weights import WEIGHTS
from app.vocabulary.expansion import CLOSE_MATCHES

MAX_LENGTH_DIFFERENCE = 999
"""Maximum difference in the number of letters that the order takes into account.

It is less than a point of the score, which counts as 1,000 letters.
"""
_AGREEMENT_VALUES = (
    *("match_close", "gender", "places", "hospitals", "ids"),
    *("days", "first_day", "prefixes", "ending", "email"),
)
"""The values of a term with which a patient can agree exactly or closely."""


class AgreementShape(NamedTuple):
    """The part of a search that determines the SQL for the patients that agree with all terms."""

    long_names: int
    """Number of words that can only be names, and have more than two letters."""
    has_short_names: bool
    others: tuple[tuple[str, ...], ...]
    """For each of the other terms: which of `_AGREEMENT_VALUES` it has."""
    is_one_word: bool
    """Whether the search text is one word that can only be a name."""
    has_titles: bool
    restricted: bool
    """Whether the principal is restricted to certain hospitals."""

    @property
    def consists_of_names(self) -> bool:
        """Whether all terms are names, at least one is long, and there are several words.

        The index of words alone then finds the patients, and few of them.
        """
        return self.long_names > 0 and not self.others and not self.is_one_word

    def is_driven(self, index: int) -> bool:
        """Return whether an index finds few patients with another term than that at `index`.

        Conditions without an index can then be checked for each of these patients.
        """
        return self.long_names > 0 or any(
            {"days", "email", "prefixes"} & set(values) for other, values in enumerate(self.others) if other != index
        )


def bind_agreement(
    terms: Sequence[SearchTerm], titles: Sequence[str], *, restricted: bool
) -> tuple[AgreementShape, dict[str, Any]]:
    """Return the shape of a search, and the values of the bind parameters in its statements."""
    names = [term for term in terms if term.is_name]
    shaped = sorted(
        (tuple(value for value in _AGREEMENT_VALUES if term.values.get(value)), term_index)
        for term_index, term in enumerate(terms)
        if not term.is_name
    )
    parameters: dict[str, Any] = {}
    for index, (_, term_index) in enumerate(shaped):
        values = terms[term_index].values
        parameters |= {f"{name}_{index}": values.get(name) for name in TERM_COLUMNS}
        prefixes = chain(values.get("prefixes") or (), repeat(values.get("digits")))
        # padded to the same number of prefixes, so that searches for different numbers share one statement
        parameters |= {f"prefix_{index}_{n}": prefix for n, prefix in enumerate(islice(prefixes, MAX_NUMBER_PREFIXES))}
    long_names = [term for term in names if not term.is_short]
    for column in ("match_exact", "match_close"):
        parameters |= {f"{column}_of_{index}": term.values[column] for index, term in enumerate(long_names)}
        short_queries = (f"({term.values[column]})" for term in names if term.is_short)
        parameters[f"{column}_of_short"] = " & ".join(short_queries)
    if len(names) == 1:
        parameters |= {f"only_{column}": names[0].values.get(column, "") for column in MATCH_COLUMNS.values()}
    parameters["letters"] = sum(len(term.word) for term in names)
    parameters["titles"] = " | ".join(f"'{title}'" for title in titles)
    parameters |= score_parameters(terms, [term.factor for term in terms])
    shape = AgreementShape(
        len(long_names),
        len(long_names) < len(names),
        tuple(values for values, _ in shaped),
        len(names) == len(terms) == 1,
        bool(titles),
        restricted,
    )
    return shape, parameters


def _query(name: str) -> ColumnElement[str]:
    return bindparam(name, type_=TSQUERY)


def agreement_conditions(shape: AgreementShape, reach: Reach) -> list[ColumnElement[bool]]:
    """Return the conditions that a patient agrees with all terms within the reach `EXACT` or `CLOSE`.

    Each long word has a condition of its own: for one query of several words, the index would evaluate the whole query
    for every patient with one of the similar words, which takes three times as long. If the search also has longer
    words, the condition for short words is written so that PostgreSQL does not use an index for it, because half of all
    patients may match a short word.
    """
    name = "match_exact" if reach is Reach.EXACT else "match_close"
    conditions = [matches_words(_query(f"{name}_of_{index}")) for index in range(shape.long_names)]
    if shape.has_short_names:
        short_words_match = matches_words(_query(f"{name}_of_short"))
        conditions.append(short_words_match.is_(literal_column("true")) if conditions else short_words_match)
    for index, present in enumerate(shape.others):
        conditions.append(_agrees_with_other(shape, index, present, reach, name))
    return conditions


def _agrees_with_other(
    shape: AgreementShape, index: int, present: Sequence[str], reach: Reach, match_column: str
) -> ColumnElement[bool]:
    """Return the condition that a patient agrees with a term that is not only a name."""
    values = bound_values(index)
    ways: list[ColumnElement[bool]] = []
    if "match_close" in present:
        ways.append(matches_words(values(match_column)))
    if "places" in present:
        ways += is_at_place(values("places"))
    if "hospitals" in present and reach is Reach.CLOSE and shape.is_driven(index):
        ways.append(is_at_hospital(values("hospitals"), restricted=shape.restricted))
    if "prefixes" in present:
        mobile = PATIENT_COLUMNS.patient_mobile_digits
        prefixes = (bindparam(f"prefix_{index}_{number}", type_=ID_TEXT) for number in range(MAX_NUMBER_PREFIXES))
        ways += [starts_with(mobile, prefix) for prefix in prefixes]
    ways += [
        each.condition
        for each in alternatives(values)
        if each.value in present and each.value != "prefixes" and each.reach <= reach
    ]
    return or_(literal_column("false"), *ways)


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
    if not (shape.long_names or shape.others):
        return [Segment(0, exact)]  # every close match of initials is exact, and there are too many to sort
    titles = title_points() if shape.has_titles else literal_column("0", Integer)
    return [
        Segment(0, exact, length_difference() - titles),
        Segment(1, (*close, not_(and_(*exact))), -(score(shape) + titles)),
    ]
