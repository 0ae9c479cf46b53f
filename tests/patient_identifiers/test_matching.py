"""What identifiers say about whether two patients are one person."""

from datetime import date
from typing import Any

import httpx
import pytest

from app.likeness.levels import Level
from app.matching.comparison import compare
from app.matching.identifiers import Identifier, compare_identifiers
from app.matching.person import COMPARED_FIELDS, Person
from app.matching.weights import Grade
from tests.patient_identifiers.support import PATIENTS, register

OWN, OTHER = ({"type": "za_id", "value": value} for value in ("8506125009082", "8506125109080"))
STORED = {"type": "za_id", "normalized": "8506125009082", "country": "ZA"}
JANE = {"patient_first_name": "Jane", "patient_last_name": "Dlamini", "patient_date_of_birth": "1985-06-12"}


def stored(*identifiers: tuple[str, ...]) -> tuple[Identifier, ...]:
    """Return identifiers by type, value and country, or hospital if the type is `folder`."""
    return Identifier.from_stored(
        {"type": kind, "normalized": value, ("hospital_id" if kind == "folder" else "country"): "".join(rest)}
        for kind, value, *rest in identifiers
    )


@pytest.mark.parametrize(
    ("one", "other", "level"),
    [
        ([("za_id", "1")], [("za_id", "1")], Level.SAME),
        ([("za_id", "8001015009087")], [("za_id", "8001015009088")], Level.DIFFERENT),
        ([("za_id", "1"), ("passport", "A1")], [("za_id", "1"), ("passport", "A2")], Level.SAME),
        ([("passport", "A1", "ZA")], [("passport", "A1", "NA")], None),
        ([("passport", "A1", "ZA")], [("passport", "A1")], Level.SAME),
        ([("za_id", "1")], [("passport", "1")], None),
        ([("tax", "123456")], [("tax", "123465")], Level.NEAR),
        ([("tax", "12345")], [("tax", "12354")], Level.DIFFERENT),
        ([("folder", "1", "h")], [("folder", "1", "h")], Level.SAME),
        ([("folder", "1", "h")], [("folder", "1", "g")], None),
        ([("folder", "1", "h")], [("folder", "2", "h")], None),
        ([("medical_aid", "1")], [("medical_aid", "1")], Level.PART),
        ([("medical_aid", "1")], [("medical_aid", "2")], None),
        ([("other", "1")], [("other", "2")], None),
        ([], [("other", "2")], None),
    ],
    ids=str,
)
def test_levels(one: list[Any], other: list[Any], level: Level | None) -> None:
    """One identifier in common says more than different ones; what families share says little."""
    assert compare_identifiers(stored(*one), stored(*other)) is level
    assert compare_identifiers(stored(*other), stored(*one)) is level


async def match(client: httpx.AsyncClient, *identifiers: dict[str, Any], **fields: Any) -> list[tuple[str, str, Any]]:
    response = await client.post(f"{PATIENTS}match/", json={"patient_identifiers": list(identifiers), **fields})
    assert response.status_code == 200, response.text
    return [
        (each["patient"]["unique_id"], each["grade"], "patient_identifiers" in each["agrees"])
        for each in response.json()
    ]


async def test_identifiers_find_candidates_and_raise_or_limit_their_grade(client: httpx.AsyncClient) -> None:
    """A patient is found by an identifier alone. A different identity number is at most possible."""
    await register(client, "jane", OWN, **JANE)
    assert await match(client, OWN, **JANE) == [("jane", "certain", True)]
    moved = {**JANE, "patient_first_name": "J", "patient_last_name": "Nkosi"}
    assert await match(client, OWN, **moved) == [("jane", "probable", True)]
    complete = {**JANE, "patient_mobile_number": "082 123 4567", "patient_town": "Soweto"}
    await register(client, "other", OTHER, **complete)
    grades = {unique_id: grade for unique_id, grade, _ in await match(client, OWN, **complete)}
    assert grades == {"jane": "certain", "other": "possible"}
    invalid = {"patient_identifiers": [{"type": "za_id", "value": "1"}], **JANE}
    assert (await client.post(f"{PATIENTS}match/", json=invalid)).status_code == 422


@pytest.mark.parametrize(
    ("changes", "grade"),
    [
        ({}, Grade.CERTAIN),
        ({"patient_date_of_birth": date(1985, 6, 21)}, Grade.CERTAIN),
        ({"patient_date_of_birth": date(1948, 1, 30)}, Grade.PROBABLE),
        ({"patient_last_name": "Nkosi", "patient_date_of_birth": None}, Grade.PROBABLE),
        ({"patient_first_name": "Thandi"}, Grade.CERTAIN),
        # two adults do not have one number, but a child may be registered with that of its mother
        ({"patient_first_name": "Thandi", "patient_date_of_birth": date(1948, 1, 30)}, Grade.PROBABLE),
        ({"patient_first_name": "Thandi", "patient_date_of_birth": date(2020, 1, 30)}, Grade.POSSIBLE),
        ({"patient_first_name": "Baby", "patient_date_of_birth": date(2026, 11, 1)}, Grade.POSSIBLE),
        ({"patient_first_name": "Thandi", "patient_date_of_birth": None}, Grade.POSSIBLE),
        ({"patient_identifiers": [{**STORED, "normalized": "8506125109080"}]}, Grade.POSSIBLE),
    ],
)
def test_grades_with_an_identity_number(changes: dict[str, Any], grade: Grade) -> None:
    """The same number limits what a family may be, and another one limits the grade."""
    one = {**dict.fromkeys(COMPARED_FIELDS), **JANE, "patient_date_of_birth": date(1985, 6, 12)}
    one |= {"patient_physical_address": "12 Vilakazi Street", "patient_identifiers": [STORED]}
    persons = [Person.from_fields(fields) for fields in (one, {**one, **changes})]
    assert compare(persons[0], persons[1], date(2026, 11, 30)).grade is grade
    assert compare(persons[1], persons[0], date(2026, 11, 30)).grade is grade


async def test_twins_with_a_shared_number_of_a_family_are_at_most_possible(client: httpx.AsyncClient) -> None:
    """The number of a medical aid does not show that twins are one person."""
    aid = {"type": "medical_aid", "value": "12345"}
    await register(client, "jane", aid, **JANE)
    twin = {**JANE, "patient_first_name": "Thabo"}
    assert [grade for _, grade, _ in await match(client, aid, **twin)] == ["possible"]


async def test_a_changed_identifier_is_compared_again(client: httpx.AsyncClient) -> None:
    """Pairs enter the queue when a patient gets an identifier."""
    passport = {"type": "birth_certificate", "value": "B-123456"}
    await register(client, "one", passport, patient_first_name="Jane", patient_last_name="Dlamini")
    await register(client, "two", patient_first_name="Jane", patient_last_name="Dlamini")
    queue = (await client.get("/patients/duplicates/")).json()
    assert [pair["agrees"] for pair in queue] in ([], [["patient_first_name", "patient_last_name"]])
    await client.patch(f"{PATIENTS}two/", json={"patient_identifiers": [passport]})
    (pair,) = (await client.get("/patients/duplicates/")).json()
    assert "patient_identifiers" in pair["agrees"]
