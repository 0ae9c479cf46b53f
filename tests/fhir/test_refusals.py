"""What the register cannot hold is refused by name, and a lenient request lists what was left out."""

import httpx
import pytest

from tests.fhir.support import MINIMAL, PATIENT, UNIQUE_ID, Json, checked, refusals

PATIENTS = "/patients/patients/"


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
