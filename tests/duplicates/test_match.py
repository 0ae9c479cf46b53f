"""`POST /patients/patients/match/`: who a person may be."""

from typing import Any

import httpx
import pytest

from app.matching.candidates import MAX_NEIGHBOURS
from tests.duplicates.support import AGAIN, MATCH, NAMESAKE, PATIENTS, THANDI, TWIN, register
from tests.hospital_scope.conftest import AUDIT_PATH, ScopedClients
from tests.uploads.test_import import post_lines


async def match(client: httpx.AsyncClient, **body: Any) -> list[dict[str, Any]]:
    response = await client.post(MATCH, json=body)
    assert response.status_code == 200, response.text
    candidates: list[dict[str, Any]] = response.json()
    return candidates


async def test_candidates_come_with_what_agrees_and_differs(client: httpx.AsyncClient) -> None:
    """A registered person is found by a short form and a misspelt name, with the patient as GET returns it."""
    await register(client, "thandi", **THANDI)
    await register(client, "namesake", **NAMESAKE)
    (candidate,) = await match(client, **{**AGAIN, "patient_mobile_number": "0711111119"})
    assert candidate["patient"] == (await client.get(f"{PATIENTS}thandi/")).json()
    assert candidate["grade"] == "certain"
    assert candidate["score"] > 20
    assert {"patient_first_name", "patient_last_name", "patient_date_of_birth"} <= set(candidate["agrees"])
    assert candidate["differs"] == ["patient_mobile_number"]


@pytest.mark.parametrize(
    "given",
    [
        {"patient_mobile_number": "082 345 6789", "patient_first_name": "Thandiwe"},
        {"patient_mobile_number": "0027 (0)82 345 6789", "patient_first_name": "Thandiwe"},
        {"patient_first_name": "Mthembu", "patient_last_name": "Thandiwe", "patient_date_of_birth": "1984-03-17"},
        {
            "patient_first_name": "Thandiwe",
            "patient_last_name": "Mthembu",
            "patient_date_of_birth": "1984-03-18",
        },
        {
            "patient_first_name": "Mrs Thandiwe",
            "patient_last_name": "Mthembu",
            "patient_physical_address": "12 vilakazi str",
            "patient_town": "SOWETO",
        },
        {
            "patient_first_name": "Thandiwe",
            "patient_last_name": "Mthembu",
            "patient_date_of_birth": "1979-11-02",
            "patient_address_line_1": "House 12 Vilakazi Street",
            "patient_town": "Soweto",
        },
        {"patient_last_name": "Mthembu-Nkosi", "patient_first_name": "Thandiwe", "patient_date_of_birth": "1984-03-17"},
    ],
    ids=["phone", "code of the country", "swapped names", "day", "title and address", "home", "married"],
)
async def test_a_part_of_the_fields_suffices(client: httpx.AsyncClient, given: dict[str, Any]) -> None:
    """Each kind of evidence finds the person without the others."""
    await register(client, "thandi", **THANDI)
    assert [candidate["patient"]["unique_id"] for candidate in await match(client, **given)] == ["thandi"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("Thabo", "van der Merwe"), ("van der Merwe", None)),
        (("Tom Thomas", "Mthembu"), ("Peter Thomas", "Mthembu")),
        (("Thandiwe", "Mthembu"), ("Mthembo", "Thandiwe")),
    ],
    ids=["last name alone", "two first names", "swapped names"],
)
async def test_it_does_not_matter_who_is_registered(
    client: httpx.AsyncClient, one: tuple[str, str], other: tuple[str, str | None]
) -> None:
    """A pair has the same score and grade whichever of the two is registered."""
    names = ("patient_first_name", "patient_last_name")
    bodies = [{**THANDI, **dict(zip(names, values, strict=True))} for values in (one, other)]
    outcomes = []
    for registered, given in (bodies, bodies[::-1]):
        unique_id = await register(client, **registered)
        (candidate,) = await match(client, **given)
        outcomes.append({name: candidate[name] for name in ("score", "grade", "agrees", "differs")})
        assert (await client.delete(f"{PATIENTS}{unique_id}/")).status_code == 204
    assert outcomes[0] == outcomes[1]


async def test_many_people_at_one_post_office_hide_nobody(client: httpx.AsyncClient) -> None:
    """A date of birth and an address find a person with other names, however many addresses begin alike."""
    born, address = {"patient_date_of_birth": "1984-03-17"}, {"patient_physical_address": "P O Box 7731"}
    others = [
        {
            "patient_last_name": "Botha",
            "patient_date_of_birth": f"{1920 + number % 60}-05-06",
            "patient_physical_address": f"P O Box {number}",
        }
        for number in range(MAX_NEIGHBOURS + 1)
    ]
    await post_lines(client, others)
    unique_id = await register(client, **born, **address, patient_first_name="Thandiwe", patient_last_name="Mthembu")
    candidates = await match(client, **born, **address, patient_last_name="Dlamini")
    assert [candidate["patient"]["unique_id"] for candidate in candidates] == [unique_id]


async def test_relatives_are_never_more_than_possible(client: httpx.AsyncClient) -> None:
    """Twins, and a mother and her newborn child, share nearly everything but are at most possible."""
    await register(client, "thandi", **THANDI)
    (twin,) = await match(client, **TWIN)
    assert twin["grade"] == "possible"
    newborn = {**THANDI, "patient_first_name": "Baby of Thandiwe", "patient_date_of_birth": "2026-11-02"}
    assert {candidate["grade"] for candidate in await match(client, **newborn)} <= {"possible"}


async def test_only_certain_returns_one_or_none(client: httpx.AsyncClient) -> None:
    """`only_certain` returns the only certain candidate, and none if there are two."""
    await register(client, "one", **THANDI)
    assert len(await match(client, **THANDI, only_certain=True)) == 1
    assert await match(client, **TWIN, only_certain=True) == []
    await register(client, "two", **THANDI)
    assert len(await match(client, **THANDI)) == 2
    assert await match(client, **THANDI, only_certain=True) == []


async def test_nothing_matches_nothing(client: httpx.AsyncClient) -> None:
    """An empty body, placeholders and a registered patient itself have no candidates."""
    await register(client, "thandi", **THANDI)
    assert await match(client) == []
    assert await match(client, patient_last_name="Unknown", patient_date_of_birth="1984-01-01") == []
    assert await match(client, unique_id="thandi", **THANDI) == []


async def test_wrong_values_are_refused(client: httpx.AsyncClient) -> None:
    """The fields are validated as those of a new patient are, and unknown ones refused."""
    response = await client.post(MATCH, json={"patient_date_of_birth": "1984-02-30", "only": True})
    assert response.status_code == 422
    assert {error["type"] for error in response.json()["errors"]} == {"date", "extra_forbidden"}
    assert response.json()["detail"] == "The request has errors."


async def test_candidates_are_those_of_the_own_hospitals_and_audited(scoped_clients: ScopedClients) -> None:
    """A restricted principal gets only its own patients, whose access reports show it."""
    await register(scoped_clients.free, "at-a", **THANDI, hospital_ids=["hosA"])
    await register(scoped_clients.free, "at-b", **AGAIN, hospital_ids=["hosB"])
    found = {
        name: {candidate["patient"]["unique_id"] for candidate in await match(client, **THANDI)}
        for name, client in scoped_clients._asdict().items()
    }
    assert found == {"a": {"at-a"}, "b": {"at-b"}, "both": {"at-a", "at-b"}, "free": {"at-a", "at-b"}}
    entries = (await scoped_clients.free.get(AUDIT_PATH, params={"patient": "at-a"})).json()
    assert {entry["principal"] for entry in entries if entry["route"] == MATCH} == {"key:a", "key:both", "key:free"}
