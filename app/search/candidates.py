"""Patients that do not agree with all terms of a search text: finds candidates with indexes.

Each branch of the statement for candidates uses an index and finds a limited number of patients: with one word, with
two words, with a date of birth that is almost right and any word, and so on. However frequent the names are, a search
therefore scores a limited number of patients.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

from sqlalchemy import (
    ARRAY,
    CTE,
    ColumnElement,
    CompoundSelect,
    FromClause,
    Integer,
    Select,
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

from app.db.base import FOLDED_TEXT, ID_TEXT
from app.db.connection import compiled_by_shape
from app.listing.keyset import starts_with
from app.listing.listing import ListShape
from app.models import Profile
from app.search.word_branches import WordBranches
from app.search_scores.conditions import (
    PATIENT_COLUMNS,
    is_at_place,
    is_similar_email,
    linked_profiles,
    matches_words,
    terms_relation,
)
from app.search_scores.scoring import (
    unnested,
)
from app.search_scores.terms import SearchTerm
from app.vocabulary.expansion import CLOSE_MATCHES, MatchKind

MAX_BRANCH_PATIENTS = 500
"""Maximum number of patients that one branch finds for one term."""
MAX_PAIR_PATIENTS = 250
"""Maximum number of patients with two similar words that a branch finds. There are two branches for each two words."""
MAX_SINGLE_PATIENTS = 300
"""Maximum number of patients with one word that a branch finds, and from which on a word counts as frequent."""
MAX_PLACE_PATIENTS = 1000
"""Maximum number of patients with any of the words at a place in the text."""
MAX_PATIENTS_IN_SCOPE = 1000
"""Maximum number of patients with any of the words that are found for a principal that is restricted to hospitals."""
MAX_NAME_WORDS = 3
"""Maximum number of words in a first name or in a last name of a profile that is found by its names."""
MAX_PROFILES = 100
"""Maximum number of profiles with a typed first and last name."""
PROFILE_BRANCH = -2
"""Number of the branch of patients by the names in their profiles. These candidates are always promising."""
_BESIDE_KINDS = CLOSE_MATCHES[: MatchKind.PREFIX]
"""Match kinds of words beside another detail, without beginnings, because thousands of patients have a short one."""
NAMES, PAIRS, PLACES = "names", "pairs", "places"
"""The groups of branches for single words in names, for several words, and for words together with places."""
_VALUE_GROUPS = {
    "ids": {"ids"},
    "births": {"days", "near_days", "first_day"},
    "numbers": {"ending", "prefixes", "first_halves", "last_half"},
    "emails": {"email"},
}
"""The values that are not names and find candidates, in groups that searches have together."""
ANY_WORD = bindparam("any_word", type_=TSQUERY)
BLANK: ColumnElement[str] = literal_column("' '")


class Candidates:
    """The patients that the branches have found so far."""

    def __init__(self) -> None:
        self.found: dict[int, list[str]] = {}
        """Ids by the index of the term that found them, or by the number of the branch."""
        self.frequent: set[int] = set()
        """Indexes of the terms that are frequent names."""
        self.kept: list[str] = []
        """Ids of candidates that are always promising."""

    @property
    def ids(self) -> set[str]:
        """The ids of all candidates.

        Of the patients with only a frequent name, all equally like the text, some are enough.
        """
        share = MAX_SINGLE_PATIENTS // max(1, len(self.frequent))
        return {
            unique_id
            for number, ids in self.found.items()
            for unique_id in (ids[:share] if number in self.frequent else ids)
        }

    def add(self, rows: Iterable[Any], keep: int = 0) -> None:
        """Add the rows of a `candidates_statement`, and keep up to `keep` of the ids."""
        for number, found_ids, is_frequent in rows:
            ids = found_ids or []
            self.found.setdefault(number, []).extend(ids)
            self.kept += ids if number == PROFILE_BRANCH else ids[:keep]
            if is_frequent:
                self.frequent.add(number)


def candidate_parameters(terms: Sequence[SearchTerm], branches: WordBranches, *, is_id_lookup: bool) -> dict[str, Any]:
    """Return the values of the bind parameters with which candidates are found, in addition to the terms.

    `branches` are those of the terms. For an id lookup, which has no branches, words that are less similar count, too.
    """
    words = [term.expanded for term in terms if term.expanded is not None]
    typed = [word.folded for word in words]
    kinds = MatchKind if is_id_lookup else _BESIDE_KINDS
    singles = branches.singles
    return {
        "single_indexes": list(singles),
        "single_same": [same for same, _ in singles.values()],
        "single_close": [close for _, close in singles.values()],
        "any_same": " | ".join(same for same, _ in singles.values()),
        "alone": branches.alone,
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


def pair_parameters(branches: WordBranches, frequent: Collection[int]) -> dict[str, Any]:
    """Return the values of the bind parameters with which `PAIRS` are found.

    `frequent` has the indexes of the terms that are frequent names.
    """
    pairs = branches.pairs(frequent)
    return {"pair_first": [first for first, _ in pairs], "pair_second": [second for _, second in pairs]}


def candidate_groups(values: frozenset[str]) -> list[str]:
    """Return the groups of branches that find patients with one of these values, the groups of names last.

    Each group has one statement. With a statement for each combination of values, half of all searches would have to
    build and compile theirs.
    """
    groups = [group for group, names in _VALUE_GROUPS.items() if not values.isdisjoint(names)]
    if "match_close" in values:
        groups += [PLACES, NAMES, PAIRS] if "places" in values else [NAMES, PAIRS]
    return groups


@compiled_by_shape
def candidates_statement(list_shape: ListShape, group: str) -> CompoundSelect[Any]:
    """Return the statement that finds candidates among the visible patients that match the filters.

    Each row is the result of one branch: the index of the term, or -1 for a branch of several terms, an array of ids,
    and whether the term is a frequent name.
    """
    if group == PLACES:
        return union_all(_place_branch(list_shape))
    if group == PAIRS:
        return union_all(_pair_branches(list_shape))
    if group == NAMES:
        find_singles = _single_word_branches_in_scope if list_shape.restricted else _single_word_branches
        singles = find_singles(list_shape).cte("singles").prefix_with("MATERIALIZED")
        return union_all(
            select(*singles.c),
            _alone_branch(list_shape, singles),
            _profile_names_branch(list_shape),
        )
    names = _VALUE_GROUPS[group]
    branches = value_branches(has_words=True)  # a search without words has the tsquery that matches nothing
    return union_all(*(_branch(list_shape, *branch) for value, branch in branches if value in names))


def value_branches(*, has_words: bool) -> Iterator[tuple[str, tuple[FromClause, ColumnElement[bool]]]]:
    """Yield the branches of values that are not names: the value, the relation with the terms, and the condition."""
    born, mobile = PATIENT_COLUMNS.patient_date_of_birth, PATIENT_COLUMNS.patient_mobile_digits
    email, reversed_mobile = PATIENT_COLUMNS.patient_email_address_folded, func.reverse(mobile)
    terms = terms_relation()
    term = terms.c
    beside_words = matches_words(ANY_WORD)
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
    return _branch_row(
        select(func.array_agg(found.c.unique_id)).select_from(terms.join(found, true())).scalar_subquery()
    )


def _single_word_branches(list_shape: ListShape) -> Select[Any]:
    """Return the branches of single words. Similar words are searched only if few patients have the word itself."""
    given = unnested("single", indexes=Integer(), same=TSQUERY(), close=TSQUERY())
    same, close = (
        _limited_ids(list_shape, matches_words(given.c[name]), MAX_SINGLE_PATIENTS).correlate(given).subquery()
        for name in ("same", "close")
    )
    found = union_all(
        select(same, literal_column("true").label("is_same")), select(close, literal_column("false"))
    ).limit(literal_column(str(MAX_SINGLE_PATIENTS)))
    ids = found.lateral("found")
    all_ids: ColumnElement[Any] = func.array_agg(ids.c.unique_id.distinct())
    columns = given.c.indexes, all_ids.label("ids"), _is_frequent(ids.c.is_same)
    return select(*columns).select_from(given.join(ids, true())).group_by(given.c.indexes)


def _single_word_branches_in_scope(list_shape: ListShape) -> Select[Any]:
    """Return the branches of single words for a principal that is restricted to hospitals.

    The patients of its hospitals with any of the words are read once: few of the patients whom the index finds for a
    frequent word are visible, and finding those takes longer than to compare the words.
    """
    given = unnested("single", indexes=Integer(), same=TSQUERY(), close=TSQUERY())
    visible = (
        select(PATIENT_COLUMNS.unique_id, PATIENT_COLUMNS.patient_search)
        .where(matches_words(ANY_WORD), *list_shape.conditions)
        .limit(literal_column(str(MAX_PATIENTS_IN_SCOPE)))
        .cte("in_scope")
        .prefix_with("MATERIALIZED")
    )
    found: ColumnElement[Any] = func.array_agg(visible.c.unique_id)
    is_same, is_found = (visible.c.patient_search.bool_op("@@")(given.c[name]) for name in ("same", "close"))
    return (
        select(given.c.indexes, found.label("ids"), _is_frequent(is_same))
        .select_from(given.join(visible, is_found))
        .group_by(given.c.indexes)
    )


def _is_frequent(is_same: ColumnElement[bool]) -> ColumnElement[bool]:
    """Return whether so many patients have the typed word itself that it is a name, and no beginning of one."""
    count = func.count(literal_column("1")).filter(is_same)
    return (count >= literal_column(str(MAX_SINGLE_PATIENTS))).label("is_frequent")


def _alone_branch(list_shape: ListShape, singles: CTE) -> Select[Any]:
    """Return the branch of the only word with all similar words, unless many patients have a close match of it."""
    most = select(func.max(func.cardinality(singles.c.ids))).scalar_subquery()
    similar = _limited_ids(list_shape, matches_words(bindparam("alone", type_=TSQUERY))).scalar_subquery()
    are_enough = func.coalesce(most, literal_column("0")) >= literal_column(str(MAX_SINGLE_PATIENTS))
    return _branch_row(case((are_enough, None), else_=func.array(similar, type_=ARRAY(ID_TEXT))))


def _place_branch(list_shape: ListShape) -> Select[Any]:
    """Return the branch for patients whose name has a typed word and whose address has a typed place."""
    is_there = or_(*is_at_place(bindparam("all_places", type_=ARRAY(FOLDED_TEXT))))
    # one query for all words, because the index would otherwise read all patients of the place for each word
    has_word = matches_words(bindparam("any_same", type_=TSQUERY))
    found = _limited_ids(list_shape, and_(has_word, is_there), MAX_PLACE_PATIENTS).scalar_subquery()
    return _branch_row(func.array(found, type_=ARRAY(ID_TEXT)))


def _branch_row(ids: ColumnElement[Any], number: int = -1) -> Select[Any]:
    return select(literal_column(str(number)), ids, literal_column("false"))


def _pair_branches(list_shape: ListShape) -> Select[Any]:
    given = unnested("pair", first=TSQUERY(), second=TSQUERY())
    both_match = and_(matches_words(given.c.first), matches_words(given.c.second))
    found = _limited_ids(list_shape, both_match, MAX_PAIR_PATIENTS).lateral("found")
    ids = select(func.array_agg(found.c.unique_id)).select_from(given.join(found, true()))
    return _branch_row(ids.scalar_subquery())


def _profile_names_branch(list_shape: ListShape) -> Select[Any]:
    """Return the branch of patients whose profile, such as a parent's account, has a typed first and last name."""
    profile = Profile.__table__.c
    names = bindparam("profile_names", type_=ARRAY(FOLDED_TEXT))
    profiles = select(profile.unique_id).where(
        profile.first_name_folded == any_(names), profile.last_name_folded == any_(names)
    )
    linked = func.array(profiles.limit(literal_column(str(MAX_PROFILES))).scalar_subquery(), type_=ARRAY(ID_TEXT))
    found = _limited_ids(list_shape, PATIENT_COLUMNS.profile_id == any_(linked))
    return _branch_row(func.array(found.scalar_subquery(), type_=ARRAY(ID_TEXT)), PROFILE_BRANCH)


def _limited_ids(
    list_shape: ListShape, condition: ColumnElement[bool], limit: int = MAX_BRANCH_PATIENTS
) -> Select[Any]:
    ids = select(PATIENT_COLUMNS.unique_id).where(condition, *list_shape.conditions)
    return ids.limit(literal_column(str(limit)))
