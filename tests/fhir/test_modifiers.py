"""Parameters as clients may write them: every modifier, chains, formats, preferences and methods."""

import httpx
import pytest

from app.fhir_search.parameters import ELEMENTS, SEARCH_PARAMETERS
from tests.fhir.support import FHIR, MINIMAL, PATIENT, R4, checked, found_ids, refusals

MODIFIERS = (
    *("missing", "exact", "contains", "text", "not", "in", "not-in", "above", "below", "identifier", "ofType"),
    *("Organization", "iterate", "Exact", ""),
)
"""All modifiers of FHIR R4, a type, and some that are none."""
VALUES = {"date": "2000", "string": "xyz", "token": "true", "reference": "x"}


@pytest.mark.parametrize("kind", SEARCH_PARAMETERS)
async def test_announced_modifiers_work_and_others_are_refused(client: httpx.AsyncClient, kind: str) -> None:
    """The statement names the modifiers of each parameter. Each of them works, and any other is refused by name."""
    statement = checked(await client.get(f"{FHIR}/metadata"))
    (resource,) = (each for each in statement["rest"][0]["resource"] if each["type"] == kind)
    for parameter in resource["searchParam"]:
        announced = parameter["documentation"].partition("Modifiers: ")[2]
        for modifier in MODIFIERS:
            full_name = f"{parameter['name']}:{modifier}"
            value = "true" if modifier == "missing" else VALUES[parameter["type"]]
            response = await client.get(f"{FHIR}/{kind}", params={full_name: value})
            if f":{modifier}" in announced.rstrip(".").split(", "):
                checked(response, with_invariants=False)
            else:
                (place,) = refusals(response, 400)
                assert place in {f"http.{full_name}", "http.(a name that is no parameter's)"}, full_name


@pytest.mark.parametrize(
    "name", ["organization.name", "general-practitioner:Practitioner.family", "_has:Observation:patient:code", "link.x"]
)
async def test_chains_are_refused_by_name(client: httpx.AsyncClient, name: str) -> None:
    """A parameter of another resource is refused, so that it cannot be ignored."""
    (place,) = refusals(await client.get(PATIENT, params={name: "x"}), 400)
    assert place in {f"http.{name}", "http.(a name that is no parameter's)"}


async def test_repeated_parameters_must_all_match_and_listed_values_need_not(client: httpx.AsyncClient) -> None:
    """A repetition means and, a comma means or, and an escaped comma is a part of the value. Prefixes are for dates."""
    for unique_id, family, gender in (("a", "Ann, Doe", "male"), ("b", "Ann", "female"), ("c", "Doe", "male")):
        resource = {**MINIMAL, "id": unique_id, "name": [{"family": family}], "gender": gender}
        checked(await client.put(f"{PATIENT}/{unique_id}", json=resource), 201)
    expected = {
        "family=ann&gender=male": ["a"],
        "family=ann&family=doe": [],
        "family=ann,doe": ["a", "b", "c"],
        "family=ann%5C,%20doe": ["a"],
        "family=ann,doe&gender=male&gender=male,female": ["a", "c"],
        "family=geann": [],
        "family:contains=nn,oe&given:missing=true": ["a", "b", "c"],
    }
    for query, ids in expected.items():
        assert found_ids(checked(await client.get(f"{PATIENT}?{query}"))) == ids, query
    for wrong in ("gender=nemale", "active=netrue", "birthdate=ge", "birthdate=xx1980"):
        assert list(refusals(await client.get(f"{PATIENT}?{wrong}"), 400)) == [f"http.{wrong.partition('=')[0]}"]


def test_elements_are_those_of_the_specification() -> None:
    """The names that `_elements` takes are the elements of the official schema, and no others."""
    for kind, names in ELEMENTS.items():
        properties = R4["schema"]["definitions"][kind]["properties"]
        assert names == {name for name in properties if not name.startswith("_") and name != "resourceType"}


async def test_formats_are_json_or_refused(client: httpx.AsyncClient) -> None:
    """The format is JSON of FHIR R4, by parameter or header, in the query or in the body; anything else is a 406."""
    for accept in (
        "*/*",
        "application/*",
        "text/html, application/json;q=0.5",
        "application/fhir+json; fhirVersion=4.0",
    ):
        checked(await client.get(PATIENT, headers={"Accept": accept}))
    for accept in ("text/html", "application/fhir+json;q=0", "application/fhir+json; fhirVersion=5.0", "x"):
        refusals(await client.get(PATIENT, headers={"Accept": accept}), 406)
    for format_name in ("json", "application/json", "application/fhir%2Bjson"):
        checked(await client.get(f"{PATIENT}?_format={format_name}", headers={"Accept": "text/html"}))
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    for format_name in ("xml", "", "html"):
        refusals(await client.get(f"{PATIENT}?_format={format_name}"), 406)
        refusals(await client.post(f"{PATIENT}/_search", content=f"_format={format_name}", headers=form), 406)
    versioned = {"Content-Type": "application/fhir+json; fhirVersion=4.0"}
    checked(await client.post(PATIENT, json=MINIMAL, headers=versioned), 201)
    for media_type in ("application/fhir+xml", "application/fhir+json; fhirVersion=3.0", "text/json", ""):
        refusals(await client.post(PATIENT, json=MINIMAL, headers={"Content-Type": media_type}), 415)


async def test_preferences_are_known_or_refused(client: httpx.AsyncClient) -> None:
    """An unknown value of a preference is refused before anything is stored; other preferences are ignored."""
    for wrong in ("return=everything", "return", "handling=loose", "return=minimal, handling=x"):
        response = await client.post(PATIENT, json=MINIMAL, headers={"Prefer": wrong})
        assert refusals(response) == {"http.Prefer": "literal_error"}
    assert found_ids(checked(await client.get(PATIENT))) == []
    several = {"Prefer": 'respond-async, Return="minimal"; handling=lenient'}
    response = await client.post(PATIENT, json={**MINIMAL, "photo": [{"url": "x"}]}, headers=several)
    assert (response.status_code, response.content) == (201, b"")
    assert response.headers["Elements-Left-Out"] == "Patient.photo[0]"


async def test_other_methods_are_as_http_has_them(client: httpx.AsyncClient) -> None:
    """HEAD is GET without a body; methods that a path does not have are a 405 that lists those that it has."""
    created = checked(await client.post(PATIENT, json=MINIMAL), 201)
    for path in (f"{PATIENT}/{created['id']}", f"{PATIENT}/{created['id']}/_history", PATIENT, f"{FHIR}/metadata"):
        response = await client.head(path)
        assert (response.status_code, response.content) == (200, b"")
        assert response.headers["Content-Type"] == "application/fhir+json"
    for method, path in (("OPTIONS", PATIENT), ("PATCH", f"{PATIENT}/x"), ("DELETE", PATIENT), ("TRACE", PATIENT)):
        response = await client.request(method, path)
        assert response.status_code == 405
        assert "GET" in response.headers["Allow"]


async def test_queries_that_are_no_text_are_refused(client: httpx.AsyncClient) -> None:
    """Bytes that are not UTF-8 are a 400, in a query and in a form."""
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    assert refusals(await client.get(f"{PATIENT}?family=%FF"), 400) == {"": "invalid"}
    assert refusals(await client.post(f"{PATIENT}/_search", content=b"family=%FF", headers=form), 400) == {
        "": "invalid"
    }
