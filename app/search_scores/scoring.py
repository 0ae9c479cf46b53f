"""SQL of the score: the points that the terms of a search text add for a patient.

Each similar word of a term has its points, and the words of a patient are looked up among all of them. Comparing every
patient with hundreds of similar words took seven times as long.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import (
    ARRAY,
    CTE,
    Column,
    ColumnElement,
    FromClause,
    Integer,
    Select,
    Table,
    Text,
    and_,
    bindparam,
    case,
    cast,
    collate,
    func,
    literal_column,
    or_,
    select,
    union_all,
)
from sqlalchemy.dialects.postgresql import TSQUERY
from sqlalchemy.dialects.postgresql import array as pg_array
from sqlalchemy.sql.selectable import LateralFromClause, TableValuedAlias
from sqlalchemy.types import TypeEngine

from app.db.base import ID_TEXT
from app.models import Doctor, Hospital, Profile, patient_doctors, patient_hospitals
from app.search_scores.conditions import (
    DETAIL_COLUMNS,
    PATIENT_COLUMNS,
    PLACE_COLUMNS,
    alternatives,
    is_within_edits,
    matches_words,
    terms_relation,
)
from app.search_scores.terms import SearchTerm
from app.search_scores.weights import WEIGHTS
from app.statements.hospital_scope import is_in_scope
from app.vocabulary.expansion import MatchKind

_MATCH_WEIGHTS = {
    MatchKind.EXACT: WEIGHTS["same word"],
    MatchKind.SPELLING: WEIGHTS["same spelling"],
    MatchKind.SHORT_FORM: WEIGHTS["short form"],
    MatchKind.ONE_EDIT: WEIGHTS["one error"],
    MatchKind.SOUND: WEIGHTS["sounds alike"],
    MatchKind.PREFIX: WEIGHTS["beginning"],
    MatchKind.SHORT_WORD_EDIT: WEIGHTS["one error in two or three letters"],
    MatchKind.TWO_EDITS: WEIGHTS["two errors"],
    MatchKind.SUBSTRING: WEIGHTS["middle of a word"],
}
"""The points for each match kind."""
MIN_TWO_EDITS_LETTERS = 10
"""Minimum number of letters in a place that is recognized with two errors."""
_BLANK: ColumnElement[str] = literal_column("' '")


class Directory(NamedTuple):
    """Records with names to which patients are linked."""

    weight: str
    """The name of the weight of a name or id that is typed."""
    target: Table
    search: Column[Any]
    """The words of the names."""
    link: Column[Any]
    """The foreign key in the table of the links."""


HOSPITALS = Directory(
    "hospital", Hospital.__table__, Hospital.__table__.c.hospital_search, patient_hospitals.c.hospital_id
)
DOCTORS = Directory("doctor", Doctor.__table__, Doctor.__table__.c.doctor_search, patient_doctors.c.doctor_id)


class Context(NamedTuple):
    """What a term is compared with, in addition to the names and the details of a patient."""

    texts: Sequence[tuple[str, ColumnElement[str]]]
    """The name of a weight, and the SQL expression for blank-separated words of a patient."""
    directories: Sequence[Directory]
    restricted: bool
    """Whether only links to hospitals of the principal count."""


def score_parameters(terms: Sequence[SearchTerm], factors: Sequence[int]) -> dict[str, Any]:
    """Return the values of the bind parameters of `term_points`, given the factor of each term in percent."""
    numbered = list(enumerate(zip(terms, factors, strict=True)))
    words = [(index, term.expanded, factor) for index, (term, factor) in numbered if term.expanded is not None]
    similar = [
        # one text, because the driver checks the type of each value of an array, which takes microseconds
        (index, " ".join(found), 10 * factor * _MATCH_WEIGHTS[match_kind])
        for index, expanded, factor in words
        for match_kind, found in expanded.words.items()
    ]
    patterns = [
        (index, pattern, 10 * factor * _MATCH_WEIGHTS[match_kind])
        for index, expanded, factor in words
        for match_kind, pattern in expanded.patterns.items()
    ]
    typed = [
        (index, term.values[name], f"'{term.values[name]}'", 10 * factor)
        for index, (term, factor) in numbered
        for name in ("word", "digits")
        if name in term.values
    ]
    places = [
        (index, place, 0, 10 * factor * WEIGHTS["address"])
        for index, (term, factor) in numbered
        for place in term.values.get("places", ())
    ] + [
        (
            index,
            phrase,
            2 if len(phrase) >= MIN_TWO_EDITS_LETTERS else 1,
            10 * factor * WEIGHTS["misspelled or abbreviated place"],
        )
        for index, (term, factor) in numbered
        for phrase in term.phrases
    ]
    keys = [(index, key, 10 * factor) for index, (term, factor) in numbered for key in term.identifiers]
    details = [
        {"index": index, "factor": factor, **found}
        for index, (term, factor) in numbered
        if (found := {name: value for name, value in term.values.items() if name in DETAIL_COLUMNS})
    ]
    return {
        **_columns("similar", ("indexes", "texts", "points"), similar),
        **_columns("pattern", ("indexes", "queries", "points"), patterns),
        **_columns("typed", ("indexes", "words", "queries", "factors"), typed),
        **_columns("key", ("indexes", "ids", "factors"), keys),
        **_columns("place", ("indexes", "texts", "edits", "points"), places),
        "terms": details,
    }


def _columns(prefix: str, names: Sequence[str], rows: Sequence[Sequence[Any]]) -> dict[str, Any]:
    return {f"{prefix}_{name}": [row[index] for row in rows] for index, name in enumerate(names)}


def unnested(prefix: str, **columns: TypeEngine[Any]) -> CTE:
    """Return the relation with these columns, each from the bind parameter of the name `{prefix}_{column}`.

    Tsqueries are passed as text, and parsed only once: it could otherwise happen for each patient.
    """
    arrays = (
        bindparam(f"{prefix}_{name}", type_=ARRAY(Text() if isinstance(type_, TSQUERY) else type_))
        for name, type_ in columns.items()
    )
    texts = func.unnest(*arrays).table_valued(*columns, name=f"{prefix}_texts").render_derived()
    values = (cast(texts.c[name], type_).label(name) for name, type_ in columns.items())
    return select(*values).cte("_".join([prefix, *columns])).prefix_with("MATERIALIZED")


_OF_KIND = unnested("similar", indexes=Integer(), texts=Text(), points=Integer())
_SIMILAR_WORDS = func.unnest(func.string_to_array(_OF_KIND.c.texts, _BLANK), type_=Text()).label("words")
_SIMILAR = select(_OF_KIND.c.indexes, _SIMILAR_WORDS, _OF_KIND.c.points).cte("similar").prefix_with("MATERIALIZED")
_PATTERNS = unnested("pattern", indexes=Integer(), queries=TSQUERY(), points=Integer())
_TYPED = unnested("typed", indexes=Integer(), words=Text(), queries=TSQUERY(), factors=Integer())
_PLACES_AS_TYPED = unnested("place", indexes=Integer(), texts=Text(), edits=Integer(), points=Integer())
_PLACES = (
    select(
        *(column for column in _PLACES_AS_TYPED.c if column.name != "texts"),
        func.fold(_PLACES_AS_TYPED.c.texts).label("place"),
    )
    .cte("places")
    .prefix_with("MATERIALIZED")
)
_KEYS = unnested("key", indexes=Integer(), ids=ID_TEXT, factors=Integer())


def term_points(agreements: Sequence[Select[Any]]) -> LateralFromClause:
    """Return the relation with a patient's `total` of all points, in thousandths, and arrays by term.

    The arrays `indexes` and `points` have the index and the points of each term. A term with which the patient does not
    agree may be missing, and the arrays are null if all are.
    """
    each = union_all(*agreements).subquery("agreement")
    points = func.max(each.c.points, type_=Integer).label("points")
    best = select(each.c.indexes, points).group_by(each.c.indexes).subquery("of_term")
    total = func.coalesce(func.sum(best.c.points), literal_column("0"), type_=Integer)
    arrays = (func.array_agg(column, type_=ARRAY(Integer)).label(column.name) for column in best.c)
    return select(total.label("total"), *arrays).lateral("of_terms")


def own_agreements() -> list[Select[Any]]:
    """Return the statements that select how the names and details of a patient agree: index of the term, and points."""
    return [_similar_words(), _patterns(), _details()]


def context_agreements(context: Context) -> list[Select[Any]]:
    """Return the statements that select how the context of a patient agrees: index of the term, and points."""
    links = (_links(directory, restricted=context.restricted) for directory in context.directories)
    return [_context_words(context.texts), *links]


def known_agreements(scored: FromClause) -> Select[Any]:
    """Return the statement that selects the index and the points of each term in a row that `term_points` has found."""
    arrays = func.unnest(scored.c.indexes, scored.c.points)
    known = arrays.table_valued("indexes", "points", name="known").render_derived()
    return select(*known.c)


def _similar_words() -> Select[Any]:
    words = func.array_to_string(func.tsvector_to_array(PATIENT_COLUMNS.patient_search), _BLANK)
    own = _words_of(words, "own")
    return select(_SIMILAR.c.indexes, _SIMILAR.c.points).select_from(own.join(_SIMILAR, _SIMILAR.c.words == own.c.word))


def _words_of(text: ColumnElement[str], name: str) -> TableValuedAlias:
    """Return the relation of the words of a text.

    PostgreSQL expects that a text has a thousand words. It therefore hashes what these are compared with, once for all
    patients, and not the words of each patient.
    """
    return func.string_to_table(text, _BLANK).table_valued("word", name=name).render_derived()


def _patterns() -> Select[Any]:
    matching = select(_PATTERNS.c.indexes, _PATTERNS.c.points).where(matches_words(_PATTERNS.c.queries))
    return matching.correlate_except(_PATTERNS)


def _details() -> Select[Any]:
    """Return the points of what is compared without words.

    They are negative if a term is only a date or only a number, and the patient has a different one.
    """
    terms = terms_relation()

    def values(name: str) -> ColumnElement[Any]:
        return terms.c[name]

    outcomes = [(each.condition, each.weight) for each in alternatives(values)]
    for name, other, stored, weight in (
        ("near_days", "digits", PATIENT_COLUMNS.patient_date_of_birth, "another date of birth"),
        ("similar_numbers", "days", PATIENT_COLUMNS.patient_mobile_digits, "another mobile number"),
    ):
        is_different = and_(values(name).is_not(None), values(other).is_(None), stored.is_not(None))
        outcomes.append((is_different, WEIGHTS[weight]))
    tiers = ((condition, literal_column(str(10 * weight), Integer)) for condition, weight in outcomes)
    points = case(*tiers, else_=literal_column("0", Integer)) * terms.c.factor
    return select(terms.c.index, points).correlate_except(terms)


def _context_words(context: Sequence[tuple[str, ColumnElement[str]]]) -> Select[Any]:
    texts = pg_array([words for _, words in context])
    weights = pg_array([literal_column(str(WEIGHTS[weight]), Integer) for weight, _ in context])
    source = func.unnest(texts, weights).table_valued("words", "weight", name="source").render_derived()
    own = _words_of(source.c.words, "own_context")
    points = cast(source.c.weight, Integer) * _TYPED.c.factors
    joined = source.join(own, literal_column("true")).join(_TYPED, _TYPED.c.words == own.c.word)
    return select(_TYPED.c.indexes, points).select_from(joined)


def near_places(patients: FromClause) -> CTE:
    """Return the relation of the places of patients that are typed, also with an error or abbreviated.

    Its columns are the `indexes` and the `points` of the terms, and the `town` and the `province`. Each place is
    compared only once, however many patients live there.
    """
    each = select(patients.c.town, patients.c.province).distinct().subquery("place")
    town, place, edits = each.c.town, _PLACES.c.place, _PLACES.c.edits
    none: ColumnElement[str] = literal_column("''")
    has_same_letters = and_(
        edits > literal_column("0"),
        func.char_length(town) == func.char_length(place),
        func.translate(town, place, none) == none,
        func.translate(place, town, none) == none,
    )
    has_swapped_letters = and_(has_same_letters, is_within_edits(town, place, literal_column("2")))
    is_alike = or_(is_within_edits(town, place, edits), has_swapped_letters, each.c.province == place)
    found = select(_PLACES.c.indexes, _PLACES.c.points, *each.c).select_from(_PLACES.join(each, is_alike))
    return found.cte("near_places").prefix_with("MATERIALIZED")


def place_agreements(near: FromClause, patients: FromClause) -> Select[Any]:
    """Return the statement that selects how the place of a patient agrees: index of the term, and points."""
    is_there = and_(near.c.town == patients.c.town, near.c.province == patients.c.province)
    return select(near.c.indexes, near.c.points).where(is_there).correlate_except(near)


@cache
def _matching_records(directory: Directory) -> CTE:
    """Return the relation of the hospitals or doctors that are typed.

    They are found once, because reading the names of all hospitals and doctors of a patient takes longer than the rest
    of its score.
    """
    unique_id = directory.target.c.unique_id
    weight = literal_column(str(WEIGHTS[directory.weight]), Integer)
    by_name = select(_TYPED.c.indexes, unique_id, (_TYPED.c.factors * weight).label("points")).join(
        directory.target, directory.search.bool_op("@@")(_TYPED.c.queries)
    )
    by_id = select(_KEYS.c.indexes, unique_id, (_KEYS.c.factors * weight).label("points")).join(
        directory.target, unique_id == _KEYS.c.ids
    )
    return union_all(by_name, by_id).cte(f"matching_{directory.target.name}").prefix_with("MATERIALIZED")


def _links(directory: Directory, *, restricted: bool) -> Select[Any]:
    matching, link = _matching_records(directory), directory.link.table
    scope = [is_in_scope(directory.link)] if restricted and directory is HOSPITALS else []
    joined = select(matching.c.indexes, matching.c.points).join(link, directory.link == matching.c.unique_id)
    linked = joined.where(link.c.patient_id == PATIENT_COLUMNS.unique_id, *scope)
    return linked.correlate_except(matching, link)


def address_words() -> ColumnElement[str]:
    """Return the SQL expression for the words of a patient's address, folded."""
    names = (*PLACE_COLUMNS, "patient_province_folded", "patient_country_folded")
    lines = (PATIENT_COLUMNS.patient_physical_address, PATIENT_COLUMNS.patient_address_line_1)
    return _blank_separated(*(PATIENT_COLUMNS[name] for name in names), *map(func.fold, lines))


def profile_words() -> ColumnElement[str]:
    """Return the SQL expression for the names in a patient's profile, folded."""
    profile = Profile.__table__.c
    names = select(_blank_separated(profile.first_name_folded, profile.last_name_folded))
    own = names.where(profile.unique_id == PATIENT_COLUMNS.profile_id)
    return own.correlate_except(Profile.__table__).scalar_subquery()


def _blank_separated(*parts: ColumnElement[str]) -> ColumnElement[str]:
    return func.replace(collate(func.concat_ws(_BLANK, *parts), "C"), literal_column("'-'"), _BLANK)
