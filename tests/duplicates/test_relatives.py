"""The queue: what other records show about two patients with other or missing first names."""

from typing import Any

import httpx
import pytest

from tests.duplicates.support import DUPLICATES, MATCH, THANDI, queue, register
from tests.hospital_scope.conftest import ScopedClients

SPARSE: dict[str, Any] = {
    "patient_first_name": "Harley",
    "patient_last_name": "McCarthy",
    "patient_date_of_birth": "1958-04-19",
    "patient_physical_address": "177 Pridham Street",
    "patient_town": "Marsden",
    "patient_postal_code": "3165",
}
"""An adult of whom neither a gender nor a phone number is known."""
RENAMED = {**SPARSE, "patient_first_name": "Jack"}
CHILD = {"patient_date_of_birth": "2015-04-19"}
THOMAS, TOM = {"patient_first_name": "Thomas"}, {"patient_first_name": "Tom"}
UNNAMED = {name: value for name, value in THANDI.items() if name != "patient_first_name"}


async def grades(client: httpx.AsyncClient) -> dict[tuple[str, ...], str]:
    """Return the grades of the open pairs by their patients."""
    return {tuple(entry["patients"]): entry["grade"] for entry in await queue(client)}


@pytest.mark.parametrize(
    ("one", "other", "grade"),
    [
        (SPARSE, RENAMED, "probable"),
        (SPARSE, {**RENAMED, "patient_gender": "Male"}, "possible"),
        (SPARSE | CHILD, RENAMED | CHILD, "possible"),
        (THANDI, UNNAMED, "probable"),
        (THANDI | THOMAS, THANDI | TOM, "probable"),
        (THANDI, {**UNNAMED, "patient_gender": "Male"}, "possible"),
    ],
    ids=["renamed", "a gender is known", "children", "without a first name", "short form", "another gender"],
)
async def test_the_queue_raises_adults_with_other_first_names(
    client: httpx.AsyncClient, one: dict[str, Any], other: dict[str, Any], grade: str
) -> None:
    """Adults who differ in nothing but a first name may be one person, but a match never says so, as with twins."""
    await register(client, "a", **one)
    await register(client, "b", **other)
    assert await grades(client) == {("a", "b"): grade}
    (candidate,) = (await client.post(MATCH, json={"unique_id": "b", **other})).json()
    assert (candidate["patient"]["unique_id"], candidate["grade"]) == ("a", "possible")


async def test_names_that_two_records_have_are_those_of_two_persons(client: httpx.AsyncClient) -> None:
    """If each of the first names is in another record, the patients are twins."""
    for unique_id, fields in {"a1": SPARSE, "b1": RENAMED, "a2": SPARSE, "b2": RENAMED}.items():
        await register(client, unique_id, **fields)
    found = await grades(client)
    assert {pair for pair, grade in found.items() if grade != "possible"} == {("a1", "a2"), ("b1", "b2")}
    assert len(found) == 6


async def test_a_relative_at_the_address_shows_a_family(client: httpx.AsyncClient) -> None:
    """If their mother is registered at the same address, patients with two first names may be twins."""
    mother = {**SPARSE, "patient_first_name": "Margaret", "patient_date_of_birth": "1931-02-03"}
    await register(client, "mother", **mother)
    await register(client, "a", **SPARSE)
    await register(client, "b", **RENAMED)
    assert await grades(client) == {("a", "b"): "possible"}


async def test_a_record_without_a_first_name_may_be_that_of_a_twin(client: httpx.AsyncClient) -> None:
    """A record without a first name is possibly that of each of two twins."""
    await register(client, "a", **THANDI)
    await register(client, "b", **{**THANDI, "patient_first_name": "Nomvula"})
    await register(client, "unnamed", **UNNAMED)
    assert set((await grades(client)).values()) == {"possible"}


async def test_restricted_principals_get_the_grade_that_two_records_have_by_themselves(
    scoped_clients: ScopedClients,
) -> None:
    """A grade reveals no records in other hospitals, neither a third record nor relatives."""
    ours = {"hospital_ids": ["hosA"]}
    names = ("patient_first_name", "patient_last_name", "patient_date_of_birth")
    await register(scoped_clients.free, "a", **{name: THANDI[name] for name in names}, **ours)
    contact = {name: value for name, value in THANDI.items() if name != "patient_date_of_birth"}
    await register(scoped_clients.free, "b", **contact, **ours)
    await register(scoped_clients.free, "c", **SPARSE, **ours)
    await register(scoped_clients.free, "d", **RENAMED, **ours)
    before = await grades(scoped_clients.a)
    assert before == {("a", "b"): "possible", ("c", "d"): "possible"}
    assert await grades(scoped_clients.free) == {("a", "b"): "possible", ("c", "d"): "probable"}
    await register(scoped_clients.free, "elsewhere", **THANDI, hospital_ids=["hosB"])
    assert (await grades(scoped_clients.free))["a", "b"] == "probable"
    assert await grades(scoped_clients.a) == before
    for grade, count in {"probable": "0", "possible": "2"}.items():
        response = await scoped_clients.a.get(DUPLICATES, params={"grade": grade, "count": "exact"})
        assert (len(response.json()), response.headers["X-Total-Count"]) == (int(count), count)
