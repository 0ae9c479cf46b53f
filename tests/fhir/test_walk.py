"""A random walk over all routes: every response is a valid resource, and what is stored is what was sent."""

import random
import unicodedata
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest

from app.fhir_search.parameters import RESULT_PARAMETERS, SEARCH_PARAMETERS
from tests.fhir.support import FHIR, MEDIA_TYPE, PATIENT, UNIQUE_ID, Json, check_resource, is_contained

STEPS = 150
TEXTS = (
    "Doe",
    "O'Brien",
    "王",
    'a"b\\c',
    " van der Merwe ",
    "\u200b",
    "x" * 300,
    "a\nb",
    "😀 ok",
    "e\u0301",
    "\0",
    "",
    1,
    None,
)
IDS = ("p1", "p.-2", "p..3", "pat-4", "p.x", "never", "_history")
DATES = ("1980-05-17", "1980", "1980-05", "1980-02-30", "2999-01-01", "0001-01-01", "17 May", 1980)
EXTENSIONS = ("race", "race", "access-to-medical-care", "access-to-medical-care", "profile", "unknown")


class Walk:
    """Draws requests. The same seed draws the same requests."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)  # noqa: S311  # not a secret

    def maybe(self, value: Any, share: float = 0.5) -> list[Any]:
        return [value] if self.random.random() < share else []

    def text(self) -> Any:
        return self.random.choice(TEXTS[:5] * 12 + TEXTS)

    def patient(self) -> Json:
        """Return a Patient of which the register can often hold everything."""
        draw = self.random
        name = {"family": self.text(), "use": draw.choice(("official",) * 9 + ("usual",))}
        elements: Json = {
            "name": [{**name, "given": ["Ann", *self.maybe(self.text(), 0.05)], "prefix": self.maybe("Dr.") or ["Ms"]}],
            "gender": draw.choice(("male", "female", "other", "unknown", "x")),
            "birthDate": draw.choice(DATES[:1] * 5 + DATES),
            "telecom": self.maybe({"system": "phone", "value": draw.choice(("0821234567", "+27 82 123 4567", "x"))})
            + self.maybe({"system": "email", "value": "a@example.com", **dict.fromkeys(self.maybe("rank", 0.2), 1)}),
            "address": [{"line": ["1 Main", *self.maybe(self.text())], "city": self.text()}],
            "extension": [{"url": f"urn:patients-api:extension:{draw.choice(EXTENSIONS)}", "valueString": self.text()}],
            "managingOrganization": {"reference": f"Organization/{draw.choice(('hos123', 'hos456', 'never'))}"},
            "generalPractitioner": self.maybe({"reference": "Practitioner/doc123"}),
            "identifier": self.maybe({"system": "urn:patients-api:identifier:other", "value": self.text()}, 0.3),
            "active": True,
            "photo": [{"title": self.text()}],
        }
        kept = {
            key: value
            for key, value in elements.items()
            if value != [] and draw.random() < (0.05 if key == "photo" else 0.3)
        }
        return {"resourceType": "Patient", "name": elements["name"], **kept}

    def search(self, kind: str) -> list[tuple[str, str]]:
        values = (
            "doe",
            "Ann",
            "1980",
            "ge1980-05",
            "male",
            "true",
            "hos123",
            "Organization/hos123",
            "|",
            "\\,",
            "a,b",
            "",
        )
        names = [*SEARCH_PARAMETERS[kind], *RESULT_PARAMETERS, "unknown", "family:exact", "name:missing", "_cursor"]
        return [(self.random.choice(names), self.random.choice(values)) for _ in range(self.random.randrange(3))]

    def request(self) -> tuple[str, str, dict[str, Any]]:
        """Return the method, the path and the other arguments of a request."""
        draw, unique_id, kind = self.random, self.random.choice(IDS), self.random.choice(list(SEARCH_PARAMETERS))
        patient, version = self.patient(), draw.choice(("1", "2", "9", "x"))
        tag = draw.choice((f'W/"{version}"', "*", "x"))
        headers = {draw.choice(("If-Match", "If-None-Match", "Prefer", "Accept")): tag for _ in self.maybe(1, 0.2)}
        headers |= dict(self.maybe(("Prefer", draw.choice(("handling=lenient", "return=minimal"))), 0.2))
        updated = {**patient, "id": unique_id}
        entries = [
            {"resource": each, "request": {"method": method, "url": url}}
            for each, method, url in ((patient, "POST", "Patient"), (updated, "PUT", f"Patient/{unique_id}"))
        ]
        bundle = {"resourceType": "Bundle", "type": draw.choice(("batch", "transaction", "other")), "entry": entries}
        parameters = {"resourceType": "Parameters", "parameter": [{"name": "resource", "resource": patient}]}
        condition = f"identifier={UNIQUE_ID}|{draw.choice(('p1', 'p_2', 'never'))}"
        form: dict[str, Any] = {"content": urlencode(self.search(kind))}
        requests: list[tuple[str, str, dict[str, Any]]] = (
            [("POST", PATIENT, {"json": patient, "headers": headers})] * 4
            + [("PUT", f"{PATIENT}/{unique_id}", {"json": updated, "headers": headers})] * 6
            + [("GET", f"{PATIENT}/{unique_id}", {"headers": headers})] * 2
            + [("GET", f"{FHIR}/{kind}", {"params": self.search(kind)})] * 4
            + [
                (
                    "POST",
                    f"{FHIR}/{kind}/_search",
                    {**form, "headers": {"Content-Type": "application/x-www-form-urlencoded"}},
                ),
                ("GET", f"{PATIENT}/{unique_id}/_history", {"params": {"_count": version}}),
                ("GET", f"{PATIENT}/{unique_id}/_history/{version}", {}),
                ("GET", f"{FHIR}/Organization/{unique_id}", {}),
                ("DELETE", f"{PATIENT}/{unique_id}", {"headers": headers}),
                ("POST", PATIENT, {"json": patient, "headers": {"If-None-Exist": condition}}),
                ("PUT", f"{PATIENT}?{condition}", {"json": patient}),
                ("POST", FHIR, {"json": bundle, "headers": headers}),
                ("POST", f"{PATIENT}/$match", {"json": parameters}),
                ("PATCH", f"{PATIENT}/{unique_id}", {"json": patient}),
                ("GET", f"{FHIR}/metadata", {}),
            ]
        )
        return draw.choice(requests)


def normalized(node: Any) -> Any:
    """Return a resource with texts as the register normalizes them: trimmed and composed."""
    if isinstance(node, dict):
        return {key: normalized(value) for key, value in node.items()}
    if isinstance(node, list):
        return [normalized(value) for value in node]
    return unicodedata.normalize("NFC", node.strip()) if isinstance(node, str) else node


@pytest.mark.usefixtures("hospitals_and_doctors")
@pytest.mark.parametrize("seed", range(2))
async def test_every_response_of_a_random_walk_is_valid(client: httpx.AsyncClient, seed: int) -> None:
    """No request fails, each response is a valid resource, and a resource that is stored has all that was sent."""
    walk, statuses, stored = Walk(seed), set(), 0
    for _ in range(STEPS):
        method, path, arguments = walk.request()
        response = await client.request(method, path, **arguments)
        assert response.status_code < 500, (method, path, arguments)
        statuses.add(response.status_code)
        if not response.content:
            assert response.status_code in {200, 201, 204, 304}
            continue
        assert response.headers["Content-Type"] == MEDIA_TYPE
        resource = response.json()
        check_resource(resource, with_invariants=method != "GET" or len(resource.get("entry", ())) < 4)
        sent = arguments.get("json", {})
        is_lenient = "lenient" in arguments.get("headers", {}).get("Prefer", "")
        is_stored = response.status_code in {200, 201} and resource["resourceType"] == "Patient"
        if (
            method in {"POST", "PUT"}
            and is_stored
            and not is_lenient
            and "If-None-Exist" not in arguments.get("headers", {})
        ):
            stored += 1
            expected = {key: value for key, value in normalized(sent).items() if key != "meta"}
            assert is_contained(expected, normalized(resource)), (sent, resource)
    assert {200, 201, 400, 404, 405, 422} <= statuses
    assert stored >= 5
