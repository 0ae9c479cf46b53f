"""Changes on a condition: versions that a client knows, identifiers, and keys of repeated requests."""

import httpx

from app.main import create_app
from app.settings import Settings
from tests.fhir.support import FHIR, MINIMAL, PATIENT, UNIQUE_ID, checked, found_ids, refusals


async def test_preconditions_compare_versions(client: httpx.AsyncClient) -> None:
    """`If-Match` and `If-None-Match` take the version as FHIR clients write it."""
    created = checked(await client.post(PATIENT, json=MINIMAL), 201)
    path, body = f"{PATIENT}/{created['id']}", {**MINIMAL, "id": created["id"]}
    not_modified = await client.get(path, headers={"If-None-Match": 'W/"1"'})
    assert (not_modified.status_code, not_modified.content) == (304, b"")
    assert (await client.get(path, headers={"If-None-Match": 'W/"2"'})).status_code == 200
    changed = await client.put(path, json={**body, "gender": "other"}, headers={"If-Match": 'W/"1"'})
    assert changed.headers["ETag"] == 'W/"2"'
    assert refusals(await client.put(path, json=body, headers={"If-Match": 'W/"1"'}), 412) == {"": "conflict"}
    assert refusals(await client.delete(path, headers={"If-Match": 'W/"1"'}), 412) == {"": "conflict"}
    absent = await client.put(f"{PATIENT}/absent", json={**body, "id": "absent"}, headers={"If-Match": 'W/"1"'})
    assert refusals(absent, 404) == {"": "not-found"}
    assert (await client.delete(path, headers={"If-Match": 'W/"2"'})).status_code == 204


async def test_conditional_creation(client: httpx.AsyncClient) -> None:
    """`If-None-Exist` creates a patient once, and then returns it."""
    resource = {**MINIMAL, "identifier": [{"system": UNIQUE_ID, "value": "pat_9"}]}
    condition = {"If-None-Exist": f"identifier={UNIQUE_ID}|pat_9"}
    created = checked(await client.post(PATIENT, json=resource, headers=condition), 201)
    again = checked(await client.post(PATIENT, json={**resource, "gender": "male"}, headers=condition))
    assert again == created
    wrong = await client.post(PATIENT, json=resource, headers={"If-None-Exist": "family=Doe"})
    assert refusals(wrong, 400) == {"http.If-None-Exist": "parameter"}


async def test_conditional_update(client: httpx.AsyncClient) -> None:
    """An update of the patient with an identifier creates the patient if there is none."""
    resource = {**MINIMAL, "identifier": [{"system": UNIQUE_ID, "value": "pat_9"}]}
    path = f"{PATIENT}?identifier={UNIQUE_ID}|pat_9"
    assert checked(await client.put(path, json=resource), 201)["id"] == "pat.-9"
    assert checked(await client.put(path, json={**resource, "gender": "male"}))["meta"]["versionId"] == "2"
    assert refusals(await client.put(path, json={**resource, "id": "other"}), 400) == {"": "invalid"}
    assert refusals(await client.put(f"{PATIENT}?family=Doe", json=resource), 400) == {"http.identifier": "parameter"}


async def test_a_condition_matches_nobody_or_one_or_is_refused(client: httpx.AsyncClient) -> None:
    """A condition that several patients meet is a 412, and one without a value a 400; neither stores anything."""
    for unique_id, country in (("one", "ZA"), ("two", "NA")):
        extension = {"url": "urn:patients-api:extension:country", "valueString": country}
        passport = {"system": "urn:patients-api:identifier:passport", "value": "A123456", "extension": [extension]}
        resource = {**MINIMAL, "id": unique_id, "identifier": [passport]}
        checked(await client.put(f"{PATIENT}/{unique_id}", json=resource), 201)
    for condition, status, code in (
        ("identifier=A123456", 412, "too_many_matches"),
        ("identifier=", 400, "parameter_value"),
        (f"identifier={UNIQUE_ID}|", 400, "parameter_value"),
        ("identifier=a|b|c", 400, "parameter_value"),
        ("identifier:exact=A123456", 400, "parameter"),
        ("identifier=A1&identifier=A123456", 400, "parameter"),
        ("", 400, "parameter"),
    ):
        created = await client.post(PATIENT, json=MINIMAL, headers={"If-None-Exist": condition})
        assert refusals(created, status) == {"request" if status == 412 else "http.If-None-Exist": code}
        entry = {"resource": MINIMAL, "request": {"method": "POST", "url": "Patient", "ifNoneExist": condition or "?"}}
        within = await client.post(FHIR, json={"resourceType": "Bundle", "type": "transaction", "entry": [entry]})
        path = "Bundle.entry[0]" if status == 412 else "Bundle.entry[0].request.ifNoneExist"
        assert refusals(within, 412 if status == 412 else 422) == {path: code}
        if condition:
            updated = await client.put(f"{PATIENT}?{condition}", json=MINIMAL)
            assert refusals(updated, status) == {"request" if status == 412 else "http.identifier": code}
    assert len(found_ids(checked(await client.get(PATIENT)))) == 2


async def test_conditional_updates_need_if_match_where_the_operator_requires_it(database_url: str) -> None:
    """If the service requires `If-Match`, an update on a condition needs it, too, and a creation does not."""
    settings = Settings.model_validate({"database_url": database_url, "auth": "off", "require_if_match": True})
    app = create_app(settings)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    resource = {**MINIMAL, "identifier": [{"system": UNIQUE_ID, "value": "pat_9"}]}
    path = f"{PATIENT}?identifier={UNIQUE_ID}|pat_9"
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://patients.test") as client,
    ):
        checked(await client.put(path, json=resource), 201)
        assert refusals(await client.put(path, json=resource), 428) == {"": "required"}
        bundle = {"resource": resource, "request": {"method": "PUT", "url": path.removeprefix(f"{FHIR}/")}}
        transaction = {"resourceType": "Bundle", "type": "transaction", "entry": [bundle]}
        assert refusals(await client.post(FHIR, json=transaction), 428) == {"Bundle.entry[0]": "entry_refused"}
        checked(await client.put(path, json=resource, headers={"If-Match": 'W/"1"'}))


async def test_an_idempotency_key_creates_once(client: httpx.AsyncClient) -> None:
    """A repeated creation with the same key gets the response to the first one."""
    responses = [await client.post(PATIENT, json=MINIMAL, headers={"Idempotency-Key": "k"}) for _ in range(2)]
    first, second = (checked(response, 201) for response in responses)
    assert first == second
    assert responses[1].headers["Idempotency-Replayed"] == "true"
