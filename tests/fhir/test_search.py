"""Searches for FHIR resources: every announced parameter and modifier, pages, totals, and what is refused."""

from collections.abc import AsyncIterator, Iterable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from app.fhir_search.parameters import RESULT_PARAMETERS, SEARCH_PARAMETERS, SORT_COLUMNS
from app.main import create_app
from app.settings import Settings
from tests.fhir.support import FHIR, PATIENT, UNIQUE_ID, Json, checked, found_ids, refusals

RECORDS: dict[str, dict[str, dict[str, Any]]] = {
    "hospitals": {
        "hos1": {"hospital_name": "General Hospital"},
        "hos2": {"hospital_name": "St. Mary's"},
    },
    "doctors": {
        "doc1": {"doctor_first_name": "Ann Mary", "doctor_last_name": "Naidoo"},
        "doc2": {"doctor_first_name": "Dr. Smith"},
    },
    "patients": {
        "pat_a": {
            "patient_first_name": "Peter James",
            "patient_last_name": "Müller",
            "patient_initials": "PJ",
            "patient_title": "Prof.",
            "patient_date_of_birth": "1980-05-17",
            "patient_gender": "Male",
            "patient_mobile_number": "082 123 4567",
            "patient_email_address": "Peter@example.com",
            "patient_town": "Cape Town",
            "patient_region": "Cape Winelands",
            "patient_province": "Western Cape",
            "patient_country": "South Africa",
            "patient_postal_code": "8001",
            "hospital_ids": ["hos1", "hos2"],
            "doctor_ids": ["doc1"],
        },
        "pat.b": {
            "patient_first_name": "Steven",
            "patient_last_name": "mulder, de",
            "patient_date_of_birth": "1981-12-31",
            "patient_gender": "Female",
            "patient_town": "Durban",
            "hospital_ids": ["hos2"],
        },
        "pat-c": {"patient_last_name": "Zulu"},
    },
}
A, B, C = "pat.-a", "pat..b", "pat-c"
FOUND: dict[str, dict[str, list[tuple[Any, list[str]]]]] = {
    "Patient": {
        "_id": [(A, [A]), (f"{A},{C},pat_a", [A, C]), ("never", [])],
        "identifier": [(f"{UNIQUE_ID}|pat_a", [A]), ("pat.b", [B]), (f"{UNIQUE_ID}|", [A, B, C]), ("urn:x|pat_a", [])],
        "_lastUpdated": [("ge2000", [A, B, C]), ("lt2000-01-01T00:00:00Z", [])],
        "active": [("true", [A, B, C]), ("false", [])],
        "deceased": [("false", [A, B, C]), ("true", [])],
        "name": [("muller", [A]), ("jam mul", [A]), ("prof", [A]), ("mul", [A, B]), ("xyz", [])],
        "name:exact": [("Müller", [A]), ("müller", []), ("Steven", [B])],
        "name:contains": [("ULLE", [A]), ("teve,ulu", [B, C]), ("r jam", [A]), ("mes", [A]), ("prof", [])],
        "family": [("MUL", [A, B]), (r"mulder\, de", [B]), ("Muller,Zulu", [A, C]), ("james", [])],
        "family:exact": [("Müller", [A]), ("Muller", []), ("müller", [])],
        "family:contains": [
            ("ül", [A, B, C]),
            ("ülle", [A]),
            (r"er\, d", [B]),
            ("de", [B]),
            ("lu", [C]),
            ("james", []),
            ("xyz", []),
            (r"\,", [B]),
            ("z", [C]),
        ],
        "family:missing": [("true", []), ("false", [A, B, C])],
        "given": [("james", [A]), ("peter james", [A]), ("pet", [A]), ("müller", []), ("eter", [])],
        "given:exact": [("Peter James", [A]), ("Peter", [])],
        "given:contains": [("eter j", [A]), ("te,ame", [A, B]), ("mull", [])],
        "given:missing": [("true", [C]), ("false", [A, B])],
        "phonetic": [("stephen", [B]), ("peetar", [A]), ("nobody", [])],
        "birthdate": [
            ("1980-05-17", [A]),
            ("1980", [A]),
            ("1980-05", [A]),
            ("ne1980-05-17", [B]),
            ("gt1980-05-17", [B]),
            ("gt1980", [B]),
            ("ge1980-05-17", [A, B]),
            ("lt1981-12-31", [A]),
            ("le1981-12-31", [A, B]),
            ("sa1980-05-16", [A, B]),
            ("eb1981", [A]),
            ("ap1982", [A, B]),
            ("1980,1981", [A, B]),
            (["ge1980", "lt1981"], [A]),
        ],
        "birthdate:missing": [("true", [C]), ("false", [A, B])],
        "gender": [("male", [A]), ("male,female", [A, B]), ("http://hl7.org/fhir/administrative-gender|female", [B])],
        "gender:missing": [("true", [C])],
        "telecom": [
            ("+27821234567", [A]),
            ("phone|0821234567", [A]),
            ("email|PETER@example.com", [A]),
            ("phone|x", []),
        ],
        "telecom:missing": [("true", [B, C]), ("false", [A])],
        "phone": [("0821234567", [A]), ("peter@example.com", [])],
        "phone:missing": [("false", [A])],
        "email": [("peter@example.com", [A]), ("0821234567", [])],
        "email:missing": [("true", [B, C])],
        "address": [("cape", [A]), ("8001", [A]), ("dur,western", [A, B]), ("town", [])],
        "address:contains": [("own", [A]), ("winel,URB", [A, B]), ("00", [A]), ("cape", [A]), ("xyz", [])],
        "address:exact": [("Durban", [B]), ("durban", [])],
        "address-city": [("cape t", [A])],
        "address-city:contains": [("e t", [A]), ("r", [B]), ("winel", [])],
        "address-city:exact": [("Cape Town", [A]), ("Cape", [])],
        "address-city:missing": [("true", [C])],
        "address-state": [("western", [A])],
        "address-state:contains": [("n c", [A])],
        "address-state:exact": [("Western Cape", [A])],
        "address-state:missing": [("false", [A])],
        "address-country": [("south", [A])],
        "address-country:contains": [("africa", [A])],
        "address-country:exact": [("South Africa", [A])],
        "address-country:missing": [("false", [A])],
        "address-postalcode": [("80", [A])],
        "address-postalcode:contains": [("01", [A]), ("9", [])],
        "address-postalcode:exact": [("8001", [A])],
        "address-postalcode:missing": [("false", [A])],
        "organization": [
            ("hos2", [A, B]),
            ("Organization/hos1", [A]),
            (f"http://patients.test{FHIR}/Organization/hos1", [A]),
            (["hos1", "hos2"], [A]),
            ("hos9", []),
        ],
        "organization:missing": [("true", [C]), ("false", [A, B])],
        "general-practitioner": [("Practitioner/doc1", [A]), ("doc2", [])],
        "general-practitioner:missing": [("true", [B, C])],
    },
    "Practitioner": {
        "_id": [("doc1", ["doc1"])],
        "identifier": [("doc2", ["doc2"])],
        "_lastUpdated": [("ge2000", ["doc1", "doc2"])],
        "active": [("true", ["doc1", "doc2"])],
        "name": [("naidoo", ["doc1"]), ("smith", ["doc2"])],
        "name:exact": [("Naidoo", ["doc1"])],
        "name:contains": [("MIT", ["doc2"])],
        "family": [("nai", ["doc1"])],
        "family:exact": [("naidoo", [])],
        "family:contains": [("doo", ["doc1"])],
        "family:missing": [("true", ["doc2"])],
        "given": [("mary", ["doc1"])],
        "given:exact": [("Dr. Smith", ["doc2"])],
        "given:contains": [("nn m", ["doc1"])],
    },
    "Organization": {
        "_id": [("hos1", ["hos1"])],
        "identifier": [("hos2", ["hos2"])],
        "_lastUpdated": [("ge2000", ["hos1", "hos2"])],
        "active": [("true", ["hos1", "hos2"])],
        "name": [("general", ["hos1"]), ("hospital", [])],
        "name:exact": [("St. Mary's", ["hos2"])],
        "name:contains": [("hosp", ["hos1"])],
    },
}
"""Values for each parameter, by resource type and with each modifier, and the resources that are found."""
SORTED = {
    "Patient": {
        "_id": [C, B, A],
        "-_id": [A, B, C],
        "_lastUpdated": [A, B, C],
        "-_lastUpdated": [C, B, A],
        "family": [B, A, C],
        "-family": [C, A, B],
        "given": [A, B, C],
        "-given": [B, A, C],
        "birthdate": [A, B, C],
        "-birthdate": [B, A, C],
    },
    "Practitioner": {
        "_id": ["doc1", "doc2"],
        "-_id": ["doc2", "doc1"],
        "family": ["doc1", "doc2"],
        "-family": ["doc1", "doc2"],
        "given": ["doc1", "doc2"],
        "-given": ["doc2", "doc1"],
    },
    "Organization": {
        "_id": ["hos1", "hos2"],
        "-_id": ["hos2", "hos1"],
        "name": ["hos1", "hos2"],
        "-name": ["hos2", "hos1"],
    },
}
"""The order by each announced parameter and direction. Resources without a value come last in either."""


@pytest.fixture(scope="module")
async def searched(module_database_url: str) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client of a service with the `RECORDS`, which all tests of this file share."""
    app: FastAPI = create_app(Settings.model_validate({"database_url": module_database_url, "auth": "off"}))
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://patients.test") as client:
            for resource, records in RECORDS.items():
                for unique_id, body in records.items():
                    response = await client.post(f"/{resource}/{resource}/", json={"unique_id": unique_id, **body})
                    assert response.status_code == 201, response.text
            yield client


async def search(client: httpx.AsyncClient, kind: str, parameters: Iterable[tuple[str, Any]], method: str) -> Json:
    """Return the Bundle that a search by GET or POST finds."""
    pairs = [
        (name, value) for name, values in parameters for value in (values if isinstance(values, list) else [values])
    ]
    if method == "GET":
        return checked(await client.get(f"{FHIR}/{kind}", params=pairs), with_invariants=False)
    body = httpx.QueryParams(pairs)
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    return checked(
        await client.post(f"{FHIR}/{kind}/_search", content=str(body), headers=headers), with_invariants=False
    )


def test_every_announced_parameter_is_tried() -> None:
    """`FOUND` has values for each parameter of each type, with each of its modifiers."""
    announced = {
        kind: {
            name if not modifier else f"{name}:{modifier}"
            for name, parameter in parameters.items()
            for modifier in ("", *parameter.all_modifiers)
        }
        for kind, parameters in SEARCH_PARAMETERS.items()
    }
    assert {kind: set(found) for kind, found in FOUND.items()} == announced


@pytest.mark.parametrize("kind", FOUND)
async def test_parameters_find_what_they_say(searched: httpx.AsyncClient, kind: str) -> None:
    """Each value finds exactly the resources that it describes, by GET and by POST."""
    got, expected = {}, {}
    for name, cases in FOUND[kind].items():
        for number, (value, ids) in enumerate(cases):
            method = ("GET", "POST")[number % 2]
            got[name, str(value)] = found_ids(await search(searched, kind, [(name, value)], method))
            expected[name, str(value)] = sorted(ids, key=[A, B, C, *ids].index)
    assert {key: sorted(ids) for key, ids in got.items()} == {key: sorted(ids) for key, ids in expected.items()}


REFUSED: dict[str, str] = {
    "unknown=1": "http.unknown",
    "birthDate=1980": "http.birthDate",
    "email:contains=x": "http.email:contains",
    "family:contains=a,b,c,d,e,f,g,h,i": "http.family:contains",
    "family:fuzzy=x": "http.family:fuzzy",
    "gender:exact=male": "http.gender:exact",
    "gender=Male": "http.gender",
    "family=": "http.family",
    "family=a,,b": "http.family",
    "family=%00": "http.family",
    f"family={'x' * 201}": "http.family",
    "family:missing=yes": "http.family:missing",
    "birthdate=17/05/1980": "http.birthdate",
    "birthdate=1980-13": "http.birthdate",
    "birthdate=1980-05-17T10:00:00Z": "http.birthdate",
    "birthdate=0001": "http.birthdate",
    "_lastUpdated=now": "http._lastUpdated",
    "organization=Practitioner/doc1": "http.organization",
    "active=yes": "http.active",
    "phonetic=two words": "http.phonetic",
    "_count=x": "http._count",
    "_count=1&_count=2": "http._count",
    "_sort=gender": "http._sort",
    "_total=exact": "http._total",
    "_totalMethod=accurate": "http._totalMethod",
    "_total=none&_totalMethod=count": "http._total",
    "_elements=id,birthdate": "http._elements",
    "name=a b c d e f g h i": "http.name",
    f"address={','.join('x' * 41)}": "http.address",
    "&".join(f"name={','.join(['a b c d e f g h'] * 10)}" for _ in range(3)): "http.name",
    "phonetic=a,b,c,d,e,f,g,h,i": "http.phonetic",
    "_summary=true": "http._summary",
    "_elements=a b": "http._elements",
    "_include=Patient:organization": "http._include",
    "_cursor=x": "http._cursor",
    "organization.name=x": "http.organization.name",
}


@pytest.mark.parametrize("query", REFUSED, ids=lambda query: query[:40])
async def test_wrong_parameters_are_refused_by_name(searched: httpx.AsyncClient, query: str) -> None:
    """A parameter that is unknown or has a wrong value is a 400 that names it."""
    response = await searched.get(f"{PATIENT}?{query}")
    assert list(refusals(response, 400)) == [REFUSED[query]]


async def test_pages_follow_links_without_parameters_in_the_clear(searched: httpx.AsyncClient) -> None:
    """The links of a search lead to all pages, and contain no value of a parameter."""
    for method in ("GET", "POST"):
        bundle = await search(
            searched, "Patient", [("family", "mul,zulu"), ("_sort", "-family"), ("_count", 1)], method
        )
        walked, urls = found_ids(bundle), [link["url"] for link in bundle["link"]]
        while following := next((link["url"] for link in bundle["link"] if link["relation"] == "next"), None):
            bundle = checked(await searched.get(following))
            walked += found_ids(bundle)
            urls += [link["url"] for link in bundle["link"]]
        assert walked == [C, A, B]
        assert not any("mul" in url or "family" in url for url in urls)
    own = next(link["url"] for link in bundle["link"] if link["relation"] == "self")
    assert found_ids(checked(await searched.get(own))) == [B]
    other = await searched.get(f"{FHIR}/Organization?{own.partition('?')[2]}")
    assert refusals(other, 400) == {"http._cursor": "parameter_value"}
    contradicting = await searched.get(f"{own}&family=zulu")
    assert refusals(contradicting, 400) == {"http._cursor": "parameter_value"}


async def test_parameters_too_long_for_a_link(searched: httpx.AsyncClient) -> None:
    """Many values are searched for, but an address of another page that would be too long is refused by name."""
    ids = ",".join([A, B, C, *(f"{'x' * 60}{number}" for number in range(40))])
    pairs = [("_id", ids)] * 3
    assert sorted(found_ids(await search(searched, "Patient", pairs, "POST"))) == sorted([A, B, C])
    response = await searched.get(PATIENT, params=[*pairs, ("_count", "1")])
    assert refusals(response, 400) == {"http._id": "parameter_value"}


@pytest.mark.parametrize("kind", SORT_COLUMNS)
async def test_resources_are_sorted(searched: httpx.AsyncClient, kind: str) -> None:
    """Each announced parameter sorts in both directions."""
    got = {
        f"{sign}{name}": found_ids(await search(searched, kind, [("_sort", f"{sign}{name}")], "GET"))
        for name in SORT_COLUMNS[kind]
        for sign in ("", "-")
    }
    assert got == SORTED[kind]


async def test_totals_and_counts(searched: httpx.AsyncClient) -> None:
    """`_total=accurate` adds the total, and `_summary=count` and `_count=0` return it alone."""
    one = await search(searched, "Patient", [("family", "mul"), ("_total", "accurate"), ("_count", "1")], "GET")
    assert (one["total"], len(one["entry"])) == (2, 1)
    for alone in (("_summary", "count"), ("_count", "0")):
        bundle = await search(searched, "Patient", [("family", "mul"), alone], "POST")
        assert (bundle["total"], "entry" in bundle) == (2, False)
    everybody = await search(searched, "Patient", [("_summary", "count")], "GET")
    assert everybody["total"] == 3
    assert "total" not in await search(searched, "Patient", [("_total", "none")], "GET")


async def test_elements_select_parts(searched: httpx.AsyncClient) -> None:
    """`_elements` returns the chosen elements of resources that are marked as incomplete."""
    bundle = await search(searched, "Patient", [("_id", A), ("_elements", "birthDate,active")], "GET")
    (resource,) = (entry["resource"] for entry in bundle["entry"])
    assert resource.keys() == {"resourceType", "id", "meta", "birthDate", "active"}
    assert resource["meta"]["tag"][0]["code"] == "SUBSETTED"


async def test_a_search_by_post_has_its_parameters_in_the_body(searched: httpx.AsyncClient) -> None:
    """Parameters in the URL of a POST are refused, and other bodies than forms are a 415."""
    path = f"{PATIENT}/_search"
    assert refusals(await searched.post(f"{path}?family=x"), 400) == {"http.family": "parameter"}
    assert refusals(await searched.post(path, json={}), 415) == {"": "not-supported"}
    assert len(found_ids(checked(await searched.post(f"{path}?_format=json")))) == 3


_RESULTS = {"_count", "_sort", "_total", "_totalMethod", "_summary", "_elements", "_format"}


def test_every_result_parameter_is_described() -> None:
    """The parameters that control results are those that the capability statement and the guide describe."""
    assert RESULT_PARAMETERS.keys() == _RESULTS
