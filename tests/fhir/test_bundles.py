"""Bundles of the types batch and transaction: all or nothing, outcomes by entry, conditions, limits."""

from typing import Any

import asyncpg
import httpx
import pytest

from tests.fhir.support import FHIR, PATIENT, UNIQUE_ID, Json, checked, found_ids, refusals
from tests.support import dump_tables


def patient(family: str, **elements: Any) -> Json:
    return {"resourceType": "Patient", "name": [{"family": family}], **elements}


def create(family: str, **request: str) -> Json:
    return {"resource": patient(family), "request": {"method": "POST", "url": "Patient", **request}}


def update(unique_id: str, family: str, **request: str) -> Json:
    resource = patient(family, id=unique_id)
    return {"resource": resource, "request": {"method": "PUT", "url": f"Patient/{unique_id}", **request}}


def bundle(kind: str, *entries: Json) -> Json:
    return {"resourceType": "Bundle", "type": kind, "entry": list(entries)}


async def test_a_transaction_stores_all_entries(client: httpx.AsyncClient) -> None:
    """Creations, updates and conditional changes of a transaction are stored together, and the response says how."""

    def named(name: str, **elements: Any) -> Json:
        return patient("Poe", identifier=[{"system": UNIQUE_ID, "value": name}], **elements)

    def unless_there(name: str) -> Json:
        condition = f"identifier={UNIQUE_ID}|{name}"
        return {"resource": named(name), "request": {"method": "POST", "url": "Patient", "ifNoneExist": condition}}

    checked(await client.post(PATIENT, json=named("p3")), 201)
    checked(await client.post(PATIENT, json=named("p4")), 201)
    entries = [
        update("p1", "Roe"),
        {
            "resource": named("p4", gender="male"),
            "request": {"method": "PUT", "url": f"Patient?identifier={UNIQUE_ID}|p4"},
        },
        {**create("Doe"), "fullUrl": "urn:uuid:05efabf0-4be2-4561-91ce-51548425acb9"},
        unless_there("p3"),
        unless_there("p3"),
        unless_there("p5"),
    ]
    response = checked(await client.post(FHIR, json=bundle("transaction", *entries)))
    assert response["type"] == "transaction-response"
    statuses = [(entry["response"]["status"], entry["response"]["etag"]) for entry in response["entry"]]
    one, two = 'W/"1"', 'W/"2"'
    assert statuses == [("201", one), ("200", two), ("201", one), ("200", one), ("200", one), ("201", one)]
    assert response["entry"][0]["response"]["location"].endswith("/fhir/Patient/p1/_history/1")
    assert len(found_ids(checked(await client.get(PATIENT)))) == 5


FAILING: dict[str, tuple[list[Json], int, dict[str, str]]] = {
    "a wrong and a refused element": (
        [{**create("Doe"), "resource": patient("Doe", gender="x", photo=[{"url": "x"}])}],
        422,
        {
            "Bundle.entry[1].resource.gender": "code_invalid",
            "Bundle.entry[1].resource.photo[0]": "element_refused",
        },
    ),
    "an unknown hospital": (
        [{**create("Doe"), "resource": patient("Doe", managingOrganization={"reference": "Organization/x"})}],
        422,
        {"Bundle.entry[1].resource.managingOrganization.reference": "unknown_hospital"},
    ),
    "a stale version": ([update("there", "Doe", ifMatch='W/"9"')], 412, {"Bundle.entry[1]": "entry_refused"}),
    "a deletion": (
        [{"request": {"method": "DELETE", "url": "Patient/there"}}],
        422,
        {"Bundle.entry[1].request": "element_refused"},
    ),
    "another type": (
        [{"resource": {"resourceType": "Organization"}, "request": {"method": "POST", "url": "Organization"}}],
        422,
        {"Bundle.entry[1].request": "element_refused"},
    ),
    "no request": ([{"resource": patient("Doe")}], 422, {"Bundle.entry[1].request": "missing"}),
    "another id": (
        [{"resource": patient("Doe", id="x"), "request": {"method": "PUT", "url": "Patient/y"}}],
        422,
        {"Bundle.entry[1]": "entry_refused"},
    ),
    "a condition by name": (
        [create("Doe", ifNoneExist="family=Doe")],
        422,
        {"Bundle.entry[1].request.ifNoneExist": "parameter"},
    ),
    "a condition of a creation": (
        [update("there", "Doe", ifNoneExist="identifier=x")],
        422,
        {"Bundle.entry[1].request.ifNoneExist": "element_refused"},
    ),
    "an id and a condition": (
        [{"resource": patient("Doe", id="x"), "request": {"method": "PUT", "url": "Patient/x?identifier=x"}}],
        422,
        {"Bundle.entry[1].request.url": "element_refused"},
    ),
    "a modified date": (
        [create("Doe", ifModifiedSince="2026-01-01T00:00:00Z")],
        422,
        {"Bundle.entry[1].request.ifModifiedSince": "element_refused"},
    ),
}
"""Entries that fail after a good one, with the status of the response and the places and codes of the errors."""


@pytest.mark.parametrize("name", FAILING)
async def test_a_failing_entry_undoes_a_transaction(
    client: httpx.AsyncClient, connection: asyncpg.Connection, name: str
) -> None:
    """If an entry fails, nothing is stored, and the errors name the entry. In a batch, the others are stored."""
    entries, status, errors = FAILING[name]
    checked(await client.put(f"{PATIENT}/there", json=patient("Moe", id="there")), 201)
    before = await dump_tables(connection)
    response = await client.post(FHIR, json=bundle("transaction", create("Good"), *entries))
    assert refusals(response, status) == errors
    assert await dump_tables(connection) == before
    batch = checked(await client.post(FHIR, json=bundle("batch", create("Good"), *entries)))
    assert batch["type"] == "batch-response"
    good, failed = (entry["response"] for entry in batch["entry"])
    assert good["status"] == "201"
    assert failed["status"][0] == "4"
    assert {issue["expression"][0] for issue in failed["outcome"]["issue"]} == errors.keys()


NEW_P3 = {"resource": patient("Doe", identifier=[{"system": UNIQUE_ID, "value": "p3"}])}
IF_P3 = f"identifier={UNIQUE_ID}|p3"
OVERLAPPING: dict[str, list[Json]] = {
    "two updates": [update("p1", "Doe"), update("p1", "Doe")],
    "a creation and an update": [
        {**NEW_P3, "request": {"method": "PUT", "url": f"Patient?{IF_P3}"}},
        {**NEW_P3, "request": {"method": "POST", "url": "Patient"}},
    ],
    "two creations on one condition": [
        {**NEW_P3, "request": {"method": "POST", "url": "Patient", "ifNoneExist": IF_P3}} for _ in range(2)
    ],
}
"""Pairs of entries about one patient. Their result would depend on their order, which FHIR forbids."""


@pytest.mark.parametrize("name", OVERLAPPING)
async def test_a_transaction_has_one_entry_for_each_patient(client: httpx.AsyncClient, name: str) -> None:
    """Two entries about one patient are refused, and nothing is stored; a batch makes one change after the other."""
    response = await client.post(FHIR, json=bundle("transaction", create("Good"), *OVERLAPPING[name]))
    (place,) = refusals(response, 409)
    assert place in {"Bundle.entry[1]", "Bundle.entry[2]"}
    assert found_ids(checked(await client.get(PATIENT))) == []
    batch = checked(await client.post(FHIR, json=bundle("batch", *OVERLAPPING[name])))
    assert batch["entry"][0]["response"]["status"] == "201"


async def test_the_order_of_entries_does_not_matter(client: httpx.AsyncClient) -> None:
    """Creations precede updates, so that an update cannot make room for a creation in one order only."""
    identifier = {"system": "urn:patients-api:identifier:za_id", "value": "8001015009087"}
    owner = patient("Doe", identifier=[identifier])
    checked(await client.put(f"{PATIENT}/p1", json={**owner, "id": "p1"}), 201)
    entries = [update("p1", "Doe"), {**create("Roe"), "resource": owner}]
    for place, ordered in ((1, entries), (0, entries[::-1])):
        response = await client.post(FHIR, json=bundle("transaction", *ordered))
        assert list(refusals(response, 409)) == [f"Bundle.entry[{place}].resource.identifier[0].value"]


async def test_an_entry_that_fails_amid_a_batch_stops_no_other(client: httpx.AsyncClient) -> None:
    """The entries of a batch before and after one that fails are stored, and the outcomes have their order."""
    unreadable: Any = "an entry"
    response = await client.post(FHIR, json=bundle("batch", unreadable, create("Doe")))
    assert refusals(response) == {"Bundle.entry[0]": "element_type"}
    entries = [create("One"), {"request": {"method": "POST", "url": "Patient"}}, update("x y", "No"), create("Two")]
    batch = checked(await client.post(FHIR, json=bundle("batch", *entries)))
    assert [entry["response"]["status"] for entry in batch["entry"]] == ["201", "400", "400", "201"]
    assert len(found_ids(checked(await client.get(PATIENT)))) == 2


async def test_references_between_entries_are_refused_by_name(client: httpx.AsyncClient) -> None:
    """A patient refers to hospitals and doctors only, which no entry can create."""
    address = "urn:uuid:05efabf0-4be2-4561-91ce-51548425acb9"
    referring = patient("Doe", generalPractitioner=[{"reference": address}])
    entries = [{**create("Roe"), "fullUrl": address}, {**create("Doe"), "resource": referring}]
    response = await client.post(FHIR, json=bundle("transaction", *entries))
    assert refusals(response) == {"Bundle.entry[1].resource.generalPractitioner[0]": "element_refused"}


async def test_a_lenient_bundle_lists_what_each_entry_left_out(client: httpx.AsyncClient) -> None:
    """The outcome of an entry lists what was left out, if the request allows that."""
    entry = {**create("Doe"), "resource": patient("Doe", photo=[{"url": "x"}])}
    for kind in ("transaction", "batch"):
        response = checked(
            await client.post(FHIR, json=bundle(kind, entry), headers={"Prefer": "handling=lenient,return=minimal"})
        )
        assert "resource" not in response["entry"][0]
        assert response["entry"][0]["response"]["outcome"]["issue"][0]["severity"] == "warning"


async def test_bundles_of_other_types_and_sizes_are_refused(client: httpx.AsyncClient) -> None:
    """A Bundle has at most 100 entries, and is a batch or a transaction without further elements."""
    assert refusals(await client.post(FHIR, json=bundle("searchset")), 400) == {"": "invalid"}
    too_many = bundle("batch", *[create("Doe")] * 101)
    assert refusals(await client.post(FHIR, json=too_many)) == {"Bundle.entry": "too_long"}
    more = {**bundle("batch", create("Doe")), "total": 1}
    assert refusals(await client.post(FHIR, json=more)) == {"Bundle.total": "element_refused"}
    for kind in ("batch", "transaction"):
        empty = checked(await client.post(FHIR, json={"resourceType": "Bundle", "type": kind}))
        assert empty == {"resourceType": "Bundle", "type": f"{kind}-response"}
    largest = checked(
        await client.post(FHIR, json=bundle("transaction", *[create("Doe")] * 100)), with_invariants=False
    )
    assert len(largest["entry"]) == 100


async def test_an_idempotency_key_holds_for_a_whole_transaction(client: httpx.AsyncClient) -> None:
    """A repeated transaction with the same key changes nothing and has the same response; a batch takes no key."""
    key = {"Idempotency-Key": "once"}
    first, second = [await client.post(FHIR, json=bundle("transaction", create("Doe")), headers=key) for _ in range(2)]
    assert checked(first) == checked(second)
    assert len(found_ids(checked(await client.get(PATIENT)))) == 1
    refused = await client.post(FHIR, json=bundle("batch", create("Doe")), headers=key)
    assert refusals(refused) == {"http.Idempotency-Key": "idempotency_key"}


async def test_every_entry_is_in_the_audit(client: httpx.AsyncClient, connection: asyncpg.Connection) -> None:
    """Each stored entry has an audit row with its version, and a refused transaction none."""
    await client.post(FHIR, json=bundle("transaction", update("p1", "Doe"), update("p2", "Doe")))
    await client.post(FHIR, json=bundle("transaction", update("p1", "Roe")))
    await client.post(FHIR, json=bundle("batch", update("p3", "Doe"), create("Doe", ifNoneExist="x=1")))
    await client.post(FHIR, json=bundle("transaction", update("p4", "Doe"), update("p1", "Doe", ifMatch='W/"9"')))
    rows = await connection.fetch("SELECT ids, status, version FROM audit WHERE route = '/fhir' ORDER BY time, id")
    stored = [(row["ids"], row["status"]) for row in rows if row["ids"]]
    assert stored == [(["p1"], 201), (["p2"], 201), (["p1"], 200), (["p3"], 201)]


def parameters(resource: Json, **others: Any) -> Json:
    named = [
        {"name": name, f"value{'Boolean' if isinstance(value, bool) else 'Integer'}": value}
        for name, value in others.items()
    ]
    return {"resourceType": "Parameters", "parameter": [{"name": "resource", "resource": resource}, *named]}


async def test_match_finds_who_a_person_may_be(client: httpx.AsyncClient) -> None:
    """`$match` returns candidates with grade and score, best first, or only a certain one."""
    for unique_id, day in (("pat_1", "1980-05-17"), ("pat_2", "1980-05-18")):
        body = {
            "unique_id": unique_id,
            "patient_first_name": "Nomvula",
            "patient_last_name": "Mtshizana",
            "patient_date_of_birth": day,
            "patient_mobile_number": "0821234567",
        }
        assert (await client.post("/patients/patients/", json=body)).status_code == 201
    person = {
        "resourceType": "Patient",
        "name": [{"family": "Mtshizana", "given": ["Nomvula"]}],
        "birthDate": "1980-05-17",
        "telecom": [{"system": "phone", "value": "+27821234567"}],
    }
    found = checked(await client.post(f"{PATIENT}/$match", json=parameters(person)))
    assert found_ids(found) == ["pat.-1", "pat.-2"]
    grades = [entry["search"]["extension"][0]["valueCode"] for entry in found["entry"]]
    assert grades[0] == "certain"
    scores = [entry["search"]["score"] for entry in found["entry"]]
    assert 1 >= scores[0] > scores[1] > 0
    only = checked(await client.post(f"{PATIENT}/$match", json=parameters(person, onlyCertainMatches=True)))
    assert found_ids(only) in (["pat.-1"], [])
    first = checked(await client.post(f"{PATIENT}/$match", json=parameters(person, count=1)))
    assert (first["total"], found_ids(first)) == (2, ["pat.-1"])
    named = parameters(patient("Other", identifier=[{"system": UNIQUE_ID, "value": "pat_2"}]), onlyCertainMatches=True)
    assert found_ids(checked(await client.post(f"{PATIENT}/$match", json=named))) == ["pat.-2"]
    nobody = checked(await client.post(f"{PATIENT}/$match", json=parameters(patient("Zulu"))))
    assert "entry" not in nobody


async def test_wrong_parameters_of_match_are_refused(client: httpx.AsyncClient) -> None:
    """Unknown parameters, and elements that cannot be compared, are refused by name."""
    path = f"{PATIENT}/$match"
    assert refusals(await client.post(path, json=parameters(patient("Doe"), size=1))) == {
        "Parameters.parameter[1]": "element_refused"
    }
    assert refusals(await client.post(path, json=parameters(patient("Doe", photo=[{"url": "x"}])))) == {
        "Patient.photo[0]": "element_refused"
    }
    assert refusals(await client.post(path, json={"resourceType": "Parameters"}), 400) == {"": "invalid"}
    assert refusals(await client.post(path, json=patient("Doe")), 400) == {"": "invalid"}
    assert refusals(await client.get(path), 404) == {"": "not-found"}
