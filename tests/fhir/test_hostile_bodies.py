"""Bodies that are wrong on purpose: a 4xx that names what is wrong without repeating it, and nothing stored."""

import json
from typing import Any

import asyncpg
import httpx
import pytest

from tests.fhir.support import FHIR, MINIMAL, PATIENT, Json, checked, refusals
from tests.support import dump_tables

MARKER = "Xhosamarker"
"""A text that must be in no response and in no table."""
GEOLOCATION = "http://hl7.org/fhir/StructureDefinition/geolocation"


def degrees(value: Any) -> Json:
    part = {"url": "latitude", "valueDecimal": value}
    return {"address": [{"city": "x", "extension": [{"url": GEOLOCATION, "extension": [part]}]}]}


ELEMENTS: dict[str, tuple[Json, set[str]]] = {
    "number as an id": ({"id": 1}, {"Patient.id"}),
    "null as an id": ({"id": None}, {"Patient.id"}),
    "null in a list": ({"name": [None, {"family": MARKER}]}, {"Patient.name[0]"}),
    "null among given names": ({"name": [{"given": ["Ann", None]}]}, {"Patient.name[0].given[1]"}),
    "numbers as names": (
        {"name": [{"family": 1, "given": [2]}]},
        {"Patient.name[0].family", "Patient.name[0].given[0]"},
    ),
    "nul": ({"name": [{"family": f"{MARKER}\u0000"}]}, {"Patient.name[0].family"}),
    "lone surrogate": ({"name": [{"family": "\ud800"}]}, {"Patient.name[0].family"}),
    "very long name": ({"name": [{"family": MARKER * 10_000}]}, {"Patient.name[0].family"}),
    "many given names": ({"name": [{"given": [MARKER] * 5000}]}, {"Patient.name[0].given"}),
    "many names": ({"name": [{"family": MARKER, "use": "old"}] * 50}, {f"Patient.name[{n}]" for n in range(50)}),
    "extension of a primitive": (
        {"_birthDate": {"extension": [{"url": "x", "valueString": MARKER}]}, "_gender": {"id": MARKER}},
        {"Patient._birthDate", "Patient._gender"},
    ),
    "extension of a repeated primitive": (
        {"name": [{"given": ["Ann"], "_given": [{"id": MARKER}]}]},
        {"Patient.name[0]._given[0]"},
    ),
    "contained": ({"contained": [{"resourceType": "Organization", "name": MARKER}]}, {"Patient.contained[0]"}),
    "reference to a contained one": (
        {"managingOrganization": {"reference": "#o"}, "contained": [{"resourceType": "Organization", "id": "o"}]},
        {"Patient.managingOrganization", "Patient.contained[0]"},
    ),
    "modifier": (
        {"modifierExtension": [{"url": "urn:not", "valueBoolean": True}]},
        {"Patient.modifierExtension[0]"},
    ),
    "modifier of a part": (
        {"name": [{"family": MARKER, "modifierExtension": [{"url": "urn:not"}]}]},
        {"Patient.name[0].modifierExtension[0]"},
    ),
    "implicit rules": ({"implicitRules": "urn:rules"}, {"Patient.implicitRules"}),
    "true as a number": (degrees(True), {"Patient.address[0].extension[0].extension[0].valueDecimal"}),
    "text as a number": (degrees("1.5"), {"Patient.address[0].extension[0].extension[0].valueDecimal"}),
    "infinite": (degrees(1e999), {"Patient.address[0].extension[0].extension[0].valueDecimal"}),
    "huge": (degrees(10**400), {"Patient.address[0].extension[0].extension[0].valueDecimal"}),
    "tiny": (degrees(1e-300), {"Patient.address[0].extension[0].extension[0].valueDecimal"}),
    "beyond the pole": (degrees(90.5), {"Patient.address[0].extension[0].extension[0].valueDecimal"}),
    "objects as texts": ({"gender": {"code": MARKER}, "birthDate": [MARKER]}, {"Patient.gender", "Patient.birthDate"}),
    "a url that is none": (
        {"extension": [{"url": [MARKER]}, {"url": None}]},
        {"Patient.extension[0]", "Patient.extension[1]"},
    ),
    "a name that is no element's": ({MARKER + " ": 1}, {"Patient.(a name that is no element's)"}),
    "other digits": ({"birthDate": "١٩٨٠-٠٥-١٧"}, {"Patient.birthDate"}),
}
"""Elements, and the places of the errors that they cause."""


async def test_wrong_elements_are_named_and_not_repeated(
    client: httpx.AsyncClient, connection: asyncpg.Connection
) -> None:
    """Each wrong element is a 422 that names it, without its value, also for an update and within a transaction."""
    before = await dump_tables(connection)
    for name, (elements, places) in ELEMENTS.items():
        resource = {"id": "p1", **MINIMAL, **elements}
        # as ASCII, because a lone surrogate cannot be encoded, and with `Infinity` as a number that is too large
        body = json.dumps(resource).replace("Infinity", "1e999")
        json_type = {"Content-Type": "application/fhir+json"}
        response = await client.post(PATIENT, content=body, headers=json_type)
        found = set(refusals(response))
        assert found == places, name
        entry = f'{{"resource":{body},"request":{{"method":"POST","url":"Patient"}}}}'
        bundle = f'{{"resourceType":"Bundle","type":"transaction","entry":[{entry}]}}'
        within = await client.post(FHIR, content=bundle, headers=json_type)
        assert {place.replace("Bundle.entry[0].resource", "Patient") for place in refusals(within)} == found, name
        for each in (response, within):
            assert MARKER not in each.text.replace(f"Patient.{MARKER}", ""), name
    assert await dump_tables(connection) == before


async def test_modifiers_are_refused_even_leniently(client: httpx.AsyncClient) -> None:
    """An element that may change the meaning of others is not left out for a lenient client."""
    for name in ("modifier", "modifier of a part", "implicit rules"):
        elements, places = ELEMENTS[name]
        response = await client.post(PATIENT, json={**MINIMAL, **elements}, headers={"Prefer": "handling=lenient"})
        assert refusals(response) == dict.fromkeys(places, "element_modifier")


BODIES: dict[str, tuple[bytes, str]] = {
    "repeated key": (b'{"resourceType":"Patient","gender":"male","gender":"female"}', "application/fhir+json"),
    "xml": (b'<Patient xmlns="http://hl7.org/fhir"/>', "application/fhir+json"),
    "nothing": (b"", "application/fhir+json"),
    "null": (b"null", "application/fhir+json"),
    "no type": (b'{"name":[{"family":"Doe"}]}', "application/fhir+json"),
    "type in lower case": (b'{"resourceType":"patient"}', "application/fhir+json"),
    "list as the type": (b'{"resourceType":["Patient"]}', "application/fhir+json"),
    "not a number": (b'{"resourceType":"Patient","x":NaN}', "application/fhir+json"),
    "thousands of digits": (b'{"resourceType":"Patient","x":%s}' % (b"1" * 5000), "application/fhir+json"),
    "deep": (b'{"resourceType":"Patient","x":%s' % (b"[" * 40_000), "application/fhir+json"),
    "latin 1": (b'{"resourceType":"Patient","name":[{"family":"M\xfcller"}]}', "application/fhir+json"),
    "utf-16": ('{"resourceType":"Patient"}'.encode("utf-16"), "application/fhir+json"),
}
"""Bodies that are no resource."""


@pytest.mark.parametrize("path", [PATIENT, FHIR, f"{PATIENT}/$match"])
async def test_bodies_that_are_no_resource(client: httpx.AsyncClient, path: str) -> None:
    """A body that is not the JSON of a resource of the right type is a 400."""
    for name, (body, media_type) in BODIES.items():
        response = await client.post(path, content=body, headers={"Content-Type": media_type})
        assert (name, refusals(response, 400)) == (name, {"": "invalid"})


async def test_unusual_but_correct_texts_come_back_equal(client: httpx.AsyncClient) -> None:
    """Whatever is a text comes back as it was sent, in the resource, in its history and by a search."""
    for number, family in enumerate(
        ("王", "😀 O'Brien", 'a"b\\c', "نور", "ﬁ", "x" * 150, "<b>&amp;</b>", "%_", "a\u0007b", "e\u0301\u0323")
    ):
        resource = {**MINIMAL, "id": f"p{number}", "name": [{"family": family}]}
        stored = checked(await client.put(f"{PATIENT}/p{number}", json=resource), 201)["name"][0]["family"]
        assert stored == checked(await client.get(f"{PATIENT}/p{number}/_history/1"))["name"][0]["family"]
        assert len(stored) == len(family) or number == 9, "texts are composed (NFC)"
        found = checked(await client.get(PATIENT, params={"family:exact": stored.replace("\\", "\\\\")}))
        assert [entry["resource"]["id"] for entry in found["entry"]] == [f"p{number}"]
