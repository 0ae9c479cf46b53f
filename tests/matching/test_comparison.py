"""The comparison of two patients: levels of fields, grades, and the documented weights."""

import re
from datetime import date
from itertools import combinations, product
from typing import Any

import asyncpg
import pytest

from app.likeness.levels import Level
from app.likeness.values import compare_addresses, compare_dates
from app.likeness.values import compare_names as compare_name_words
from app.locality.names import name_words
from app.matching.comparison import Comparison, can_be_pair, compare
from app.matching.person import COMPARED_FIELDS, Person
from app.matching.weights import THRESHOLDS, WEIGHTS, Grade
from tests.doc_commands import REPOSITORY_ROOT

TODAY = date(2026, 11, 30)
SPARSE: dict[str, Any] = {
    "patient_first_name": "Harley",
    "patient_last_name": "McGrady",
    "patient_date_of_birth": date(1958, 4, 19),
    "patient_physical_address": "177 Pridham Street",
    "patient_town": "Marsden",
    "patient_postal_code": "3165",
}
"""A record of an adult without gender, phone number and e-mail address."""
COMPLETE: dict[str, Any] = {**SPARSE, "patient_gender": "Male", "patient_mobile_number": "082 345 6789"}
JOHN_HARLEY = {"patient_first_name": "John Harley"}
TOM = {"patient_first_name": "Tom", "patient_email_address": "tom.mcgrady@example.org"}
OTHER_TOWN = {
    "patient_physical_address": "9 Pridham Street",
    "patient_town": "Durban",
    "patient_postal_code": None,
}
MOVED = {"patient_physical_address": "3 Long Road", "patient_town": "Durban", "patient_postal_code": "4001"}
OTHER_STREET = {"patient_physical_address": "3 Long Road"}
NO_HOME = {"patient_physical_address": None, "patient_town": None, "patient_postal_code": None}
NEW_PHONE = {"patient_mobile_number": "071 111 2222"}
SARAH_SMITH = {"patient_first_name": "Sarah", "patient_last_name": "Smith"}
EMAIL = {"patient_email_address": "smith1@example.org"}
PASSPORT = {"patient_identifiers": [{"type": "passport", "normalized": "A1234567"}]}


def grade_of(one: dict[str, Any], **changes: Any) -> Comparison:
    """Compare a patient with the same patient after some changes, in both orders, which must agree."""
    empty = dict.fromkeys(COMPARED_FIELDS)
    persons = [Person.from_fields(empty | fields) for fields in (one, one | changes)]
    comparison = compare(persons[0], persons[1], TODAY)
    assert comparison[:2] == compare(persons[1], persons[0], TODAY)[:2]
    return comparison


@pytest.mark.parametrize(
    ("one", "other", "level"),
    [
        ("Solvéig", "solveig", Level.SAME),
        ("Smith", "Mr Smith", Level.SAME_FREQUENT),
        ("Smith", "Meneer Smith", Level.SAME_FREQUENT),
        ("Doctor", "Nomvula", Level.DIFFERENT),
        ("O'Grady", "OGrady", Level.SAME),
        ("van der Merwe", "Vandermerwe", Level.SAME_FREQUENT),
        ("William", "Bill", Level.SHORT_FORM),
        ("William James", "Bill", Level.SHORT_FORM),
        ("James William", "Bill", Level.SECOND),
        ("Thabiso", "Thabo", Level.OTHER_FORM),
        ("Thomas", "Tom", Level.OTHER_FORM),
        ("Thandiwe", "Thandi", Level.SHORT_FORM),
        ("Thabo John", "Thabo", Level.PART),
        ("Thabo John", "John", Level.SECOND),
        ("Mthembu-Nkosi", "Mthembu", Level.PART),
        ("J", "John", Level.INITIAL),
        ("K", "John", Level.DIFFERENT),
        ("J. R.", "John Robert", Level.INITIAL),
        ("OD", "Olivia Diane", Level.INITIAL),
        ("R J", "John Robert", Level.DIFFERENT),
        ("Ed", "Olivia Diane", Level.DIFFERENT),
        ("van der Merwe", "vd Merwe", Level.SPELLING),
        ("Mohammed", "Mahomed", Level.SPELLING),
        ("Ibrahim", "Ebrahim", Level.SPELLING),
        ("Mohammed Ali", "Mohamed", Level.PART),
        ("Abu al Hassan", "Abu Hassan", Level.SPELLING),
        ("van Zyl", "van Niekerk", Level.DIFFERENT),
        ("Janse van Rensburg", "Janse van Vuuren", Level.DIFFERENT),
        ("Mthembu", "Mtembu", Level.NEAR),
        ("Mcgrady", "Mcgardy", Level.SPELLING),
        ("Thabbo", "Thabo", Level.SPELLING),
        ("Mahomed", "Mahomed", Level.SAME_FREQUENT),
        ("Jaden", "Jayden", Level.NEAR),
        ("Anna", "Emma", Level.DIFFERENT),
        ("Maria", "Marie", Level.DIFFERENT),
        ("Sipho", "Nomvula", Level.DIFFERENT),
    ],
)
def test_levels_of_names(one: str, other: str, level: Level) -> None:
    """Spellings, titles, short forms and typing errors are distinguished from other names."""
    assert compare_name_words(name_words(one), name_words(other)) is level
    assert compare_name_words(name_words(other), name_words(one)) is level


@pytest.mark.parametrize(
    "name",
    [
        "Baby Girl of Thandi",
        "B/O Thandi",
        "Unknown",
        "Unk.",
        "not given",
        "n/a",
        "none",
        "Onbekend",
        "-",
        ".",
        "Infant",
        "Dr",
        "",
    ],
)
def test_placeholders_are_no_names(name: str) -> None:
    """What is written in place of a name is not compared."""
    assert name_words(name) == ()


@pytest.mark.parametrize(
    ("one", "other", "level"),
    [
        ("1984-03-17", "1984-03-17", Level.SAME),
        ("1984-01-01", "1984-01-01", Level.PLACEHOLDER),
        ("1984-01-01", "1984-03-17", Level.YEAR_ONLY),
        ("1984-03-07", "1984-07-03", Level.SWAPPED),
        ("1984-03-17", "1984-03-11", Level.NEAR),
        ("1990-03-17", "1991-03-17", Level.NEAR),
        ("1990-01-01", "1991-01-01", Level.SAME_MONTH),
        ("1984-03-17", "1984-03-29", Level.SAME_MONTH),
        ("1984-03-17", "1951-11-30", Level.DIFFERENT),
        ("1984-01-01", "1951-11-30", Level.DIFFERENT),
        ("0984-03-17", "1984-03-17", Level.NEAR),
        ("0001-01-01", "9999-12-31", Level.DIFFERENT),
    ],
)
def test_levels_of_dates(one: str, other: str, level: Level) -> None:
    """Dates that differ by one error are near, and a 1 January may stand for a year."""
    assert compare_dates(date.fromisoformat(one), date.fromisoformat(other)) is level
    assert compare_dates(date.fromisoformat(other), date.fromisoformat(one)) is level


@pytest.mark.parametrize(
    ("one", "other", "level"),
    [
        ("12 nelson mandela", "12 nelsn mandela", Level.SAME),
        ("12 vilakazi", "14 vilakazi", Level.STREET),
        ("12 nelson mandela", "nelson mandela", Level.SAME),
        ("12 vilakazi", "9 church", Level.DIFFERENT),
        ("12 nelson mandela", "12 nelsonmandela", Level.SAME),
        ("5 rosella", "5 rosellastreet", Level.SAME),
        ("p o box 12", "p o box 14", Level.DIFFERENT),
        ("p o box 12", "po box 12", Level.SAME),
    ],
)
def test_levels_of_addresses(one: str, other: str, level: Level) -> None:
    """House numbers count apart from the names of streets."""
    assert compare_addresses(one, other) is level


@pytest.mark.parametrize(
    ("one", "changes", "grade"),
    [
        (COMPLETE, {}, Grade.CERTAIN),
        (COMPLETE, {"patient_first_name": "Harely", "patient_last_name": "MacGrady"}, Grade.CERTAIN),
        # a typing error, or the name of a twin
        (COMPLETE, {"patient_first_name": "Harly"}, Grade.PROBABLE),
        (COMPLETE, MOVED, Grade.CERTAIN),
        (COMPLETE, {"patient_date_of_birth": date(1958, 4, 18)}, Grade.CERTAIN),
        (COMPLETE, {"patient_last_name": "Jones"}, Grade.PROBABLE),
        (COMPLETE, {"patient_date_of_birth": None}, Grade.PROBABLE),
        (COMPLETE, {"patient_date_of_birth": date(1931, 12, 2)}, Grade.PROBABLE),
        # namesakes
        (COMPLETE, {**MOVED, "patient_mobile_number": None, "patient_date_of_birth": date(1931, 12, 2)}, None),
        (COMPLETE, {**MOVED, "patient_mobile_number": None, "patient_date_of_birth": None}, Grade.POSSIBLE),
        # twins, and other relatives
        (COMPLETE, {"patient_first_name": "Jack"}, Grade.POSSIBLE),
        (COMPLETE, {"patient_first_name": "Jack", "patient_gender": "Female"}, Grade.POSSIBLE),
        (COMPLETE, {"patient_first_name": "Jack", "patient_date_of_birth": date(1961, 9, 2)}, None),
        (COMPLETE, {"patient_first_name": "Baby", "patient_date_of_birth": date(2026, 11, 1)}, None),
        (COMPLETE, {"patient_date_of_birth": date(2020, 9, 2)}, None),
        (SPARSE, {"patient_first_name": "Jack"}, Grade.POSSIBLE),
        (SPARSE, {"patient_first_name": None}, Grade.POSSIBLE),
        # the first name of a relative is the last name of the family, by chance or as its names are swapped
        (COMPLETE, {"patient_first_name": "McGrady", "patient_last_name": "Jack"}, Grade.POSSIBLE),
        (SPARSE, {"patient_first_name": "McGrady", "patient_last_name": "Harley"}, Grade.CERTAIN),
        # the whole name in one field
        (COMPLETE, {"patient_first_name": None, "patient_last_name": "McGrady, Harley"}, Grade.CERTAIN),
        (COMPLETE, {"patient_first_name": "Harley John McGrady", "patient_last_name": None}, Grade.CERTAIN),
        (COMPLETE, {"patient_first_name": None, "patient_last_name": "Jack McGrady"}, Grade.POSSIBLE),
        # a second name, which is that of a relative where the dates of birth do not show that it is not
        (COMPLETE | JOHN_HARLEY, {"patient_first_name": "Harley"}, Grade.PROBABLE),
        (COMPLETE | JOHN_HARLEY, {"patient_first_name": "Harley", "patient_date_of_birth": None}, Grade.POSSIBLE),
        # brothers with a first name in common, and the same second name
        (COMPLETE | JOHN_HARLEY, {"patient_first_name": "John Peter"}, Grade.POSSIBLE),
        (COMPLETE | JOHN_HARLEY, {"patient_first_name": "John H"}, Grade.CERTAIN),
        # a namesake who is born on the same day, or who has moved and has another phone number
        (COMPLETE, {**MOVED, "patient_mobile_number": "071 111 2222"}, Grade.PROBABLE),
        # namesakes of one family, in one home or with one phone number
        (COMPLETE, {"patient_mobile_number": None, "patient_date_of_birth": date(1931, 12, 2)}, Grade.POSSIBLE),
        (COMPLETE, {**MOVED, "patient_date_of_birth": date(1931, 12, 2)}, Grade.POSSIBLE),
        # strangers with one first name in an institution, who are no women that have married
        (COMPLETE, {"patient_last_name": "Jones", "patient_date_of_birth": None}, Grade.POSSIBLE),
        (
            SPARSE,
            {"patient_first_name": "Harly", "patient_last_name": "Jones", "patient_date_of_birth": None},
            Grade.POSSIBLE,
        ),
        # the same street in another town
        (SPARSE, {**OTHER_TOWN, "patient_date_of_birth": None}, Grade.POSSIBLE),
        # an initial, or a name that is only similar
        (COMPLETE, {"patient_first_name": "H"}, Grade.PROBABLE),
        (COMPLETE, {"patient_first_name": "H", "patient_date_of_birth": None}, Grade.POSSIBLE),
        (COMPLETE, {"patient_first_name": "H", "patient_date_of_birth": date(1931, 12, 2)}, None),
        (COMPLETE, {"patient_gender": "Female"}, Grade.CERTAIN),
        (COMPLETE, {"patient_gender": "Female", "patient_date_of_birth": None}, Grade.POSSIBLE),
        # a name and its short form, which twins may have if both are given names
        (COMPLETE | {"patient_first_name": "William"}, {"patient_first_name": "Bill"}, Grade.CERTAIN),
        (COMPLETE | {"patient_first_name": "Thomas"}, {"patient_first_name": "Tom"}, Grade.POSSIBLE),
        (COMPLETE | TOM | {"patient_first_name": "Thomas"}, TOM, Grade.CERTAIN),
        # a short form that no relative has, with a wrong date of birth
        (
            SPARSE | {"patient_first_name": "William"},
            {"patient_first_name": "Bill", "patient_date_of_birth": date(1931, 12, 2)},
            Grade.PROBABLE,
        ),
        (
            COMPLETE | {"patient_first_name": "William"},
            {"patient_first_name": "Bill", "patient_date_of_birth": date(1931, 12, 2)},
            Grade.PROBABLE,
        ),
        (
            COMPLETE | {"patient_first_name": "William"},
            {"patient_first_name": "Bill", "patient_date_of_birth": date(2020, 12, 2)},
            None,
        ),
        # a newborn child with its mother's name, and the mother without a date of birth
        (COMPLETE | {"patient_date_of_birth": date(2026, 11, 1)}, {"patient_date_of_birth": None}, Grade.POSSIBLE),
        # has married, where the date of birth is not known
        (SPARSE, {"patient_last_name": "Jones", "patient_date_of_birth": None}, Grade.PROBABLE),
        (SPARSE, {"patient_last_name": "Jones", "patient_date_of_birth": date(1931, 12, 2)}, Grade.POSSIBLE),
    ],
)
def test_grades(one: dict[str, Any], changes: dict[str, Any], grade: Grade | None) -> None:
    """What two records of a person, namesakes and relatives have in common decides the grade."""
    assert grade_of(one, **changes).grade is grade


@pytest.mark.parametrize(
    ("one", "changes", "grade"),
    [
        (COMPLETE | SARAH_SMITH, NEW_PHONE, Grade.CERTAIN),
        (COMPLETE | SARAH_SMITH, OTHER_STREET, Grade.CERTAIN),
        (COMPLETE | SARAH_SMITH, OTHER_STREET | NEW_PHONE, Grade.PROBABLE),
        (SPARSE | SARAH_SMITH, OTHER_STREET, Grade.PROBABLE),
        (SPARSE | SARAH_SMITH, NO_HOME, Grade.PROBABLE),
        # one rare name, in the same place
        (SPARSE | {"patient_last_name": "Smith"}, OTHER_STREET, Grade.CERTAIN),
        (COMPLETE | {"patient_last_name": "Smith"}, OTHER_STREET | NEW_PHONE, Grade.PROBABLE),
        (SPARSE | {"patient_last_name": "Smith"}, NO_HOME, Grade.PROBABLE),
        # rare names, which nothing contradicts, or a third one
        (SPARSE, NO_HOME, Grade.CERTAIN),
        (COMPLETE, OTHER_STREET | NEW_PHONE, Grade.CERTAIN),
        (COMPLETE, MOVED | NEW_PHONE, Grade.PROBABLE),
        (COMPLETE | {"patient_first_name": "Harley Quillan"}, MOVED | NEW_PHONE, Grade.CERTAIN),
        (
            COMPLETE | {"patient_first_name": "Harley Quillan"},
            {**MOVED, **NEW_PHONE, "patient_first_name": "Harleyquillan"},
            Grade.PROBABLE,
        ),
        # an e-mail address or an identifier of the person
        (COMPLETE | SARAH_SMITH | EMAIL, MOVED | NEW_PHONE, Grade.CERTAIN),
        (
            COMPLETE | SARAH_SMITH | EMAIL,
            {**MOVED, **NEW_PHONE, "patient_email_address": "smith2@example.org"},
            Grade.PROBABLE,
        ),
        (COMPLETE | SARAH_SMITH | PASSPORT, MOVED | NEW_PHONE, Grade.CERTAIN),
        (COMPLETE | PASSPORT, {"patient_first_name": "Harly"}, Grade.CERTAIN),
    ],
)
def test_grades_of_namesakes_born_on_one_day(one: dict[str, Any], changes: dict[str, Any], grade: Grade) -> None:
    """Frequent names and a date of birth are certainly one person only with a contact in common, rare ones without."""
    assert grade_of(one, **changes).grade is grade


@pytest.mark.parametrize("field", [field for field in COMPARED_FIELDS if field in WEIGHTS])
def test_a_missing_value_is_not_a_different_one(field: str) -> None:
    """A field that one record lacks changes the score by what the field had contributed, and no more."""
    with_field, without = grade_of(COMPLETE), grade_of(COMPLETE, **{field: None})
    weight = WEIGHTS[field][with_field.levels[field]] if field in with_field.levels else 0
    assert without.score == round(with_field.score - weight, 1)
    assert field not in without.levels
    assert without.differs == []


def test_every_pair_of_levels_of_a_field_is_ordered() -> None:
    """No disagreement weighs more than an agreement, and only differences count against one person."""
    for field, weights in WEIGHTS.items():
        assert weights[Level.DIFFERENT] < 0, field
        assert all(weight > 0 for level, weight in weights.items() if level is not Level.DIFFERENT), field
        assert max(weights.values()) == weights[Level.SAME], field


def test_thresholds_fall_from_grade_to_grade() -> None:
    """A better grade needs a higher score."""
    assert all(THRESHOLDS[better] > THRESHOLDS[worse] for better, worse in combinations(Grade, 2))


def test_the_documentation_has_the_weights_and_thresholds_of_the_code() -> None:
    """Each row of the tables in docs/matching.md is a weight or a threshold, and none is missing."""
    page = (REPOSITORY_ROOT / "docs" / "matching.md").read_text()
    rows = re.findall(r"^\| `(patient_\w+)` \| ([\w ,]+) \| (−?[\d.]+) \|", page, re.MULTILINE)
    documented = {(field, level): float(weight.replace("−", "-")) for field, level, weight in rows}
    assert documented == {
        (field, str(level)): weight for field, weights in WEIGHTS.items() for level, weight in weights.items()
    }
    thresholds = dict(re.findall(r"^\| \*(\w+)\* \| ([\d.]+) \|", page, re.MULTILINE))
    assert {name: float(score) for name, score in thresholds.items()} == THRESHOLDS


async def test_a_change_of_any_compared_field_queues_the_patient(connection: asyncpg.Connection) -> None:
    """The triggers that queue a changed patient for a comparison read exactly the compared fields."""
    triggers = await connection.fetch(
        "SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE tgfoid = 'compare_changed_patient()'::regprocedure"
    )
    read_fields = {name for (trigger,) in triggers for name in re.findall(r"old\.(\w+)", trigger, re.IGNORECASE)}
    assert read_fields == set(COMPARED_FIELDS)


def test_patients_that_cannot_be_a_pair_are_none() -> None:
    """The quick check excludes only patients that the comparison neither grades nor takes for relatives."""
    other_values: dict[str, list[Any]] = {
        "patient_first_name": [None, "Harley", "Maria", "McGrady"],
        "patient_last_name": ["McGrady", "Nkosi", "Harley"],
        "patient_date_of_birth": [None, date(1958, 4, 19), date(1958, 4, 18), date(1990, 12, 31)],
        "patient_mobile_number": [None, "082 345 6789", "082 345 6780", "071 111 2222"],
        "patient_email_address": [None, "h@example.org", "g@example.org", "someone@example.com"],
        "patient_physical_address": [None, "177 Pridham Street", "12 Pridham Street", "3 Long Road"],
        "patient_town": ["Marsden", "Durban"],
        "patient_identifiers": [None, [{"type": "other", "value": "1", "normalized": "1"}]],
    }
    identifiers = other_values["patient_identifiers"][1]
    empty = dict.fromkeys(COMPARED_FIELDS)
    fields = empty | COMPLETE | {"patient_email_address": "h@example.org", "patient_identifiers": identifiers}
    one, excluded = Person.from_fields(fields), 0
    for values in product(*other_values.values()):
        other = Person.from_fields(fields | dict(zip(other_values, values, strict=True)))
        comparison = compare(one, other, TODAY)
        if not can_be_pair(one, other):
            excluded += 1
            assert comparison.grade is None
            assert not comparison.are_relatives
            assert not comparison.are_twins
    assert excluded > 100
