"""Small requests that would be costly are refused before the cost arises, and the refusal says what to change."""

import tracemalloc
from collections.abc import Iterator
from itertools import product
from typing import Any

import httpx
from fastapi import FastAPI

from app.http.strict_json import MAX_MEMBERS, MAX_SEPARATORS

JSON = {"Content-Type": "application/json"}
PATIENTS = "/patients/patients/"
SEARCH = f"{PATIENTS}search/"
MEGABYTE = 1024 * 1024


def array_body(item: bytes) -> bytes:
    """Return a JSON array of a mebibyte."""
    return b"[" + b",".join([item] * ((MEGABYTE - 2) // (len(item) + 1))) + b"]"


def _branches(schema: dict[str, Any]) -> list[dict[str, Any]]:
    return [schema, *schema.get("anyOf", ())]


def _list_fields(document: dict[str, Any]) -> Iterator[tuple[str, str, str, int]]:
    """Yield method, path, name and maximum length of every list in a request body."""
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            # the lines of an import are checked one by one, as bodies of other operations are
            if "application/json" in operation.get("requestBody", {}).get("content", {}):
                content = operation["requestBody"]["content"]["application/json"]["schema"]
                fields = document["components"]["schemas"][content["$ref"].rpartition("/")[2]]["properties"]
                for name, schema in fields.items():
                    for branch in _branches(schema):
                        if branch.get("type") == "array":
                            yield method, path.format(unique_id="own"), name, branch["maxItems"]


async def test_lists_are_counted_before_their_items(client: httpx.AsyncClient, app: FastAPI) -> None:
    """A list of 40,000 invalid items is a single error about its length, in every body."""
    document = app.openapi()
    list_fields = list(_list_fields(document))
    assert {(path, name) for _, path, name, _ in list_fields} >= {(SEARCH, "patient_town"), (PATIENTS, "hospital_ids")}
    for method, path, name, most in list_fields:
        response = await client.request(method, path, json={name: [1] * 40_000})
        message = f"Must have at most {most} items"
        wrong = [error for error in response.json()["errors"] if error["type"] != "name_missing"]
        assert wrong == [{"loc": ["body", name], "msg": message, "type": "too_long"}], (method, path)


DENSE_BODIES = {
    "numbers": array_body(b"1"),
    "arrays": array_body(b"[]"),
    "objects": array_body(b"{}"),
    "members": array_body(b'{"a":1}'),
    "nested": array_body(b"[" * 300 + b"]" * 300),
    "unknown keys": b"{" + b",".join(b'"k%d":1' % number for number in range(90_000)) + b"}",
}


async def test_bodies_of_too_many_values_are_refused_before_parsing(client: httpx.AsyncClient) -> None:
    """A body of a mebibyte with too many values is refused before parsing makes tens of mebibytes of objects of it."""
    for name, body in DENSE_BODIES.items():
        tracemalloc.start()
        try:
            response = await client.post(SEARCH, content=body, headers=JSON)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert response.status_code == 400, name
        assert f"more than {MAX_SEPARATORS:,} commas and brackets" in response.json()["detail"]
        assert peak < 4 * MEGABYTE, f"{name}: peak memory besides the body"


async def test_objects_of_too_many_members_are_refused(client: httpx.AsyncClient) -> None:
    """Objects of a thousand members are validated, and larger ones are refused at any depth."""
    forms = ("%s", '{"patient_profile": %s}', '{"unknown": [%s]}')
    for path, form, members in product((PATIENTS, SEARCH), forms, (MAX_MEMBERS, MAX_MEMBERS + 1)):
        named = ", ".join(f'"key_{number}": 1' for number in range(members))
        response = await client.post(path, content=form % f"{{{named}}}", headers=JSON)
        too_many = members > MAX_MEMBERS
        assert response.status_code == (400 if too_many else 422), response.text
        assert ("with more than 1000 members" in response.json()["detail"]) == too_many


async def test_no_schema_comes_near_the_member_limit(app: FastAPI) -> None:
    """No schema has half as many fields as the member limit, so a new field never makes a valid body unreadable."""
    schemas = app.openapi()["components"]["schemas"]
    assert max(len(schema.get("properties", ())) for schema in schemas.values()) < MAX_MEMBERS / 2


async def test_the_largest_patient_is_within_the_limits(client: httpx.AsyncClient) -> None:
    """The largest possible patient, sent back as it was read, is within the limits."""
    ids = [f"hos{number}" for number in range(1000)]
    nested = [{"unique_id": unique_id, "hospital_name": "St. Mary's, North, Ward 1"} for unique_id in ids]
    body = {
        "patient_last_name": "Doe",
        "hospital_ids": ids,
        "doctor_ids": ids,
        "patient_hospital": nested,
        "patient_doctor": nested,
    }
    response = await client.post(PATIENTS, json=body)
    assert {error["type"] for error in response.json()["errors"]} == {"unknown_hospital"}
    assert "of 2000 errors" in response.json()["detail"]


async def test_at_most_a_hundred_parameter_errors_are_listed(client: httpx.AsyncClient) -> None:
    """At most a hundred errors of unknown, repeated or misplaced query parameters are listed, as for a body."""
    unknown = "&".join(f"k{number}=1" for number in range(3000))
    responses = [
        await client.get(f"{PATIENTS}?{unknown}"),
        await client.get(f"{PATIENTS}?{unknown}&{unknown}"),
        await client.post(f"{SEARCH}?{unknown}", json={}),
    ]
    for response in responses:
        problem = response.json()
        assert (response.status_code, len(problem["errors"])) == (422, 100)
        assert "the first 100 of 3000 errors" in problem["detail"]


async def test_too_many_combining_marks_in_a_row_are_refused(client: httpx.AsyncClient) -> None:
    """At most thirty combining marks in a row are allowed, as Unicode normalization is quadratic in their number."""
    name = "\u1112\u1161\u11ab" * 100 + "\u0316\u0301" * 20
    for marks, status in ((30, 201), (31, 422)):
        response = await client.post(PATIENTS, json={"patient_last_name": name[: 300 + marks]})
        assert response.status_code == status, response.text
    assert [error["type"] for error in response.json()["errors"]] == ["string_marks"]
