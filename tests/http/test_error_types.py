"""The errors in 422 problems: each has a code that is documented, and a message in the service's own words."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, get_args

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from pydantic import TypeAdapter

from app.audit.schemas import AuditParameters
from app.error_types import ErrorType, FhirErrorType, FileErrorType
from app.http.field_errors import MAX_LISTED_ERRORS
from app.listing.pagination import ListParameters, PageParameters
from app.patients.schemas import PatientParameters
from app.patients.service import PatientService
from app.statements.documents import Elements

REPOSITORY_ROOT = Path(__file__).parents[2]
PATIENTS = "/patients/patients/"
QUERY_SCHEMAS = (PageParameters, ListParameters, PatientParameters, AuditParameters)
"""The schemas of query strings, which the routes do not name in a signature."""
ERRORS_BY_NODE: dict[str, set[str]] = {
    "bool": {"bool_type"},
    "int": {"int_type", "int_parsing", "int_parsing_size"},  # bodies are strict, and queries are text: no floats
    "list": {"list_type"},
    "literal": {"literal_error"},
    "model": {"model_attributes_type"},
    "model-field": {"missing"},
    "str": {"string_type", "string_unicode"},
}
"""The errors that the nodes of Pydantic's core schemas can have, besides those of their constraints."""
ERRORS_BY_CONSTRAINT = {
    ("str", "max_length"): "string_too_long",
    ("str", "min_length"): "string_too_short",
    ("str", "pattern"): "string_pattern_mismatch",
    ("list", "max_length"): "too_long",
    ("list", "min_length"): "too_short",
    ("int", "ge"): "greater_than_equal",
    ("int", "le"): "less_than_equal",
    ("int", "lt"): "less_than",
}
SILENT_NODES = {
    "any",
    "date",  # a validator of the service has already made it a date
    "datetime",
    "default",
    "definition-ref",
    "definitions",
    "function-after",
    "function-before",
    "function-plain",
    "function-wrap",
    "lax-or-strict",
    "model-fields",
    "nullable",
}
"""Nodes that have no errors of their own, or whose errors cannot occur."""


def core_nodes(node: Any) -> Iterator[dict[str, Any]]:
    """Yield all nodes of a core schema."""
    if isinstance(node, dict):
        if isinstance(node.get("type"), str):
            yield node
        for key, value in node.items():
            if key not in {"function", "metadata", "serialization"}:
                yield from core_nodes(value)
    elif isinstance(node, list | tuple):
        for item in node:
            yield from core_nodes(item)


def request_schemas(app: FastAPI) -> Iterator[Any]:
    """Yield the core schema of every body, query string and path parameter that a route validates."""
    for route in iter_route_contexts(app.routes):
        body_field = getattr(route.original_route, "body_field", None)
        if body_field is not None:
            yield body_field.field_info.annotation.__pydantic_core_schema__
        for parameter in getattr(getattr(route.original_route, "dependant", None), "path_params", ()):
            annotation: Any = Annotated[parameter.field_info.annotation, parameter.field_info]
            yield TypeAdapter(annotation).core_schema
    for schema in QUERY_SCHEMAS:
        yield schema.__pydantic_core_schema__


def producible_error_types(app: FastAPI) -> set[str]:
    """Return the types of all errors that Pydantic itself can find in a request."""
    found: set[str] = set()
    for schema in request_schemas(app):
        for node in core_nodes(schema):
            kind = node["type"]
            assert kind in ERRORS_BY_NODE.keys() | SILENT_NODES, f"which errors can a node of type {kind} have?"
            found |= ERRORS_BY_NODE.get(kind, set())
            found |= {error for (owner, name), error in ERRORS_BY_CONSTRAINT.items() if kind == owner and name in node}
            if node.get("config", {}).get("extra_fields_behavior") == "forbid":
                found.add("extra_forbidden")
    return found


LONG_NUMBER = "1" * 5000
MISTAKES: dict[str, tuple[str, dict[str, Any], str]] = {
    "bool_type": (f"{PATIENTS}pat1/restore/", {"json": {"version": 1, "skip_missing": "no"}}, "Must be true or false"),
    "extra_forbidden": (
        PATIENTS,
        {"json": {"patient_titel": "Dr."}},
        "There is no such field or parameter; did you mean patient_title?",
    ),
    "greater_than_equal": (PATIENTS, {"params": {"limit": 0}}, "Must be at least 1"),
    "int_parsing": (PATIENTS, {"params": {"limit": "ten"}}, "Must be a whole number"),
    "int_parsing_size": (PATIENTS, {"params": {"limit": LONG_NUMBER}}, "Must be a number with fewer digits"),
    "int_type": (f"{PATIENTS}search/", {"json": {"limit": 1.5}}, "Must be a whole number"),
    "less_than": (f"{PATIENTS}pat1/history/{2**53 - 1}/", {}, "Must be less than 9007199254740991"),
    "less_than_equal": (PATIENTS, {"params": {"limit": 1001}}, "Must be at most 1000"),
    "list_type": (PATIENTS, {"json": {"hospital_ids": "hos123"}}, "Must be a list"),
    "literal_error": (PATIENTS, {"params": {"count": "yes"}}, "Must be 'exact'"),
    "missing": (PATIENTS, {"json": {"patient_profile": {}}}, "Must be given"),
    "model_attributes_type": (PATIENTS, {"json": []}, "Must be an object"),
    "string_pattern_mismatch": (
        "/audit/",
        {"params": {"principal": "é"}},
        "Must match the regular expression ^[ -~]{1,400}$",
    ),
    "string_too_long": (PATIENTS, {"json": {"patient_title": "x" * 256}}, "Must have at most 50 characters"),
    "string_too_short": (PATIENTS, {"params": {"cursor": ""}}, "Must have 1 or more characters"),
    "string_type": (PATIENTS, {"json": {"patient_title": 1}}, "Must be text"),
    "string_unicode": (
        PATIENTS,
        {"content": rb'{"patient_title": "\ud800"}'},
        "Must not contain lone surrogates, which are not characters",
    ),
    "too_long": (PATIENTS, {"json": {"hospital_ids": ["hos1"] * 1001}}, "Must have at most 1000 items"),
    "too_short": (f"{PATIENTS}search/", {"json": {"patient_town": []}}, "Must have 1 or more items"),
}
"""A request for each error that Pydantic finds by itself, and the message in the response."""


async def test_every_error_of_pydantic_can_be_shown(app: FastAPI) -> None:
    """`MISTAKES` has a request for every error that the schemas can produce."""
    assert producible_error_types(app) == MISTAKES.keys()


@pytest.mark.parametrize("error_type", MISTAKES)
async def test_messages_are_the_services_own(client: httpx.AsyncClient, error_type: str) -> None:
    """No message of Pydantic reaches a client: messages say in the words of the service what to change."""
    path, arguments, message = MISTAKES[error_type]
    method = "POST" if arguments.keys() & {"json", "content"} else "GET"
    response = await client.request(method, path, headers={"Content-Type": "application/json"}, **arguments)
    assert response.status_code == 422
    assert {"msg": message, "type": error_type} in [
        {name: error[name] for name in ("msg", "type")} for error in response.json()["errors"]
    ]
    assert "nput should" not in response.text


def codes_in_source() -> Iterator[str]:
    """Yield every code that the source of the service gives to an error."""
    targets = [
        relation.target.name.removesuffix("s")
        for relation in PatientService.repository_class.document.relations.values()
        if not isinstance(relation, Elements)
    ]
    linked = [name.removesuffix("_ids") for name in PatientService.repository_class.link_relations]
    for path in sorted(REPOSITORY_ROOT.glob("app/**/*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
                name = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
                position = {
                    "FieldError": 2,
                    "add_error": 2,
                    "CellError": 0,
                    "validation_error": 0,
                    "PydanticKnownError": 0,
                }.get(name)
                code = None if position is None or len(node.args) <= position else node.args[position]
                if isinstance(code, ast.Constant):
                    yield str(code.value)
                elif isinstance(code, ast.Call) and isinstance(code.args[1], ast.JoinedStr):
                    prefix = code.args[1].values[0]
                    assert isinstance(prefix, ast.Constant)
                    assert isinstance(prefix.value, str)
                    names = linked if prefix.value == "unknown_" else targets
                    yield from (f"{prefix.value}{name}" for name in names)
            elif isinstance(node, ast.Assign) and any(getattr(one, "id", "") == "error_type" for one in node.targets):
                assert isinstance(node.value, ast.Constant)
                yield str(node.value.value)


def published_codes() -> set[str]:
    return set(get_args(ErrorType.__value__))


async def test_codes_are_those_that_the_service_gives(app: FastAPI) -> None:
    """The codes of errors in responses and in imports are exactly those that schemas and code can give."""
    given = set(codes_in_source()) | producible_error_types(app)
    assert given == published_codes() | set(get_args(FileErrorType)) | set(get_args(FhirErrorType))


async def test_codes_are_published(app: FastAPI) -> None:
    """The OpenAPI document and the table in the guide list exactly the codes of errors in responses."""
    schemas = app.openapi()["components"]["schemas"]
    assert set(schemas["ErrorType"]["enum"]) == published_codes()
    assert schemas["ProblemError"]["properties"]["type"]["$ref"] == "#/components/schemas/ErrorType"
    (_, guide) = (REPOSITORY_ROOT / "docs/api.md").read_text().split("| `type` | ")
    table, *_ = guide.split("\n\n")
    rows = [line.split(" | ")[0] for line in table.splitlines()[2:]]
    documented = [code for row in rows for code in re.findall(r"`(\w+)`", row)]
    assert len(documented) == len(set(documented))
    assert set(documented) == published_codes()


async def test_unknown_names_get_the_nearest_known_name(client: httpx.AsyncClient) -> None:
    """An unknown field or parameter gets the nearest one of its schema, at any depth; otherwise /docs is named."""

    async def messages(method: str, path: str, **arguments: Any) -> list[str]:
        response = await client.request(method, path, **arguments)
        assert response.status_code == 422
        return [error["msg"].rpartition("; ")[2] for error in response.json()["errors"]]

    nearest = "did you mean {}?".format
    for path in (PATIENTS, f"{PATIENTS}pat123/"):
        body = {"patient_last_name": "Doe", "Patient_Titel": 1, "patient_profile": {"unique_id": "p", "mail": "x"}}
        method = "POST" if path == PATIENTS else "PATCH"
        assert sorted(await messages(method, path, json=body)) == [nearest("email"), nearest("patient_title")]
    unknown = {"patient_twon": "x", "zzz": "x", "x" * 100_000: "x", "limi": 1}
    found = await messages("POST", f"{PATIENTS}search/", json=unknown)
    assert found == [nearest("patient_town"), *["/docs lists all of them"] * 2, nearest("limit")]
    assert await messages("GET", PATIENTS, params={"patient_twon": "x"}) == [nearest("patient_town")]
    body = {"patientTitle": 1, "gender": 1, "patient_zzz": 1, "patient_last_name": "Doe"}
    expected = [nearest("patient_title"), nearest("patient_gender"), "/docs lists all of them"]
    assert await messages("POST", PATIENTS, json=body) == expected
    assert await messages("GET", "/audit/", params={"principle": "x"}) == [nearest("principal")]
    too_many = {f"limi{number}": 1 for number in range(MAX_LISTED_ERRORS)}
    assert await messages("GET", PATIENTS, params=too_many) == [nearest("limit")] * MAX_LISTED_ERRORS
