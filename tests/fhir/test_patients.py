"""Patients as FHIR resources: read, versions, create, update, conditions, delete, and what the register cannot hold."""

from typing import Any

import httpx
import pytest

from app.main import create_app
from app.settings import Settings
from tests.fhir.support import FHIR, MEDIA_TYPE, PATIENT, UNIQUE_ID, Json, checked, is_contained, refusals
from tests.support import EXAMPLE_PATIENT

PATIENTS = "/patients/patients/"
MINIMAL = {"resourceType": "Patient", "name": [{"family": "Doe"}]}
FULL: Json = {
    "resourceType": "Patient",
    "extension": [
        {"url": "urn:patients-api:extension:race", "valueString": "Caucasian"},
        {"url": "urn:patients-api:extension:access-to-medical-care", "valueString": "Public"},
        {
            "url": "urn:patients-api:extension:profile",
            "extension": [
                {"url": "uniqueId", "valueString": "prof123"},
                {"url": "email", "valueString": "user@example.com"},
                {"url": "firstName", "valueString": "John"},
                {"url": "lastName", "valueString": "Doe"},
            ],
        },
        {
            "url": "urn:patients-api:extension:hospital",
            "valueReference": {"reference": "Organization/hos456", "display": "St. Mary's"},
        },
    ],
    "identifier": [{"system": UNIQUE_ID, "value": "pat_123"}],
    "active": True,
    "name": [
        {
            "use": "official",
            "family": "Doe",
            "given": ["John"],
            "prefix": ["Mr."],
            "extension": [{"url": "urn:patients-api:extension:initials", "valueString": "J"}],
        }
    ],
    "telecom": [
        {"system": "phone", "value": "+123456789", "use": "mobile"},
        {"system": "email", "value": "patient@example.com"},
    ],
    "gender": "male",
    "birthDate": "1980-01-01",
    "address": [
        {
            "type": "physical",
            "line": ["123 Street Name", "Apt 101"],
            "city": "Sample Town",
            "district": "Sample Region",
            "state": "Sample Province",
            "postalCode": "12345",
            "country": "Sample Country",
            "extension": [
                {
                    "url": "http://hl7.org/fhir/StructureDefinition/geolocation",
                    "extension": [
                        {"url": "latitude", "valueDecimal": 12.345678},
                        {"url": "longitude", "valueDecimal": -12.345678},
                    ],
                }
            ],
        }
    ],
    "generalPractitioner": [{"reference": "Practitioner/doc123", "display": "Dr. Smith"}],
    "managingOrganization": {"reference": "Organization/hos123", "display": "General Hospital"},
}
"""The contract's example patient as a resource, without what the service adds."""


def without_server_elements(resource: Json) -> Json:
    """Return a resource without what only the service sets."""
    return {name: value for name, value in resource.items() if name not in {"id", "meta"}}


@pytest.mark.usefixtures("hospitals_and_doctors")
async def test_a_patient_of_the_contract_is_a_resource(client: httpx.AsyncClient) -> None:
    """Every field of the contract's example is in the resource, with its version in the headers."""
    body = {"unique_id": "pat_123", **EXAMPLE_PATIENT}
    created = await client.post(PATIENTS, json=body)
    assert created.status_code == 201
    response = await client.get(f"{PATIENT}/pat.-123")
    resource = checked(response)
    assert without_server_elements(resource) == FULL
    assert resource["id"] == "pat.-123"
    assert resource["meta"] == {"versionId": "1", "lastUpdated": created.json()["last_updated"]}
    assert response.headers["ETag"] == 'W/"1"'
    assert response.headers["Last-Modified"].endswith("GMT")


@pytest.mark.usefixtures("hospitals_and_doctors")
async def test_a_resource_becomes_a_patient_of_the_contract(client: httpx.AsyncClient) -> None:
    """Creating the resource stores what creating the contract's example stores, and the response contains it."""
    response = await client.post(PATIENT, json=FULL, headers={"Content-Type": MEDIA_TYPE})
    resource = checked(response, 201)
    assert without_server_elements(resource) == FULL
    assert response.headers["Location"] == f"http://patients.test{PATIENT}/pat.-123/_history/1"
    record = (await client.get(f"{PATIENTS}pat_123/")).json()
    links = {"hospital_ids": ["hos123", "hos456"], "doctor_ids": ["doc123"]}
    assert {**{name: record[name] for name in EXAMPLE_PATIENT if name in record}, **links} == EXAMPLE_PATIENT


async def test_an_update_replaces_the_whole_resource(client: httpx.AsyncClient) -> None:
    """An update clears what the resource does not have, and a repeated one changes nothing."""
    sent = {**MINIMAL, "birthDate": "1980-01-01", "gender": "female"}
    created = checked(await client.post(PATIENT, json=sent), 201)
    path = f"{PATIENT}/{created['id']}"
    update = {**MINIMAL, "id": created["id"], "gender": "female"}
    for version in ("2", "2"):
        updated = checked(await client.put(path, json=update))
        assert updated["meta"]["versionId"] == version
        assert "birthDate" not in updated
    assert checked(await client.get(path)) == updated


async def test_a_resource_that_was_read_can_be_sent_back(client: httpx.AsyncClient) -> None:
    """Sending back a resource as it was read changes nothing, whatever the patient has."""
    bodies: list[dict[str, Any]] = [
        {"patient_first_name": "Ann Mary  Eve"},
        {"patient_address_line_1": "Apt 1", "patient_last_name": "Doe"},
        {"patient_latitude": "1.5", "patient_last_name": 'D"oe\\\n\t'},
        {"patient_last_name": "王", "patient_profile": {"unique_id": "p1"}},
    ]
    for number, body in enumerate(bodies):
        await client.post(PATIENTS, json={"unique_id": f"p~{number}", **body})
        path = f"{PATIENT}/p.t{number}"
        read = checked(await client.get(path))
        assert checked(await client.put(path, json=read)) == (
            read if number else {**read, "meta": {**read["meta"], "versionId": "2", "lastUpdated": mock_any()}}
        )


class mock_any:  # noqa: N801  # it stands for a value
    """Equals everything."""

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]


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


async def test_versions_and_history(client: httpx.AsyncClient) -> None:
    """The history lists all versions, newest first, in pages; a deleted patient is gone but has a history."""
    path = f"{PATIENT}/pat1"
    for family, status in (("Doe", 201), ("Roe", 200), ("Poe", 200)):
        resource = {"resourceType": "Patient", "id": "pat1", "name": [{"family": family}]}
        checked(await client.put(path, json=resource), status)
    assert (await client.delete(path)).status_code == 204
    assert refusals(await client.get(path), 410) == {"": "deleted"}
    assert refusals(await client.get(f"{path}/_history/4"), 410) == {"": "deleted"}
    assert refusals(await client.get(f"{path}/_history/5"), 404) == {"": "not-found"}
    assert refusals(await client.get(f"{path}/_history/x"), 404) == {"": "not-found"}
    first = await client.get(f"{path}/_history/1")
    assert checked(first)["name"][0]["family"] == "Doe"
    assert first.headers["ETag"] == 'W/"1"'
    seen, url = [], f"{path}/_history?_count=3"
    while url:
        bundle = checked(await client.get(url))
        assert bundle["type"] == "history"
        seen += [
            (entry["request"]["method"], entry["resource"]["name"][0]["family"] if "resource" in entry else None)
            for entry in bundle["entry"]
        ]
        url = next((link["url"] for link in bundle["link"] if link["relation"] == "next"), "")
    assert seen == [("DELETE", None), ("PUT", "Poe"), ("PUT", "Roe"), ("PUT", "Doe")]
    retired = await client.put(path, json={**MINIMAL, "id": "pat1"})
    assert refusals(retired, 409) == {"": "conflict"}


@pytest.mark.usefixtures("hospitals_and_doctors")
async def test_earlier_versions_show_what_was_linked(client: httpx.AsyncClient) -> None:
    """An earlier version has all elements, with references and profile by id alone."""
    checked(await client.post(PATIENT, json=FULL), 201)
    now = await client.put(f"{PATIENT}/pat.-123", json={**MINIMAL, "id": "pat.-123"})
    assert "extension" not in checked(now)
    earlier = checked(await client.get(f"{PATIENT}/pat.-123/_history/1"))
    assert is_contained(without_server_elements(earlier), FULL)
    assert earlier["managingOrganization"] == {"reference": "Organization/hos123"}
    assert earlier.keys() - {"id", "meta"} == FULL.keys()


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


REFUSED: dict[str, tuple[Json, dict[str, str]]] = {
    "unknown": (
        {"photo": [{"url": "x"}], "x": 1},
        {"Patient.photo[0]": "element_refused", "Patient.x": "element_refused"},
    ),
    "narrative": ({"text": {"status": "generated"}}, {"Patient.text": "element_refused"}),
    "inactive": ({"active": False}, {"Patient.active": "element_refused"}),
    "deceased": ({"deceasedBoolean": False}, {"Patient.deceasedBoolean": "element_refused"}),
    "meta": ({"meta": {"versionId": "7", "tag": [{"code": "x"}]}}, {"Patient.meta.tag[0]": "element_refused"}),
    "identifier": ({"identifier": [{"system": "urn:x", "value": "1"}]}, {"Patient.identifier[0]": "element_refused"}),
    "partial date": ({"birthDate": "1980-05"}, {"Patient.birthDate": "element_refused"}),
    "wrong date": ({"birthDate": "1980-02-30"}, {"Patient.birthDate": "date"}),
    "future": ({"birthDate": "9999-01-01"}, {"Patient.birthDate": "date_in_future"}),
    "text as date": ({"birthDate": "yesterday"}, {"Patient.birthDate": "date"}),
    "birth time": ({"_birthDate": {"extension": [{"url": "x"}]}}, {"Patient._birthDate": "element_refused"}),
    "gender": ({"gender": "Male"}, {"Patient.gender": "code_invalid"}),
    "no name": ({"name": []}, {"Patient.name": "element_empty"}),
    "name of marks": ({"name": [{"family": "\u200b"}]}, {"Patient.name[0].family": "element_empty"}),
    "null": ({"gender": None}, {"Patient.gender": "element_empty"}),
    "number": ({"gender": 1}, {"Patient.gender": "element_type"}),
    "object for list": ({"name": {"family": "Doe"}}, {"Patient.name": "element_type"}),
    "text for object": ({"name": ["Doe"]}, {"Patient.name[0]": "element_type"}),
    "other use": ({"name": [{"use": "usual", "family": "Doe"}]}, {"Patient.name[0]": "element_refused"}),
    "two names": (
        {"name": [{"family": "Doe"}, {"use": "maiden", "family": "Roe"}]},
        {"Patient.name[1]": "element_refused"},
    ),
    "suffix": ({"name": [{"family": "Doe", "suffix": ["Jr"]}]}, {"Patient.name[0].suffix[0]": "element_refused"}),
    "two words": ({"name": [{"given": ["Ann Mary"]}]}, {"Patient.name[0].given[0]": "element_refused"}),
    "two titles": (
        {"name": [{"family": "D", "prefix": ["Dr", "Mr"]}]},
        {"Patient.name[0].prefix[1]": "element_refused"},
    ),
    "long name": ({"name": [{"family": "x" * 200}]}, {"Patient.name[0].family": "string_too_long"}),
    "work phone": (
        {"telecom": [{"system": "phone", "value": "0821234567", "use": "work"}]},
        {"Patient.telecom[0]": "element_refused"},
    ),
    "two phones": (
        {"telecom": [{"system": "phone", "value": "0821234567"}, {"system": "phone", "value": "0831234567"}]},
        {"Patient.telecom[1]": "element_refused"},
    ),
    "rank": (
        {"telecom": [{"system": "phone", "value": "0821234567", "rank": 1}]},
        {"Patient.telecom[0].rank": "element_refused"},
    ),
    "wrong phone": ({"telecom": [{"system": "phone", "value": "abc"}]}, {"Patient.telecom[0].value": "mobile_number"}),
    "three lines": ({"address": [{"line": ["a", "b", "c"]}]}, {"Patient.address[0].line[2]": "element_refused"}),
    "postal address": ({"address": [{"type": "postal", "city": "x"}]}, {"Patient.address[0].type": "element_refused"}),
    "two addresses": ({"address": [{"city": "x"}, {"city": "y"}]}, {"Patient.address[1]": "element_refused"}),
    "fine degrees": (
        {
            "address": [
                {
                    "city": "x",
                    "extension": [
                        {
                            "url": "http://hl7.org/fhir/StructureDefinition/geolocation",
                            "extension": [{"url": "latitude", "valueDecimal": 1.23456789}],
                        }
                    ],
                }
            ]
        },
        {"Patient.address[0].extension[0].extension[0].valueDecimal": "element_refused"},
    ),
    "unknown hospital": (
        {"managingOrganization": {"reference": "Organization/never"}},
        {"Patient.managingOrganization.reference": "unknown_hospital"},
    ),
    "unknown doctor": (
        {"generalPractitioner": [{"reference": "Practitioner/never"}]},
        {"Patient.generalPractitioner[0].reference": "unknown_doctor"},
    ),
    "foreign reference": (
        {"managingOrganization": {"reference": "https://example.org/Organization/hos123", "display": "x"}},
        {"Patient.managingOrganization": "element_refused"},
    ),
    "other type": (
        {"generalPractitioner": [{"reference": "Organization/hos123"}]},
        {"Patient.generalPractitioner[0]": "element_refused"},
    ),
    "main hospital": (
        {
            "managingOrganization": {"reference": "Organization/hos456"},
            "extension": [
                {"url": "urn:patients-api:extension:hospital", "valueReference": {"reference": "Organization/hos123"}}
            ],
        },
        {"Patient.managingOrganization": "element_refused"},
    ),
    "hospital without managing one": (
        {
            "extension": [
                {"url": "urn:patients-api:extension:hospital", "valueReference": {"reference": "Organization/hos123"}}
            ]
        },
        {"Patient.managingOrganization": "element_refused"},
    ),
    "phone without a number": ({"telecom": [{"system": "phone"}]}, {"Patient.telecom[0]": "element_refused"}),
    "identifier without a value": (
        {"identifier": [{"system": UNIQUE_ID}]},
        {"Patient.identifier[0]": "element_refused"},
    ),
    "race without a value": (
        {"extension": [{"url": "urn:patients-api:extension:race"}]},
        {"Patient.extension[0]": "element_refused"},
    ),
    "empty hospital": (
        {"extension": [{"url": "urn:patients-api:extension:hospital"}]},
        {"Patient.extension[0]": "element_refused"},
    ),
    "address without a part": ({"address": [{"type": "physical"}]}, {"Patient.address[0]": "element_refused"}),
    "another display": (
        {"managingOrganization": {"reference": "Organization/hos123", "display": "Other Hospital"}},
        {"Patient.managingOrganization.display": "element_refused"},
    ),
    "display alone": (
        {"managingOrganization": {"display": "General Hospital"}},
        {"Patient.managingOrganization": "element_refused"},
    ),
}
"""Elements that a patient cannot have, with the places and the codes of the errors."""


@pytest.fixture(scope="module")
def expected_refusals() -> dict[str, dict[str, str]]:
    return {name: errors for name, (_, errors) in REFUSED.items()}


@pytest.mark.usefixtures("hospitals_and_doctors")
async def test_what_the_register_cannot_hold_is_refused_by_name(
    client: httpx.AsyncClient, expected_refusals: dict[str, dict[str, str]]
) -> None:
    """Each element that the register cannot hold is named with its path, and nothing is stored."""
    responses = {
        name: await client.post(PATIENT, json={**MINIMAL, **elements}) for name, (elements, _) in REFUSED.items()
    }
    assert {name: refusals(response) for name, response in responses.items()} == expected_refusals
    assert (await client.get(PATIENTS)).json() == []


@pytest.mark.usefixtures("hospitals_and_doctors")
async def test_a_lenient_request_lists_what_was_left_out(client: httpx.AsyncClient) -> None:
    """`Prefer: handling=lenient` stores what the register can hold, and lists the rest; errors remain errors."""
    lenient = {"Prefer": "handling=lenient"}
    for name, (elements, errors) in REFUSED.items():
        response = await client.post(PATIENT, json={**MINIMAL, "gender": "other", **elements}, headers=lenient)
        left_out = {path for path, code in errors.items() if code == "element_refused"}
        if left_out != errors.keys():
            assert response.status_code == 422, name
        elif name in {"other use", "two words"}:  # nothing is left of the name
            assert "name_missing" in refusals(response).values()
        else:
            assert response.status_code == 201, (name, response.text)
            assert set(response.headers["Elements-Left-Out"].split(", ")) == left_out
            warnings = [issue for issue in checked(response, 201)["issue"] if issue["severity"] == "warning"]
            assert {issue["expression"][0] for issue in warnings} == left_out


async def test_preferences_for_the_response(client: httpx.AsyncClient) -> None:
    """`Prefer: return=…` chooses the body of the response."""
    bodies = {}
    for preferred in ("minimal", "representation", "OperationOutcome"):
        response = await client.post(PATIENT, json=MINIMAL, headers={"Prefer": f"return={preferred}"})
        assert response.status_code == 201
        bodies[preferred] = response.json()["resourceType"] if response.content else None
    assert bodies == {"minimal": None, "representation": "Patient", "OperationOutcome": "OperationOutcome"}
    wrong = await client.post(PATIENT, json=MINIMAL, headers={"Prefer": "handling=loose"})
    assert refusals(wrong) == {"http.Prefer": "literal_error"}


async def test_the_id_in_the_body_is_that_of_the_path(client: httpx.AsyncClient) -> None:
    """An update needs the id in the body, and it must be the one in the path."""
    for body in (MINIMAL, {**MINIMAL, "id": "other"}):
        assert refusals(await client.put(f"{PATIENT}/pat1", json=body), 400) == {"": "invalid"}
    escape = await client.put(f"{PATIENT}/a.x", json={**MINIMAL, "id": "a.x"})
    assert refusals(escape, 400) == {"": "invalid"}


async def test_errors_of_every_status_are_outcomes(client: httpx.AsyncClient) -> None:
    """Errors of the framework, too, are OperationOutcomes below `/fhir`."""
    json_type = {"Content-Type": "application/json"}
    responses = {
        "not json": (await client.post(PATIENT, content=b"{", headers=json_type), 400, "invalid"),
        "another type": (await client.post(PATIENT, json={"resourceType": "Group"}), 400, "invalid"),
        "no type": (await client.post(PATIENT, json=[]), 400, "invalid"),
        "unknown id": (await client.get(f"{PATIENT}/never"), 404, "not-found"),
        "no such path": (await client.get(f"{FHIR}/Observation"), 404, "not-found"),
        "escaped slash": (await client.get(f"{PATIENT}/a%2fb"), 404, "not-found"),
        "no such method": (await client.delete(PATIENT), 405, "not-supported"),
        "create of an organization": (await client.post(f"{FHIR}/Organization", json={}), 405, "not-supported"),
        "xml": (await client.get(PATIENT, headers={"Accept": "application/fhir+xml"}), 406, "not-supported"),
        "format": (await client.get(f"{PATIENT}?_format=xml"), 406, "not-supported"),
        "too large": (await client.post(PATIENT, content=b" " * 2**21, headers=json_type), 413, "too-long"),
        "media type": (
            await client.post(PATIENT, content=b"{}", headers={"Content-Type": "text/plain"}),
            415,
            "not-supported",
        ),
    }
    for name, (response, status, code) in responses.items():
        assert (name, refusals(response, status)) == (name, {"": code})
    unknown = await client.get(f"{PATIENT}/never?_pretty=true&x=1")
    assert refusals(unknown, 400) == {"http._pretty": "parameter", "http.x": "parameter"}
