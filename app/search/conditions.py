"""SQL conditions by which a patient agrees with a term of a search text, each with its weight."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import IntEnum
from typing import Any, NamedTuple

from sqlalchemy import (
    ARRAY,
    Column,
    ColumnElement,
    Date,
    Integer,
    and_,
    any_,
    bindparam,
    case,
    collate,
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
from app.models import Doctor, Hospital, Patient, Profile, patient_doctors, patient_hospitals
from app.search.weights import WEIGHTS
from app.statements.hospital_scope import is_in_scope
from app.vocabulary.expansion import CLOSE_MATCHES, MatchKind

PATIENT_COLUMNS = Patient.__table__.c
MAX_NUMBER_PREFIXES = 12
"""Maximum number of digit prefixes per phone number. No country's numbering plan leads to more than ten."""
MAX_LINKED_PROFILES = 200
"""Maximum number of profiles with an e-mail address whose patients are found."""
PLACE_COLUMNS = ("patient_town_folded", "patient_region_folded", "patient_postal_code_folded")
"""Columns of the address by which patients are found with an index. Others have too few distinct values."""
_MAX_LEVENSHTEIN_LENGTH = 255
"""Maximum number of letters that levenshtein() accepts."""
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
_BLANK: ColumnElement[str] = literal_column("' '")
_ZERO: ColumnElement[int] = literal_column("0")

MATCH_COLUMNS = {match_kind: f"match_{match_kind.name.lower()}" for match_kind in MatchKind}
TERM_COLUMNS: Mapping[str, TypeEngine[Any]] = {
    **dict.fromkeys(MATCH_COLUMNS.values(), TSQUERY()),  # names that match the word, by match kind
    "match_close": TSQUERY(),  # names that match the word closely in any way
    "word": FOLDED_TEXT,  # the word, unless it is very short, to compare with addresses, hospitals, doctors, profiles
    "places": ARRAY(FOLDED_TEXT),  # known towns, regions and so on that consist of the word and adjacent ones
    "hospitals": ARRAY(ID_TEXT),  # ids of the hospitals with the word in their names, or as their ids
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
    "factor": Integer(),  # for the points, in percent
    "place": Integer(),  # of the term in the search text, from 0
}
"""The values of a term, with their types. A value that a term does not have is null."""
Values = Callable[[str], ColumnElement[Any]]
"""Returns the SQL expression for a value of a term, such as a bind parameter."""


Context = Sequence[tuple[str, ColumnElement[str]]]
"""The words of a record that are not in the patient's names: the name of a weight, and the SQL expression."""


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
    """Return the relation with one row for each term, from the bind parameter `terms`, an array of JSON objects."""
    columns = [column(name, type_) for name, type_ in TERM_COLUMNS.items()]
    rows = func.jsonb_to_recordset(bindparam("terms", type_=JSONB)).table_valued(*columns, name="term")
    return rows.render_derived(with_types=True)


def bound_values(index: int) -> Values:
    """Return the values of the term at `index` as bind parameters."""
    return lambda name: bindparam(f"{name}_{index}", type_=TERM_COLUMNS[name])


def matches_words(query: ColumnElement[str]) -> ColumnElement[bool]:
    """Return the condition that the words of a patient's names match a tsquery."""
    return PATIENT_COLUMNS.patient_search.bool_op("@@")(query)


def alternatives(values: Values, context: Context) -> list[Alternative]:
    """Return the ways in which a patient can agree with a term, those with the highest weight first.

    `context` are the words of the record with which terms are compared besides its names.
    """
    found = [
        *_name_alternatives(values),
        *_context_alternatives(values, context),
        *_birth_alternatives(values),
        *_number_alternatives(values),
        *_email_alternatives(values),
    ]
    return sorted(found, key=lambda alternative: -alternative.weight)


def points(values: Values, context: Context) -> ColumnElement[int]:
    """Return the SQL expression for the points that a term adds to the score of a patient, in thousandths.

    The points are negative if the term is only a date or only a number, and the patient has a different one.
    """
    outcomes = [(each.condition, each.weight) for each in alternatives(values, context)]
    for name, other, stored, weight in (
        ("near_days", "digits", PATIENT_COLUMNS.patient_date_of_birth, "another date of birth"),
        ("similar_numbers", "days", PATIENT_COLUMNS.patient_mobile_digits, "another mobile number"),
    ):
        is_different = and_(values(name).is_not(None), values(other).is_(None), stored.is_not(None))
        outcomes.append((is_different, WEIGHTS[weight]))
    tiers = ((condition, literal_column(str(10 * weight), Integer)) for condition, weight in outcomes)
    return case(*tiers, else_=literal_column("0", Integer)) * values("factor")


def _name_alternatives(values: Values) -> Iterator[Alternative]:
    yield Alternative("ids", WEIGHTS["same id"], PATIENT_COLUMNS.unique_id == any_(values("ids")))
    for match_kind, name in MATCH_COLUMNS.items():
        reach = Reach.FAR if match_kind not in CLOSE_MATCHES else Reach(min(match_kind, Reach.CLOSE))
        yield Alternative(name, _MATCH_WEIGHTS[match_kind], matches_words(values(name)), reach)


def _context_alternatives(values: Values, context: Context) -> Iterator[Alternative]:
    gender = PATIENT_COLUMNS.patient_gender == values("gender")
    yield Alternative("gender", WEIGHTS["same gender"], gender, Reach.CLOSE)
    for name in ("word", "digits"):
        part = _BLANK.concat(values(name)).concat(_BLANK)
        for weight, words in context:
            yield Alternative(name, WEIGHTS[weight], func.strpos(words, part) > _ZERO, Reach.CLOSE)


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


def address_words() -> ColumnElement[str]:
    """Return the SQL expression for the words of a patient's address, folded, with a blank before and after each."""
    return _blank_separated(*_address_parts())


def _address_parts() -> Iterator[ColumnElement[str]]:
    yield from (PATIENT_COLUMNS[name] for name in (*PLACE_COLUMNS, "patient_province_folded", "patient_country_folded"))
    yield func.fold(PATIENT_COLUMNS.patient_physical_address)
    yield func.fold(PATIENT_COLUMNS.patient_address_line_1)


def hospital_words(*, restricted: bool) -> ColumnElement[str]:
    """Return the SQL expression for the names and ids of a patient's hospitals, folded.

    For a principal that is restricted to hospitals, these are only its own hospitals.
    """
    scope = [is_in_scope(patient_hospitals.c.hospital_id)] if restricted else []
    hospital = Hospital.__table__.c
    return _linked_words(patient_hospitals.c.hospital_id, (hospital.hospital_name_folded, hospital.unique_id), scope)


def doctor_words() -> ColumnElement[str]:
    """Return the SQL expression for the names and ids of a patient's doctors, folded."""
    doctor = Doctor.__table__.c
    names = doctor.doctor_first_name_folded, doctor.doctor_last_name_folded, doctor.unique_id
    return _linked_words(patient_doctors.c.doctor_id, names, [])


def profile_words() -> ColumnElement[str]:
    """Return the SQL expression for the names in a patient's profile, folded."""
    profile = Profile.__table__.c
    names = select(_blank_separated(profile.first_name_folded, profile.last_name_folded))
    own = names.where(profile.unique_id == PATIENT_COLUMNS.profile_id)
    return own.correlate_except(Profile.__table__).scalar_subquery()


def _linked_words(
    target_key: Column[Any], words: Sequence[Column[Any]], conditions: Sequence[ColumnElement[bool]]
) -> ColumnElement[str]:
    link, target = target_key.table, words[0].table
    names = _blank_separated(func.string_agg(func.concat_ws(_BLANK, *words), _BLANK))
    linked = select(names).where(
        link.c.patient_id == PATIENT_COLUMNS.unique_id, target.c.unique_id == target_key, *conditions
    )
    return linked.correlate_except(link, target).scalar_subquery()


def _blank_separated(*parts: ColumnElement[str]) -> ColumnElement[str]:
    text = func.replace(collate(func.concat_ws(_BLANK, *parts), "C"), literal_column("'-'"), _BLANK)
    return _BLANK.concat(text).concat(_BLANK)


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
    stored, typed = (
        func.left(email, literal_column(str(_MAX_LEVENSHTEIN_LENGTH)))
        for email in (PATIENT_COLUMNS.patient_email_address_folded, values("email"))
    )
    distance: ColumnElement[int] = func.extensions.levenshtein_less_equal(stored, typed, literal_column("2"))
    return distance <= literal_column("2")


def linked_profiles(values: Values) -> ColumnElement[Any]:
    """Return the SQL expression for the ids of the profiles with the e-mail address of a term, as an array."""
    profile = Profile.__table__.c
    ids = select(profile.unique_id).where(starts_with(profile.email_folded, values("email")))
    limited = ids.limit(literal_column(str(MAX_LINKED_PROFILES))).correlate_except(Profile.__table__)
    return func.array(limited.scalar_subquery(), type_=ARRAY(ID_TEXT))
