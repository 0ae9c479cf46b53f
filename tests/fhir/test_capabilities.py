"""The CapabilityStatement against the behaviour: what it announces works, and what it does not announce is refused."""

import httpx

from app.fhir_search.parameters import SEARCH_PARAMETERS
from tests.fhir.support import FHIR, UNIQUE_ID, checked, refusals

PATIENT = {"resourceType": "Patient", "name": [{"family": "Doe"}]}
TYPES = ("Patient", "Practitioner", "Organization")
REQUESTS: dict[str, tuple[str, str]] = {
    "read": ("GET", "{type}/one"),
    "vread": ("GET", "{type}/one/_history/1"),
    "history-instance": ("GET", "{type}/one/_history"),
    "history-type": ("GET", "{type}/_history"),
    "search-type": ("GET", "{type}"),
    "create": ("POST", "{type}"),
    "update": ("PUT", "{type}/one"),
    "patch": ("PATCH", "{type}/one"),
    "delete": ("DELETE", "{type}/one"),
}
"""A request for each interaction with a type that FHIR has."""
SYSTEM_REQUESTS = {
    "transaction": ("POST", ""),
    "batch": ("POST", ""),
    "search-system": ("GET", "?_type=Patient"),
    "history-system": ("GET", "/_history"),
}


async def create_one(client: httpx.AsyncClient) -> None:
    """Create a resource of each type with the id `one`."""
    for resource, body in (
        ("hospitals", {"hospital_name": "General"}),
        ("doctors", {"doctor_first_name": "Ann"}),
        ("patients", {"patient_last_name": "Doe"}),
    ):
        response = await client.post(f"/{resource}/{resource}/", json={"unique_id": "one", **body})
        assert response.status_code == 201


async def test_the_statement_is_a_valid_resource(client: httpx.AsyncClient) -> None:
    """The statement is valid, and has every definition of a search parameter."""
    statement = checked(await client.get(f"{FHIR}/metadata"))
    assert statement["fhirVersion"] == "4.0.1"
    resources = {resource["type"]: resource for resource in statement["rest"][0]["resource"]}
    announced = {kind: {each["name"] for each in resource["searchParam"]} for kind, resource in resources.items()}
    assert announced == {kind: set(parameters) for kind, parameters in SEARCH_PARAMETERS.items()}
    assert resources["Patient"]["conditionalCreate"] is True
    assert "conditionalCreate" not in resources["Organization"]


async def test_announced_interactions_work_and_others_are_refused(client: httpx.AsyncClient) -> None:
    """Each interaction that the statement announces for a type succeeds; each other one is a 404 or 405."""
    await create_one(client)
    statement = checked(await client.get(f"{FHIR}/metadata"))
    (rest,) = statement["rest"]
    announced = {resource["type"]: {each["code"] for each in resource["interaction"]} for resource in rest["resource"]}
    assert announced.keys() == set(TYPES)
    for kind in (*TYPES, "Observation"):
        for code, (method, path) in REQUESTS.items():
            body = {**PATIENT, "resourceType": kind, **({"id": "one"} if code == "update" else {})}
            sent = body if method in {"POST", "PUT", "PATCH"} else None
            response = await client.request(method, f"{FHIR}/{path.format(type=kind)}", json=sent)
            if code in announced.get(kind, ()):
                assert response.status_code in {200, 201, 204}, (kind, code, response.text)
            else:
                assert response.status_code in {404, 405}, (kind, code)
                refusals(response, response.status_code)


async def test_announced_parameters_are_known_and_others_are_refused(client: httpx.AsyncClient) -> None:
    """Each announced parameter is accepted for its type; those of other types are refused by name."""
    values = {"date": "2000", "string": "x", "token": "true", "reference": "x"}
    statement = checked(await client.get(f"{FHIR}/metadata"))
    announced = {
        resource["type"]: {each["name"]: each["type"] for each in resource["searchParam"]}
        for resource in statement["rest"][0]["resource"]
    }
    every_name = {name: kind for parameters in announced.values() for name, kind in parameters.items()}
    for resource_type, parameters in announced.items():
        for name, kind in {**every_name, "death-date": "date", "_text": "string", "_has": "string"}.items():
            value = "male" if name == "gender" else values[kind]
            response = await client.get(f"{FHIR}/{resource_type}", params={name: value})
            if name in parameters:
                checked(response, with_invariants=False)
            else:
                assert refusals(response, 400) == {f"http.{name}": "parameter"}


async def test_conditional_interactions_are_announced_where_they_work(client: httpx.AsyncClient) -> None:
    """Conditional creation and update work for patients, and conditional deletion is refused as announced."""
    statement = checked(await client.get(f"{FHIR}/metadata"))
    patient = next(each for each in statement["rest"][0]["resource"] if each["type"] == "Patient")
    features = ("conditionalCreate", "conditionalUpdate", "updateCreate", "conditionalDelete", "conditionalRead")
    assert [patient[name] for name in features] == [True, True, True, "not-supported", "not-match"]
    deletion = await client.delete(f"{FHIR}/Patient?identifier={UNIQUE_ID}|one")
    refusals(deletion, 405)
