"""SQL conditions by which a patient agrees with a term of a search text, each with its weight."""

from collections.abc import Callable, Iterator, Mapping
from enum import IntEnum
from typing import Any, NamedTuple

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Date,
    Integer,
    and_,
    any_,
    bindparam,
    case,
    column,
    exists,
    func,
    literal_column,
    select,
)
from sqlalchemy.dialects.postgresql import JSONB, TSQUERY
from sqlalchemy.sql.selectable import TableValuedAlias
from sqlalchemy.types import TypeEngine

from app.db.base import FOLDED_TEXT, ID_TEXT
from app.listing.keyset import starts_with
from app.models import Patient, Profile, patient_hospitals
from app.search_scores.weights import WEIGHTS
from app.statements.hospital_scope import is_in_scope
from app.vocabulary.expansion import MatchKind

PATIENT_COLUMNS = Patient.__table__.c
MAX_NUMBER_PREFIXES = 12
"""Maximum number of digit prefixes per phone number. No country's numbering plan leads to more than ten."""
MAX_LINKED_PROFILES = 200
"""Maximum number of profiles with an e-mail address whose patients are found."""
PLACE_COLUMNS = ("patient_town_folded", "patient_region_folded", "patient_postal_code_folded")
"""Columns of the address by which patients are found with an index. Others have too few distinct values."""
_MAX_LEVENSHTEIN_LENGTH = 255
"""Maximum number of letters that levenshtein() accepts."""
MATCH_COLUMNS = {match_kind: f"match_{match_kind.name.lower()}" for match_kind in MatchKind}
WORD_COLUMNS: Mapping[str, TypeEngine[Any]] = {
    **dict.fromkeys(MATCH_COLUMNS.values(), TSQUERY()),  # names that match the word, by match kind
    "match_close": TSQUERY(),  # names that match the word closely in any way
    "word": FOLDED_TEXT,  # the word, unless it is very short, to compare with addresses, hospitals, doctors, profiles
    "places": ARRAY(FOLDED_TEXT),  # known towns, regions and so on that consist of the word and adjacent ones
    "hospitals": ARRAY(ID_TEXT),  # ids of the hospitals with the word in their names, or as their ids
}
DETAIL_COLUMNS: Mapping[str, TypeEngine[Any]] = {
    "gender": ID_TEXT,
    "ids": ARRAY(ID_TEXT),  # of the patients with the term as an id, or as the beginning or end of one
    "days": ARRAY(Date),
    "near_days": ARRAY(Date),  # days that are written almost like it
    "first_day": Date(),  # of the period in which the patient was born
    "last_day": Date(),
    "first_near_day": Date(),
    "last_near_day": Date(),
    "digits": ID_TEXT,
    "prefixes": ARRAY(ID_TEXT),  # of mobile numbers, in all spellings
    "ending": ID_TEXT,  # of mobile numbers, reversed
    "first_halves": ARRAY(ID_TEXT),  # of mobile numbers, in all spellings
    "last_half": ID_TEXT,  # reversed
    "similar_numbers": ARRAY(ID_TEXT),  # as LIKE patterns
    "email": FOLDED_TEXT,
    "local_part": FOLDED_TEXT,  # with the @
    "first_email_half": FOLDED_TEXT,
    "last_email_half": FOLDED_TEXT,  # reversed
}
TERM_COLUMNS = {**WORD_COLUMNS, **DETAIL_COLUMNS}
"""The values of a term, with their types. A value that a term does not have is null."""
Values = Callable[[str], ColumnElement[Any]]
"""Returns the SQL expression for a value of a term, such as a bind parameter."""


class Reach(IntEnum):
    """How far a patient agrees with a term."""

    EXACT = 0
    """The patient has what was typed."""
    CLOSE = 1
    """The patient agrees with the term, but something is spelled differently."""
    FAR = 2
    """The patient does not agree with the term, but has something similar, which counts for less."""


class Alternative(NamedTuple):
    """One way in which a patient can agree with a term."""

    value: str
    """The value of the term with which the patient agrees, a key of `TERM_COLUMNS`."""
    weight: int
    condition: ColumnElement[bool]
    reach: Reach = Reach.EXACT


def terms_relation() -> TableValuedAlias:
    """Return the relation of the terms with details, from the bind parameter `terms`, an array of JSON objects.

    Its columns are `DETAIL_COLUMNS`, the `index` of the term in the search text, from 0, and the `factor` for its
    points, in percent.
    """
    types: Mapping[str, TypeEngine[Any]] = {**DETAIL_COLUMNS, "index": Integer(), "factor": Integer()}
    columns = [column(name, type_) for name, type_ in types.items()]
    rows = func.jsonb_to_recordset(bindparam("terms", type_=JSONB)).table_valued(*columns, name="term")
    return rows.render_derived(with_types=True)


def bound_values(slot: str) -> Values:
    """Return the values of the term in a slot as bind parameters."""
    return lambda name: bindparam(f"{name}_{slot}", type_=TERM_COLUMNS[name])


def matches_words(query: ColumnElement[str]) -> ColumnElement[bool]:
    """Return the condition that the words of a patient's names match a tsquery."""
    return PATIENT_COLUMNS.patient_search.bool_op("@@")(query)


def alternatives(values: Values) -> list[Alternative]:
    """Return the ways in which a patient can agree with a term other than by its words, highest weight first."""
    found = [
        Alternative("ids", WEIGHTS["same id"], PATIENT_COLUMNS.unique_id == any_(values("ids"))),
        Alternative("gender", WEIGHTS["same gender"], PATIENT_COLUMNS.patient_gender == values("gender"), Reach.CLOSE),
        *_birth_alternatives(values),
        *_number_alternatives(values),
        *_email_alternatives(values),
    ]
    return sorted(found, key=lambda alternative: -alternative.weight)


def is_at_place(places: ColumnElement[Any]) -> list[ColumnElement[bool]]:
    """Return the conditions that a patient's town, region and so on is one of the places. Each has an index."""
    return [PATIENT_COLUMNS[name] == any_(places) for name in PLACE_COLUMNS]


def is_at_hospital(hospitals: ColumnElement[Any], *, restricted: bool) -> ColumnElement[bool]:
    """Return the condition that a patient is linked to one of the hospitals.

    For a principal that is restricted to hospitals, only links to its own hospitals count.
    """
    link = patient_hospitals.c
    scope = [is_in_scope(link.hospital_id)] if restricted else []
    is_linked = exists().where(
        link.patient_id == PATIENT_COLUMNS.unique_id, link.hospital_id == any_(hospitals), *scope
    )
    return is_linked.correlate_except(patient_hospitals)


def _birth_alternatives(values: Values) -> Iterator[Alternative]:
    born = PATIENT_COLUMNS.patient_date_of_birth
    yield Alternative("days", WEIGHTS["same date of birth"], born == any_(values("days")))
    yield Alternative(
        "near_days", WEIGHTS["date of birth with one error"], born == any_(values("near_days")), Reach.FAR
    )
    for reach, name, weight in (
        (Reach.EXACT, "day", "born in this period"),
        (Reach.FAR, "near_day", "born up to a year before or after this period"),
    ):
        is_within = born.between(values(f"first_{name}"), values(f"last_{name}"))
        yield Alternative(f"first_{name}", WEIGHTS[weight], is_within, reach)


def _number_alternatives(values: Values) -> Iterator[Alternative]:
    mobile = PATIENT_COLUMNS.patient_mobile_digits
    beginning = (
        func.unnest(values("prefixes")).table_valued(column("prefix", ID_TEXT), name="beginning").render_derived()
    )
    begins = (
        select(literal_column("1"))
        .select_from(beginning)
        .where(func.starts_with(mobile, beginning.c.prefix))
        .correlate_except(beginning)
        .exists()
    )
    has_prefixes = values("prefixes").is_not(None)  # saves most evaluations of the subquery
    yield Alternative("prefixes", WEIGHTS["same mobile number"], and_(has_prefixes, begins))
    yield Alternative(
        "ending", WEIGHTS["end of the mobile number"], starts_with(func.reverse(mobile), values("ending"))
    )
    is_similar = mobile.op("LIKE")(any_(values("similar_numbers")))
    yield Alternative("similar_numbers", WEIGHTS["mobile number with one error"], is_similar, Reach.FAR)


def _email_alternatives(values: Values) -> Iterator[Alternative]:
    email = PATIENT_COLUMNS.patient_email_address_folded
    weight = WEIGHTS["same e-mail address"]
    yield Alternative("email", weight, starts_with(email, values("email")))
    is_linked = and_(values("email").is_not(None), PATIENT_COLUMNS.profile_id == any_(linked_profiles(values)))
    yield Alternative("email", weight, is_linked, Reach.CLOSE)
    local_part = values("local_part")
    yield Alternative("local_part", WEIGHTS["same part before the @"], starts_with(email, local_part), Reach.CLOSE)
    is_similar = is_similar_email(values)
    yield Alternative("email", WEIGHTS["e-mail address with up to two errors"], is_similar, Reach.FAR)


def is_similar_email(values: Values) -> ColumnElement[bool]:
    """Return the condition that a patient's e-mail address differs by at most two letters."""
    return is_within_edits(PATIENT_COLUMNS.patient_email_address_folded, values("email"), literal_column("2"))


def is_within_edits(
    stored: ColumnElement[Any], typed: ColumnElement[Any], edits: ColumnElement[Any]
) -> ColumnElement[bool]:
    """Return the condition that two texts differ by at most this number of letters.

    The lengths are compared first, because `levenshtein()` takes much longer.
    """
    texts = [func.left(each, literal_column(str(_MAX_LEVENSHTEIN_LENGTH))) for each in (stored, typed)]
    distance: ColumnElement[int] = func.extensions.levenshtein_less_equal(*texts, edits)
    has_similar_length = func.abs(func.char_length(stored) - func.char_length(typed)) <= edits
    return case((has_similar_length, distance <= edits), else_=literal_column("false"))


def linked_profiles(values: Values) -> ColumnElement[Any]:
    """Return the SQL expression for the ids of the profiles with the e-mail address of a term, as an array."""
    profile = Profile.__table__.c
    ids = select(profile.unique_id).where(starts_with(profile.email_folded, values("email")))
    limited = ids.limit(literal_column(str(MAX_LINKED_PROFILES))).correlate_except(Profile.__table__)
    return func.array(limited.scalar_subquery(), type_=ARRAY(ID_TEXT))
