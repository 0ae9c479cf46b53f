"""What the tests of the FHIR interface share: the official schema, invariants and examples, and resources."""

import gzip
import json
from functools import cache
from pathlib import Path
from typing import Any

import fhirpathpy
import httpx
import jsonschema_rs
from fhirpathpy.models import models

Json = dict[str, Any]
FHIR = "/fhir"
PATIENT = f"{FHIR}/Patient"
MEDIA_TYPE = "application/fhir+json"
UNIQUE_ID = "urn:patients-api:unique-id"
R4: Json = json.loads(gzip.decompress((Path(__file__).parent / "r4/r4.json.gz").read_bytes()))
"""The parts of the specification that `r4/collect.py` has collected."""
_VALIDATOR = jsonschema_rs.Draft6Validator(R4["schema"])
_PLACES = {"ContactPoint": ("Patient.telecom",), "Reference": ("Patient.managingOrganization",)}
"""Where resources have elements of the types that have invariants of their own, as far as the service sends them."""
_OTHER_INVARIANTS = frozenset(
    {"ele-1", "ext-1", "ref-1"} | {f"dom-{n}" for n in range(2, 6)} | {f"bdl-{n}" for n in range(9, 13)}
)
"""Invariants that `empty_parts` checks for all elements at once, or about resources that the service never sends."""
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


@cache
def _invariants(resource_type: str) -> list[tuple[str, Any]]:
    """Return the invariants of a type, each with its key and as a function that evaluates it."""
    found = {}
    for path, by_key in R4["invariants"].items():
        places = _PLACES.get(path, (path,))
        for key, expression in by_key.items():
            for place in places:
                if place.partition(".")[0] == resource_type and key not in _OTHER_INVARIANTS:
                    found[f"{key} of {place}"] = f"{place}.all({expression})"
    return [(key, fhirpathpy.compile(text, models["r4"])) for key, text in found.items()]


def empty_parts(node: Any, path: str) -> list[str]:
    """Return the paths of elements without content, and of extensions that do not have exactly a value or parts."""
    found = []
    if node in ({}, [], "", None):
        found.append(path)
    if isinstance(node, dict):
        if "url" in node and path.rpartition(".")[2].startswith("extension"):
            values = [name for name in node if name.startswith("value")]
            found += [] if len(values) + ("extension" in node) == 1 else [path]
        for name, value in node.items():
            found += empty_parts(value, f"{path}.{name}")
    elif isinstance(node, list):
        for index, value in enumerate(node):
            found += empty_parts(value, f"{path}[{index}]")
    return found


def check_resource(resource: Json, *, with_invariants: bool = True) -> None:
    """Check a resource, and those in it, against the official JSON schema and the invariants of its type."""
    errors = [f"{list(error.instance_path)}: {error.message[:200]}" for error in _VALIDATOR.iter_errors(resource)]
    assert errors == [], json.dumps(resource)[:2000]
    kind = resource["resourceType"]
    assert empty_parts(resource, kind) == []
    for key, holds in _invariants(kind) if with_invariants else ():
        assert holds(resource, {"resource": resource}) in ([True], []), (key, resource)
    for entry in resource.get("entry", ()):
        for part in (entry.get("resource"), entry.get("response", {}).get("outcome")):
            if part is not None:
                check_resource(part, with_invariants=with_invariants)


def checked(response: httpx.Response, status: int = 200, *, with_invariants: bool = True) -> Json:
    """Return the resource in a response after checking it and the status. Checking the invariants takes longer."""
    assert response.status_code == status, response.text
    assert response.headers["Content-Type"] == MEDIA_TYPE
    resource: Json = response.json()
    check_resource(resource, with_invariants=with_invariants)
    return resource


def refusals(response: httpx.Response, status: int = 422) -> dict[str, str]:
    """Return the places of the issues in an OperationOutcome, each with the code of its error."""
    outcome = checked(response, status)
    assert outcome["resourceType"] == "OperationOutcome"
    return {
        (issue.get("expression") or issue.get("location") or [""])[0]: issue["details"]
        .get("coding", [{}])[0]
        .get("code", issue["code"])
        for issue in outcome["issue"]
    }


def found_ids(bundle: Json) -> list[str]:
    """Return the ids of the resources in a Bundle."""
    return [entry["resource"]["id"] for entry in bundle.get("entry", ())]


def is_contained(sent: Any, stored: Any) -> bool:
    """Return whether a resource has everything that was sent, whatever else it has."""
    if isinstance(sent, dict):
        return isinstance(stored, dict) and all(
            name in stored and is_contained(value, stored[name]) for name, value in sent.items()
        )
    if isinstance(sent, list):
        return isinstance(stored, list) and all(any(is_contained(item, other) for other in stored) for item in sent)
    return bool(sent == stored)


def without_server_elements(resource: Json) -> Json:
    """Return a resource without what only the service sets."""
    return {name: value for name, value in resource.items() if name not in {"id", "meta"}}
