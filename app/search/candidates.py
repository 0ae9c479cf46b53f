"""Patients that do not agree with all terms of a search text: finds candidates with indexes, and scores them.

Each branch of the statement for candidates uses an index and finds a limited number of patients: with one word, with
two words, with a date of birth that is almost right and any word, and so on. However frequent the names are, a search
therefore scores a limited number of patients.
"""

from collections.abc import Iterator, Mapping, Sequence
from math import log
from typing import Any, NamedTuple

from sqlalchemy import (
    ARRAY,
    CTE,
    ColumnElement,
    CompoundSelect,
    FromClause,
    Integer,
    Select,
    all_,
    and_,
    any_,
    bindparam,
    case,
    cast,
    func,
    literal_column,
    or_,
    select,
    true,
    union_all,
)
from sqlalchemy.dialects.postgresql import TSQUERY
from sqlalchemy.dialects.postgresql import array as pg_array

from app.db.base import FOLDED_TEXT, ID_TEXT
from app.db.connection import compiled_by_shape
from app.listing.keyset import starts_with
from app.listing.listing import ListShape
from app.models import Profile
from app.search.conditions import (
    PATIENT_COLUMNS,
    is_at_place,
    is_similar_email,
    linked_profiles,
    matches_words,
    terms_relation,
)
from app.search.ranking import length_difference, title_points
from app.search.scoring import (
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
    unnested,
)
from app.search.terms import SearchTerm
from app.search.weights import FEW_MATCHES, RARITY_PERCENT, WEIGHTS
from app.search.word_branches import WordBranches
from app.vocabulary.expansion import CLOSE_MATCHES, MatchKind

MAX_BRANCH_PATIENTS = 500
"""Maximum number of patients that one branch finds for one term."""
MAX_PAIR_PATIENTS = 250
"""Maximum number of patients with two similar words that a branch finds. There are two branches for each two words."""
MAX_SINGLE_PATIENTS = 300
"""Maximum number of patients with one word that a branch finds, and from which on a word counts as frequent."""
MAX_PATIENTS_IN_SCOPE = 1000
"""Maximum number of patients with any of the words that are found for a principal that is restricted to hospitals."""
MAX_NAME_WORDS = 3
"""Maximum number of words in a first name or in a last name of a profile that is found by its names."""
MAX_PROFILES = 100
"""Maximum number of profiles with a typed first and last name."""
MAX_PROMISING_CANDIDATES = 200
"""Maximum number of candidates whose addresses, hospitals, doctors and profiles are compared, too.

These are the best by everything else.
"""
PROFILE_BRANCH = -2
"""Number of the branch of patients by the names in their profiles. These candidates are always promising."""
_BESIDE_KINDS = CLOSE_MATCHES[: MatchKind.PREFIX]
"""Match kinds of words beside another detail, without beginnings, because thousands of patients have a short one."""
NAMES, _PLACES = "names", "places"
"""The groups of branches for words in names, and for these together with places."""
_VALUE_GROUPS = {
    "ids": {"ids"},
    "births": {"days", "near_days", "first_day"},
    "numbers": {"ending", "prefixes", "first_halves", "last_half"},
    "emails": {"email"},
}
"""The values that are not names and find candidates, in groups that searches have together."""
_ANY_WORD = bindparam("any_word", type_=TSQUERY)
_BLANK: ColumnElement[str] = literal_column("' '")


class ScoredPatient(NamedTuple):
    """A patient with its score."""

    unique_id: str
    score: int
    """In thousandths of a point."""
    points: Sequence[int]
    """The part of the score that each term adds."""


def candidate_parameters(terms: Sequence[SearchTerm], *, is_id_lookup: bool) -> dict[str, Any]:
    """Return the values of the bind parameters with which candidates are found, in addition to the terms.

    For an id lookup, which has no branches, words that are less similar count, too.
    """
    branches = WordBranches.from_terms(terms)
    words = [term.expanded for term in terms if term.expanded is not None]
    typed = [word.folded for word in words]
    kinds = MatchKind if is_id_lookup else _BESIDE_KINDS
    return {
        "single_indexes": list(branches.singles),
        "single_same": [same for same, _ in branches.singles.values()],
        "single_close": [close for _, close in branches.singles.values()],
        "alone": branches.alone,
        "pair_first": [first for first, _ in branches.pairs],
        "pair_second": [second for _, second in branches.pairs],
        "any_word": " | ".join(word.any_of(kinds) for word in words),
        "beside_words": list({similar for word in words for kind in kinds for similar in word.words.get(kind, ())}),
        "beside_patterns": " | ".join(
            pattern for word in words for kind, pattern in word.patterns.items() if kind in kinds
        ),
        "all_places": [place for term in terms for place in term.values.get("places", ())],
        "profile_names": [
            separator.join(typed[at:end])
            for separator in " -"
            for at in range(len(typed))
            for end in range(at + 1, min(at + MAX_NAME_WORDS, len(typed)) + 1)
        ],
    }


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


def candidate_groups(values: frozenset[str]) -> list[str]:
    """Return the groups of branches that find patients with one of these values, the group `NAMES` last.

    Each group has one statement. With a statement for each combination of values, half of all searches would have to
    build and compile theirs.
    """
    groups = [group for group, names in _VALUE_GROUPS.items() if not values.isdisjoint(names)]
    if "match_close" in values:
        groups += [_PLACES, NAMES] if "places" in values else [NAMES]
    return groups


@compiled_by_shape
def candidates_statement(list_shape: ListShape, group: str) -> CompoundSelect[Any]:
    """Return the statement that finds candidates among the visible patients that match the filters.

    Each row is the result of one branch: the index of the term, or -1 for a branch of several terms, and an array of
    ids.
    """
    if group == _PLACES:
        return union_all(_place_branches(list_shape))
    if group == NAMES:
        find_singles = _single_word_branches_in_scope if list_shape.restricted else _single_word_branches
        singles = find_singles(list_shape).cte("singles").prefix_with("MATERIALIZED")
        return union_all(
            select(*singles.c),
            _alone_branch(list_shape, singles),
            _pair_branches(list_shape),
            _profile_names_branch(list_shape),
        )
    names = _VALUE_GROUPS[group]
    branches = _value_branches(has_words=True)  # a search without words has the tsquery that matches nothing
    return union_all(*(_branch(list_shape, *branch) for value, branch in branches if value in names))


def _value_branches(*, has_words: bool) -> Iterator[tuple[str, tuple[FromClause, ColumnElement[bool]]]]:
    """Yield the branches of values that are not names: the value, the relation with the terms, and the condition."""
    born, mobile = PATIENT_COLUMNS.patient_date_of_birth, PATIENT_COLUMNS.patient_mobile_digits
    email, reversed_mobile = PATIENT_COLUMNS.patient_email_address_folded, func.reverse(mobile)
    terms = terms_relation()
    term = terms.c
    beside_words = matches_words(_ANY_WORD)
    yield "ids", (terms, PATIENT_COLUMNS.unique_id == any_(term.ids))
    yield "days", (terms, born == any_(term.days))
    if has_words:
        yield "near_days", (terms, and_(born == any_(term.near_days), beside_words))
        yield "first_day", (terms, and_(born.between(term.first_near_day, term.last_near_day), beside_words))
    yield "ending", (terms, starts_with(reversed_mobile, term.ending))
    for name in ("prefixes", "first_halves"):
        each = func.unnest(term[name]).table_valued("prefix", name=f"of_{name}").render_derived().lateral()
        begins = starts_with(mobile, cast(each.c.prefix, ID_TEXT))
        is_similar = begins if name == "prefixes" else and_(begins, mobile.op("LIKE")(any_(term.similar_numbers)))
        yield name, (terms.join(each, true()), is_similar)
    is_similar = mobile.op("LIKE")(any_(term.similar_numbers))
    yield "last_half", (terms, and_(starts_with(reversed_mobile, term.last_half), is_similar))
    yield "email", (terms, starts_with(email, term.local_part))
    yield "email", (terms, PATIENT_COLUMNS.profile_id == any_(linked_profiles(lambda name: term[name])))
    is_similar = is_similar_email(lambda name: term[name])
    yield "email", (terms, and_(starts_with(email, term.first_email_half), is_similar))
    yield "email", (terms, and_(starts_with(func.reverse(email), term.last_email_half), is_similar))


def _branch(list_shape: ListShape, terms: FromClause, condition: ColumnElement[bool]) -> Select[Any]:
    found = _limited_ids(list_shape, condition).lateral("found")
    return _branch_row(select(func.array_agg(found.c.unique_id)).select_from(terms.join(found, true())))


def _single_word_branches(list_shape: ListShape) -> Select[Any]:
    """Return the branches of single words. Similar words are searched only if few patients have the word itself."""
    given = unnested("single", indexes=Integer(), same=TSQUERY(), close=TSQUERY())
    same, close = (
        _limited_ids(list_shape, matches_words(given.c[name]), MAX_SINGLE_PATIENTS).correlate(given).subquery()
        for name in ("same", "close")
    )
    found = union_all(select(same), select(close)).limit(literal_column(str(MAX_SINGLE_PATIENTS)))
    ids = found.lateral("found")
    all_ids: ColumnElement[Any] = func.array_agg(ids.c.unique_id.distinct())
    return select(given.c.indexes, all_ids.label("ids")).select_from(given.join(ids, true())).group_by(given.c.indexes)


def _single_word_branches_in_scope(list_shape: ListShape) -> Select[Any]:
    """Return the branches of single words for a principal that is restricted to hospitals.

    The patients of its hospitals with any of the words are read once: few of the patients whom the index finds for a
    frequent word are visible, and finding those takes longer than to compare the words.
    """
    given = unnested("single", indexes=Integer(), close=TSQUERY())
    visible = (
        select(PATIENT_COLUMNS.unique_id, PATIENT_COLUMNS.patient_search)
        .where(matches_words(_ANY_WORD), *list_shape.conditions)
        .limit(literal_column(str(MAX_PATIENTS_IN_SCOPE)))
        .cte("in_scope")
        .prefix_with("MATERIALIZED")
    )
    found: ColumnElement[Any] = func.array_agg(visible.c.unique_id)
    is_found = visible.c.patient_search.bool_op("@@")(given.c.close)
    return (
        select(given.c.indexes, found.label("ids")).select_from(given.join(visible, is_found)).group_by(given.c.indexes)
    )


def _alone_branch(list_shape: ListShape, singles: CTE) -> Select[Any]:
    """Return the branch of the only word with all similar words, unless many patients have a close match of it."""
    most = select(func.max(func.cardinality(singles.c.ids))).scalar_subquery()
    similar = _limited_ids(list_shape, matches_words(bindparam("alone", type_=TSQUERY))).scalar_subquery()
    is_frequent = func.coalesce(most, literal_column("0")) >= literal_column(str(MAX_SINGLE_PATIENTS))
    return select(literal_column("-1"), case((is_frequent, None), else_=func.array(similar, type_=ARRAY(ID_TEXT))))


def _place_branches(list_shape: ListShape) -> Select[Any]:
    """Return the branches for patients with a word of the text in the name who live at a place in the text."""
    given = unnested("single", same=TSQUERY())
    is_there = or_(*is_at_place(bindparam("all_places", type_=ARRAY(FOLDED_TEXT))))
    found = _limited_ids(list_shape, and_(matches_words(given.c.same), is_there)).lateral("found")
    return _branch_row(select(func.array_agg(found.c.unique_id)).select_from(given.join(found, true())))


def _branch_row(ids: Select[Any]) -> Select[Any]:
    return select(literal_column("-1"), ids.scalar_subquery())


def _pair_branches(list_shape: ListShape) -> Select[Any]:
    given = unnested("pair", first=TSQUERY(), second=TSQUERY())
    both_match = and_(matches_words(given.c.first), matches_words(given.c.second))
    found = _limited_ids(list_shape, both_match, MAX_PAIR_PATIENTS).lateral("found")
    return _branch_row(select(func.array_agg(found.c.unique_id)).select_from(given.join(found, true())))


def _profile_names_branch(list_shape: ListShape) -> Select[Any]:
    """Return the branch of patients whose profile, such as a parent's account, has a typed first and last name."""
    profile = Profile.__table__.c
    names = bindparam("profile_names", type_=ARRAY(FOLDED_TEXT))
    profiles = select(profile.unique_id).where(
        profile.first_name_folded == any_(names), profile.last_name_folded == any_(names)
    )
    linked = func.array(profiles.limit(literal_column(str(MAX_PROFILES))).scalar_subquery(), type_=ARRAY(ID_TEXT))
    found = _limited_ids(list_shape, PATIENT_COLUMNS.profile_id == any_(linked))
    ids: ColumnElement[Any] = func.array(found.scalar_subquery(), type_=ARRAY(ID_TEXT))
    return select(literal_column(str(PROFILE_BRANCH)), ids)


def _limited_ids(
    list_shape: ListShape, condition: ColumnElement[bool], limit: int = MAX_BRANCH_PATIENTS
) -> Select[Any]:
    ids = select(PATIENT_COLUMNS.unique_id).where(condition, *list_shape.conditions)
    return ids.limit(literal_column(str(limit)))


@compiled_by_shape
def best_candidates_statement(list_shape: ListShape) -> Select[Any]:
    """Return the statement that selects the best candidates: `unique_id`, score, and an array of points by term.

    The candidates are the ids in the bind parameter `candidates`, separated by blanks, which `candidates_statement` has
    found in the same snapshot, so that they are visible and match the filters. If the principal can see only a few
    patients, all of them that have a similar word or another similar value are candidates. The ids in the bind
    parameter `shown` are left out.
    """
    unique_id = PATIENT_COLUMNS.unique_id
    candidates = func.string_to_array(bindparam("candidates", type_=ID_TEXT), _BLANK, type_=ARRAY(ID_TEXT))
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
    first = func.split_part(func.translate(name, literal_column("'-'"), _BLANK), _BLANK, literal_column("1"))
    vector = func.array_to_tsvector(pg_array([func.coalesce(func.nullif(first, literal_column("''")), _BLANK)]))
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
        matches_words(_ANY_WORD),
        *(
            select(literal_column("1"))
            .select_from(relation)
            .where(condition)
            .correlate(PATIENT_COLUMNS.unique_id.table)
            .exists()
            for _, (relation, condition) in _value_branches(has_words=False)
        ),
    )
