"""Errors that are not about elements: every status has an OperationOutcome."""

import httpx

from tests.fhir.support import FHIR, PATIENT, refusals


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
