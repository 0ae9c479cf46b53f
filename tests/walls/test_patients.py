"""What a principal that is limited to hospitals sees and does: the patients of these hospitals, and no others."""

import asyncio
from typing import Any

import asyncpg
import httpx
import pytest

from tests.auth.support import HOSPITALS, PATIENTS, PROFILES
from tests.processes import await_blocked
from tests.support import dump
from tests.walls.conftest import Register, patient


async def ids(client: httpx.AsyncClient, path: str) -> list[str]:
    """The ids of a list."""
    return [record["unique_id"] for record in (await client.get(path)).json()]


def hospitals_of(answer: httpx.Response) -> list[str]:
    """The ids of the hospitals of a patient that was answered."""
    return [hospital["unique_id"] for hospital in answer.json()["patient_hospital"]]


async def test_lists_hold_what_is_visible(register: Register) -> None:
    """Whole, and in pages; profiles where a visible patient has them."""
    assert await ids(register.a, PATIENTS) == ["pat-a", "pat-shared"]
    assert await ids(register.b, PATIENTS) == ["pat-b", "pat-shared"]
    assert await ids(register.both, PATIENTS) == ["pat-a", "pat-b", "pat-shared"]
    assert await ids(register.free, PATIENTS) == ["pat-a", "pat-b", "pat-none", "pat-shared"]
    assert await ids(register.a, PROFILES) == ["prof-a", "prof-shared"]
    assert len(await ids(register.free, PROFILES)) == 6
    for client, patients, profiles in ((register.a, "2", "2"), (register.both, "3", "3"), (register.free, "4", "6")):
        for path, count in ((PATIENTS, patients), (PROFILES, profiles)):
            assert (await client.get(f"{path}?limit=1&count=exact")).headers["X-Total-Count"] == count
    page = await register.a.get(f"{PATIENTS}?limit=1")
    assert [record["unique_id"] for record in page.json()] == ["pat-a"]
    following = await register.a.get(page.links["next"]["url"])
    assert [record["unique_id"] for record in following.json()] == ["pat-shared"]
    assert "next" not in following.links


async def test_links_are_shown_whole(register: Register) -> None:
    """Who treats a patient has to know who else does."""
    assert hospitals_of(await register.a.get(f"{PATIENTS}pat-shared/")) == ["hosA", "hosB", "hosC"]


async def test_replacing_links_leaves_those_of_others(register: Register) -> None:
    """Own ones are added and removed; nobody else's are, not even by `[]`."""
    path = f"{PATIENTS}pat-shared/"
    answer = await register.both.put(path, json={"hospital_ids": ["hosA"]})
    assert (answer.status_code, hospitals_of(answer)) == (200, ["hosA", "hosC"])
    answer = await register.both.put(path, json={"hospital_ids": ["hosB", "hosC"]})
    assert (answer.status_code, hospitals_of(answer)) == (200, ["hosB", "hosC"])
    assert (await register.a.get(path)).status_code == 404
    answer = await register.free.put(path, json={"hospital_ids": ["hosA"]})
    assert hospitals_of(answer) == ["hosA"]


async def test_what_was_read_can_be_put_back(register: Register, connection: asyncpg.Connection) -> None:
    """With the links of others in it, which are there already."""
    record = (await register.a.get(f"{PATIENTS}pat-shared/")).json()
    before = await dump(connection)
    body = {**record, "hospital_ids": ["hosA", "hosB", "hosC"]}
    assert (await register.a.put(f"{PATIENTS}pat-shared/", json=body)).json() == record
    assert await dump(connection) == before


async def test_only_own_hospitals_are_linked(register: Register, connection: asyncpg.Connection) -> None:
    """Another one, there or not, is an error at its place, and nothing is stored."""
    before = await dump(connection)
    for method, path in (("PUT", f"{PATIENTS}pat-a/"), ("POST", PATIENTS)):
        body = {"patient_first_name": "New", "hospital_ids": ["hosB", "hosA", "hosX"]}
        answer = await register.a.request(method, path, json=body)
        assert answer.status_code == 422
        assert answer.json()["errors"] == [
            {
                "loc": ["body", "hospital_ids", place],
                "msg": f"There is no hospital of the unique_id {unique_id}, or you may not link it",
                "type": "unknown_hospital",
            }
            for place, unique_id in ((0, "hosB"), (2, "hosX"))
        ]
    assert await dump(connection) == before


@pytest.mark.parametrize("wanted", [[], ["hosB"], ["hosB", "hosC"]])
async def test_the_last_own_hospital_stays(register: Register, wanted: list[str]) -> None:
    """Who took it away could not bring it back: 409, which says why."""
    answer = await register.a.put(f"{PATIENTS}pat-shared/", json={"hospital_ids": wanted})
    assert answer.status_code == 409
    assert "limited to" in answer.json()["detail"]
    assert hospitals_of(await register.a.get(f"{PATIENTS}pat-shared/")) == ["hosA", "hosB", "hosC"]


@pytest.mark.parametrize("links", [{}, {"hospital_ids": []}, {"hospital_ids": ["hosX"]}])
async def test_a_new_patient_has_an_own_hospital(register: Register, links: dict[str, Any]) -> None:
    """Else its creator could not see it."""
    answer = await register.a.post(PATIENTS, json={"patient_last_name": "New", **links})
    assert answer.status_code == 422
    assert answer.json()["errors"][-1]["type"] == "own_hospital_missing"
    answer = await register.a.post(PATIENTS, json={"patient_last_name": "New", "hospital_ids": ["hosA"]})
    assert (answer.status_code, hospitals_of(answer)) == (201, ["hosA"])


@pytest.mark.parametrize("unique_id", ["pat-b", "pat-gone", "pat-new"])
async def test_ids_of_patients_are_not_chosen(register: Register, unique_id: str) -> None:
    """Taken, retired or free: a 403 that does not tell which."""
    body = patient("x", "hosA", unique_id=unique_id)
    answer = await register.a.post(PATIENTS, json=body, headers={"If-None-Match": "*"})
    assert answer.status_code == 403
    assert answer.json()["detail"].endswith("leave it out, and one is made.")
    assert "scope=" not in answer.headers["WWW-Authenticate"]


@pytest.mark.parametrize("profile", ["prof-b", "prof-free", "prof-gone", "prof-retired"])
async def test_profile_that_is_not_visible_is_unavailable(register: Register, profile: str) -> None:
    """Whoever has it, or had it before it was deleted; a right guess of its data is no better than a wrong one."""
    assert (await register.free.post(PROFILES, json={"unique_id": "prof-retired"})).status_code == 201
    assert (await register.free.delete(f"{PROFILES}prof-retired/")).status_code == 204
    answers = []
    for email in ("b@example.com", "wrong@example.com", None):
        nested = {"unique_id": profile} if email is None else {"unique_id": profile, "email": email}
        answers += [
            await register.a.put(f"{PATIENTS}pat-a/", json={"patient_profile": nested}),
            await register.a.post(
                PATIENTS, json={"patient_last_name": "New", "hospital_ids": ["hosA"], "patient_profile": nested}
            ),
        ]
    assert {answer.status_code for answer in answers} == {422}
    assert [answer.json()["errors"] for answer in answers] == [
        [
            {
                "loc": ["body", "patient_profile", "unique_id"],
                "msg": "Is not available to you: leave the profile out, or choose another unique_id for a new one",
                "type": "profile_unavailable",
            }
        ]
    ] * len(answers)


async def test_profile_that_is_visible_or_new_is_written(register: Register) -> None:
    """Nested in a patient; on its own, none is created."""
    nested = {"unique_id": "prof-shared", "first_name": "Ann"}
    answer = await register.a.put(f"{PATIENTS}pat-a/", json={"patient_profile": nested})
    assert (answer.status_code, answer.json()["patient_profile"]["first_name"]) == (200, "Ann")
    nested = {"unique_id": "prof-new", "first_name": "Eve"}
    answer = await register.a.put(f"{PATIENTS}pat-a/", json={"patient_profile": nested})
    assert (answer.status_code, answer.json()["patient_profile"]["first_name"]) == (200, "Eve")
    assert (await register.a.post(PROFILES, json={"unique_id": "prof-own"})).status_code == 403
    assert (await register.a.put(f"{PROFILES}prof-new/", json={"first_name": "Eva"})).status_code == 200


async def test_no_counts_across_the_wall(register: Register) -> None:
    """A record in use cannot be deleted; by how many it is used only who sees all learns."""
    for path in (f"{HOSPITALS}hosA/", f"{PROFILES}prof-shared/"):
        limited, free = await register.a.delete(path), await register.free.delete(path)
        assert limited.status_code == free.status_code == 409
        assert limited.json()["detail"].startswith("It is in use: patients are linked")
        assert free.json()["detail"][0].isdecimal()


async def test_deleted_patient_is_its_hospitals(register: Register) -> None:
    """Its history, and to restore it: with its profile, and with the hospitals of others."""
    assert (await register.both.delete(f"{PATIENTS}pat-shared/")).status_code == 204
    for name in ("pat-gone", "pat-shared"):
        assert (await register.a.get(f"{PATIENTS}{name}/history/")).status_code == 200
        assert (await register.a.get(f"{PATIENTS}{name}/history/1/")).status_code == 200
    assert (await register.b.get(f"{PATIENTS}pat-gone/history/")).status_code == 404
    assert (await register.b.post(f"{PATIENTS}pat-gone/restore/", json={"version": 1})).status_code == 404
    answer = await register.b.post(f"{PATIENTS}pat-shared/restore/", json={"version": 1})
    assert (answer.status_code, hospitals_of(answer)) == (200, ["hosA", "hosB", "hosC"])
    assert answer.json()["patient_profile"]["unique_id"] == "prof-shared"


async def test_restoring_leaves_hospitals_of_others(register: Register) -> None:
    """An earlier state brings back the own ones only; without any of these it is a 409."""
    path = f"{PATIENTS}pat-shared/"
    assert hospitals_of(await register.free.put(path, json={"hospital_ids": ["hosB"]})) == ["hosB"]
    assert hospitals_of(await register.both.put(path, json={"hospital_ids": ["hosA"]})) == ["hosA"]
    answer = await register.b.post(f"{path}restore/", json={"version": 1})
    assert answer.status_code == 404
    answer = await register.a.post(f"{path}restore/", json={"version": 1})
    assert (answer.status_code, hospitals_of(answer)) == (200, ["hosA"])
    answer = await register.a.post(f"{path}restore/", json={"version": 2})
    assert answer.status_code == 409
    assert "limited to" in answer.json()["detail"]
    assert hospitals_of(await register.both.post(f"{path}restore/", json={"version": 2})) == ["hosB"]


@pytest.mark.parametrize("method", ["PUT", "DELETE", "POST"])
async def test_wall_that_rises_while_a_change_waits(
    register: Register, connection: asyncpg.Connection, method: str
) -> None:
    """A change that waits for the patient's lock looks again: it was moved to another hospital meanwhile."""
    path = f"{PATIENTS}pat-a/"
    body = {"version": 1} if method == "POST" else {"patient_last_name": "Changed"}
    async with connection.transaction():
        await connection.execute("UPDATE patients SET version = version + 1 WHERE unique_id = 'pat-a'")
        change = register.a.request(method, f"{path}restore/" if method == "POST" else path, json=body)
        waiting = asyncio.create_task(change)
        await await_blocked(connection)
        await connection.execute("UPDATE patient_hospitals SET hospital_id = 'hosB' WHERE patient_id = 'pat-a'")
    assert (await waiting).status_code == 404
    assert (await register.b.get(path)).json()["patient_last_name"] == "a"
