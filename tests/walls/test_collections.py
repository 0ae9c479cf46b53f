"""Lists, creating and the directory, by every principal; pages of what is hidden."""

import httpx
import pytest

from tests.auth.support import PATIENTS, PROFILES
from tests.walls.conftest import Register, patient
from tests.walls.test_matrix import DIRECTORY, NAMES, PREFIXES, PRINCIPALS, SEEN, told


@pytest.mark.usefixtures("records")
@pytest.mark.parametrize("query", ["", "?limit=1", "?cursor=Mg", "?limit=5&cursor=MQ", "?cursor=eHg", "?limit=0"])
async def test_pages_of_the_hidden_are_as_of_the_absent(register: Register, query: str) -> None:
    """Also in the middle of a history, and with parameters that are wrong."""
    for name in ("b", "lost", "none"):
        for path in (f"{PATIENTS}pat-{{}}/history/", f"{PATIENTS}pat-{{}}/access/", f"{PROFILES}prof-{{}}/history/"):
            hidden, absent = [await register.a.get(path.format(which) + query) for which in (name, "never")]
            assert told(hidden) == told(absent)
            assert hidden.status_code in {404, 422}


@pytest.mark.usefixtures("records")
@pytest.mark.parametrize("who", PRINCIPALS)
async def test_collections(register: Register, who: str) -> None:
    """Lists hold what is seen and nothing else; taken and free ids are the same to who may not choose them."""
    client: httpx.AsyncClient = getattr(register, who)
    for resource, prefix in PREFIXES.items():
        seen = [f"{prefix}-{name}" for name, how in sorted(SEEN[resource][who].items()) if how != "deleted"]
        assert [record["unique_id"] for record in (await client.get(resource)).json()] == seen
        for number in range(1, len(seen) + 2):
            page = await client.get(f"{resource}?limit={number}")
            assert [record["unique_id"] for record in page.json()] == seen[:number]
            assert ("next" in page.links) == (number < len(seen))
        if who != "free":
            attempts = [
                told(
                    await client.post(
                        resource,
                        json={"unique_id": f"{prefix}-{name}", "first_name": "Ann"}
                        if resource == PROFILES
                        else patient(name, "hosA", "hosB"),
                    )
                )
                for name in (*NAMES, "never")
            ]
            assert attempts == attempts[:1] * len(attempts)
            assert attempts[0][0] == 403
    assert (await client.get("/audit/")).status_code == (200 if who == "free" else 403)
    new = await client.post(PATIENTS, json={"patient_last_name": "New", "hospital_ids": ["hosB", "hosA"]})
    assert new.status_code == {"a": 422, "b": 422, "both": 201, "free": 201}[who]


async def test_the_directory_has_no_walls(register: Register) -> None:
    """Hospitals and doctors, there for everybody alike."""
    for who, client in register._asdict().items():
        for operation, rule in DIRECTORY.items():
            if operation.startswith("create_"):
                made = await client.post(rule.path, json={**(rule.body or {}), "unique_id": f"one-{who}"})
                assert made.status_code == 201
        for operation, rule in DIRECTORY.items():
            if not operation.startswith("create_"):
                path = rule.path.replace("/one/", f"/one-{who}/")
                answer = await client.request(rule.method, path, json=rule.body)
                assert (who, operation, answer.status_code) == (who, operation, rule.status)


async def test_patients_of_several_hospitals_fill_one_place_of_a_page(register: Register) -> None:
    """However many of a principal's hospitals a patient has, pages are full and end where the list does."""
    for name in ("0", "1", "2"):
        assert (await register.free.post(PATIENTS, json=patient(name, "hosA", "hosB"))).status_code == 201
    whole = [record["unique_id"] for record in (await register.both.get(PATIENTS)).json()]
    assert len(whole) == 6
    for limit in range(1, 7):
        sizes, found, url = [], [], f"{PATIENTS}?limit={limit}"
        while url:
            page = await register.both.get(url)
            sizes.append(len(page.json()))
            found += [record["unique_id"] for record in page.json()]
            url = page.links.get("next", {}).get("url", "")
        assert found == whole
        assert sizes[:-1] == [limit] * (len(sizes) - 1)
