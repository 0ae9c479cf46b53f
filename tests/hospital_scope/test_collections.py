"""Lists, creation and the directory for every principal, and pages about hidden records."""

import httpx
import pytest

from tests.auth.support import PATIENTS, PROFILES
from tests.hospital_scope.conftest import ScopedClients, patient_body
from tests.hospital_scope.test_access_matrix import (
    DIRECTORY_RULES,
    ID_PREFIXES,
    PRINCIPAL_NAMES,
    RECORD_NAMES,
    RELATIONS_BY_PRINCIPAL,
    comparable_response,
)


@pytest.mark.usefixtures("deleted_records")
@pytest.mark.parametrize("query", ["", "?limit=1", "?cursor=Mg", "?limit=5&cursor=MQ", "?cursor=eHg", "?limit=0"])
async def test_history_pages_of_hidden_and_absent_records_are_identical(
    scoped_clients: ScopedClients, query: str
) -> None:
    """Pages about hidden records equal those about absent ones, also within a history and with invalid parameters."""
    for name in ("b", "lost", "none"):
        for path in (f"{PATIENTS}pat-{{}}/history/", f"{PATIENTS}pat-{{}}/access/", f"{PROFILES}prof-{{}}/history/"):
            hidden, absent = [await scoped_clients.a.get(path.format(which) + query) for which in (name, "never")]
            assert comparable_response(hidden) == comparable_response(absent)
            assert hidden.status_code in {404, 422}


@pytest.mark.usefixtures("deleted_records")
@pytest.mark.parametrize("principal", PRINCIPAL_NAMES)
async def test_lists_and_creation_reveal_no_hidden_record(scoped_clients: ScopedClients, principal: str) -> None:
    """Lists, also of deleted records, have the visible ones; who may not choose ids gets the same 403 for all ids."""
    client: httpx.AsyncClient = getattr(scoped_clients, principal)
    for resource, prefix in ID_PREFIXES.items():
        seen = [
            f"{prefix}-{name}"
            for name, how in sorted(RELATIONS_BY_PRINCIPAL[resource][principal].items())
            if how != "deleted"
        ]
        assert [record["unique_id"] for record in (await client.get(resource)).json()] == seen
        for number in range(1, len(seen) + 2):
            page = await client.get(f"{resource}?limit={number}")
            assert [record["unique_id"] for record in page.json()] == seen[:number]
            assert ("next" in page.links) == (number < len(seen))
        everyone = {"unique_id": [f"{prefix}-{name}" for name in (*RECORD_NAMES, "never")], "ordering": "-unique_id"}
        assert [record["unique_id"] for record in (await client.get(resource, params=everyone)).json()] == seen[::-1]
        if resource == PROFILES:
            filters = {"email__startswith": [f"{name}@" for name in RECORD_NAMES], "ordering": "-email"}
            found = await client.post(f"{PROFILES}search/", json=filters)
            named = [each for each in seen[::-1] if each != "prof-free"]
            assert [record["unique_id"] for record in found.json()] == named
        deleted = {
            f"{prefix}-{name}" for name, how in RELATIONS_BY_PRINCIPAL[resource][principal].items() if how == "deleted"
        }
        hidden = await client.get(f"{resource}?deleted=true&count=exact")
        assert {record["unique_id"] for record in hidden.json()} == deleted
        assert hidden.headers["X-Total-Count"] == str(len(deleted))
        if principal != "free":
            attempts = [
                comparable_response(
                    await client.post(
                        resource,
                        json={"unique_id": f"{prefix}-{name}", "first_name": "Ann"}
                        if resource == PROFILES
                        else patient_body(name, "hosA", "hosB"),
                    )
                )
                for name in (*RECORD_NAMES, "never")
            ]
            assert attempts == attempts[:1] * len(attempts)
            assert attempts[0][0] == 403
    assert (await client.get("/audit/")).status_code == (200 if principal == "free" else 403)
    new = await client.post(PATIENTS, json={"patient_last_name": "New", "hospital_ids": ["hosB", "hosA"]})
    assert new.status_code == {"a": 422, "b": 422, "both": 201, "free": 201}[principal]


async def test_hospitals_and_doctors_are_not_scoped(scoped_clients: ScopedClients) -> None:
    """All principals have the same access to hospitals and doctors."""
    for principal, client in scoped_clients._asdict().items():
        for operation, rule in DIRECTORY_RULES.items():
            if operation.startswith("create_"):
                made = await client.post(rule.path, json={**(rule.body or {}), "unique_id": f"one-{principal}"})
                assert made.status_code == 201
        for operation, rule in DIRECTORY_RULES.items():
            if not operation.startswith("create_"):
                path = rule.path.replace("/one/", f"/one-{principal}/")
                response = await client.request(rule.method, path, json=rule.body)
                assert (principal, operation, response.status_code) == (principal, operation, rule.status)


async def test_patients_of_several_hospitals_are_listed_once(scoped_clients: ScopedClients) -> None:
    """A patient of several of a principal's hospitals is listed once, in pages that are full until the list ends."""
    for name in ("0", "1", "2"):
        assert (await scoped_clients.free.post(PATIENTS, json=patient_body(name, "hosA", "hosB"))).status_code == 201
    whole = [record["unique_id"] for record in (await scoped_clients.both.get(PATIENTS)).json()]
    assert len(whole) == 6
    for limit in range(1, 7):
        sizes, found, url = [], [], f"{PATIENTS}?limit={limit}"
        while url:
            page = await scoped_clients.both.get(url)
            sizes.append(len(page.json()))
            found += [record["unique_id"] for record in page.json()]
            url = page.links.get("next", {}).get("url", "")
        assert found == whole
        assert sizes[:-1] == [limit] * (len(sizes) - 1)
