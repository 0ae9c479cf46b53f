"""The scores of the candidates: how well each agrees with a search text."""

from collections.abc import Mapping, Sequence
from math import log
from typing import Any, NamedTuple

from sqlalchemy import (
    ARRAY,
    CTE,
    ColumnElement,
    Integer,
    Select,
    all_,
    any_,
    bindparam,
    case,
    func,
    literal_column,
    or_,
    select,
    true,
)
from sqlalchemy.dialects.postgresql import TSQUERY
from sqlalchemy.dialects.postgresql import array as pg_array

from app.db.base import FOLDED_TEXT, ID_TEXT
from app.db.connection import compiled_by_shape
from app.listing.listing import ListShape
from app.search.candidates import ANY_WORD, BLANK, MAX_SINGLE_PATIENTS, value_branches
from app.search.ranking import length_difference, title_points
from app.search_scores.conditions import PATIENT_COLUMNS, matches_words
from app.search_scores.scoring import (
    DOCTORS,
    HOSPITALS,
    Context,
    address_words,
    context_agreements,
    known_agreements,
    near_places,
    own_agreements,
    place_agreements,
    profile_words,
    term_points,
)
from app.search_scores.terms import SearchTerm
from app.search_scores.weights import FEW_MATCHES, RARITY_PERCENT, WEIGHTS

MAX_PROMISING_CANDIDATES = 200
"""Maximum number of candidates whose addresses, hospitals, doctors and profiles are compared, too.

These are the best by everything else.
"""


class ScoredPatient(NamedTuple):
    """A patient with its score."""

    unique_id: str
    score: int
    """In thousandths of a point."""
    points: Sequence[int]
    """The part of the score that each term adds."""


def factors_by_rarity(terms: Sequence[SearchTerm], counts: Mapping[int, int]) -> list[int]:
    """Return the factors for the points of the terms, in percent, for words according to how rare they are.

    `counts` is the number of patients with a close match of a word, by the index of the term. Words that were not
    searched one by one keep their factors, as do initials.
    """
    lowest, highest = RARITY_PERCENT
    factors = []
    for index, term in enumerate(terms):
        if term.expanded is not None and not term.expanded.is_initial and index in counts:
            share = min(1, log(max(1, counts[index])) / log(MAX_SINGLE_PATIENTS))
            factors.append(round(highest - (highest - lowest) * share))
        else:
            factors.append(term.factor)
    return factors


@compiled_by_shape
def best_candidates_statement(list_shape: ListShape) -> Select[Any]:
    """Return the statement that selects the best candidates: `unique_id`, score, and an array of points by term.

    The candidates are the ids in the bind parameter `candidates`, separated by blanks, which `candidates_statement` has
    found in the same snapshot, so that they are visible and match the filters. If the principal can see only a few
    patients, all of them that have a similar word or another similar value are candidates. The ids in the bind
    parameter `shown` are left out.
    """
    unique_id = PATIENT_COLUMNS.unique_id
    candidates = func.string_to_array(bindparam("candidates", type_=ID_TEXT), BLANK, type_=ARRAY(ID_TEXT))
    conditions = [unique_id == any_(candidates)]
    if list_shape.is_id_lookup:
        conditions = [*list_shape.without_index_use([_has_similar_word_or_value()]), *list_shape.conditions]
    conditions.append(unique_id != all_(bindparam("shown", type_=ARRAY(ID_TEXT))))
    scored = _scored(conditions)
    best = _best(scored.c.unique_id, scored.c.beside_terms + scored.c.total, MAX_PROMISING_CANDIDATES)
    is_promising = or_(  # PostgreSQL hashes the ids of a subquery, unlike those of an array in a parameter
        scored.c.unique_id.in_(best),
        scored.c.unique_id.in_(select(func.unnest(bindparam("kept", type_=ARRAY(ID_TEXT))))),
    )
    promising = select(*scored.c).where(is_promising).cte("promising").prefix_with("MATERIALIZED")
    context = Context(
        [("address", address_words()), ("name in the profile", profile_words())],
        [HOSPITALS, DOCTORS],
        list_shape.restricted,
    )
    places = place_agreements(near_places(promising), promising)
    of_terms = term_points([known_agreements(promising), *context_agreements(context), places])
    score = promising.c.beside_terms + of_terms.c.total
    patients = promising.join(unique_id.table, unique_id == promising.c.unique_id).join(of_terms, true())
    return _best(promising.c.unique_id, score, FEW_MATCHES).add_columns(score, of_terms.c.points).select_from(patients)


def _scored(conditions: Sequence[ColumnElement[bool]]) -> CTE:
    """Return the relation of the candidates that meet the conditions, with their points for names and details.

    Its columns are `unique_id`, those of `term_points`, the points `beside_terms`, `town` and `province`. The points of
    the context are added to these later, because comparing a patient's names and details takes half of the time of a
    score.
    """
    of_terms = term_points(own_agreements())
    beside_terms = (title_points() + _first_name_points() - length_difference()).label("beside_terms")
    candidates = PATIENT_COLUMNS.unique_id.table.join(of_terms, true())
    place = [
        func.coalesce(PATIENT_COLUMNS[f"patient_{name}_folded"], literal_column("''")).label(name)
        for name in ("town", "province")
    ]
    rows = select(PATIENT_COLUMNS.unique_id, *of_terms.c, beside_terms, *place).select_from(candidates)
    rows = rows.where(*conditions)
    return rows.cte("scored").prefix_with("MATERIALIZED")


def _best(unique_id: ColumnElement[str], score: ColumnElement[int], limit: int) -> Select[Any]:
    """Return the statement that selects the patients with the highest scores."""
    return select(unique_id).order_by(score.desc(), unique_id).limit(literal_column(str(limit)))


def _first_name_points() -> ColumnElement[int]:
    """Return the SQL expression for the points for the first of a patient's first names, in thousandths."""
    name = PATIENT_COLUMNS.patient_first_name_folded
    first = func.split_part(func.translate(name, literal_column("'-'"), BLANK), BLANK, literal_column("1"))
    vector = func.array_to_tsvector(pg_array([func.coalesce(func.nullif(first, literal_column("''")), BLANK)]))
    is_similar = or_(
        # PostgreSQL hashes the words of a subquery
        first.in_(select(func.unnest(bindparam("beside_words", type_=ARRAY(FOLDED_TEXT))))),
        vector.bool_op("@@")(bindparam("beside_patterns", type_=TSQUERY)),
    )
    added = literal_column(str(1000 * WEIGHTS["first of the first names"]), Integer)
    return case((is_similar, added), else_=literal_column("0", Integer))


def _has_similar_word_or_value() -> ColumnElement[bool]:
    """Return the condition that a patient has a word or value similar to one searched for. It needs no index."""
    return or_(
        matches_words(ANY_WORD),
        *(
            select(literal_column("1"))
            .select_from(relation)
            .where(condition)
            .correlate(PATIENT_COLUMNS.unique_id.table)
            .exists()
            for _, (relation, condition) in value_branches(has_words=False)
        ),
    )
