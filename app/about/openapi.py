"""Building the OpenAPI document. FastAPI derives it from the routes; this module adds what FastAPI cannot express."""

from collections.abc import Iterator
from typing import Any, TypeVar

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from app.api.documentation import RESPONSE_HEADERS, JsonObject
from app.auth.scopes import SECURITY_SCHEMES
from app.fields.schemas import Schema, strip_titles
from app.http.problems import Problem, status_phrase
from app.listing.pagination import ListParameters

M = TypeVar("M", bound=BaseModel)

API_METADATA: JsonObject = {
    "title": "Patients API",
    "version": "0.1.0",
    "summary": "Patients, their profiles, hospitals and doctors.",
    "description": (
        "- **Lists** are bare arrays: all records, or a page if you send `limit`. The header `Next-Cursor` contains "
        "the `cursor` of the next page. With `Accept: application/x-ndjson`, a list has one record per line.\n"
        "- **Updates** leave absent fields unchanged, and `null` clears a field. To avoid overwriting another "
        "client's change, send the `ETag` that you read as `If-Match`.\n"
        "- **Retries** are safe if you give each POST its own `Idempotency-Key`.\n"
        "- **History**: every change is kept, and deleted records can be restored.\n"
        "- **Errors** are RFC 9457 problems (`application/problem+json`) that list all invalid fields at once. Whether "
        "hospitals and doctors exist is checked once the fields are valid.\n"
        "- **FHIR R4**: the same records are resources below `/fhir`, which its "
        "[CapabilityStatement](/fhir/metadata) describes.\n\n"
        "Every path also works without its trailing slash."
    ),
    "license_info": {"name": "MIT", "identifier": "MIT"},
    "openapi_tags": [
        {"name": "patients", "description": "Patients, each with a profile, hospitals and doctors."},
        {"name": "profiles", "description": "Accounts that patients are linked to."},
        {"name": "hospitals", "description": "The hospitals that patients may be linked to."},
        {"name": "doctors", "description": "The doctors that patients may be linked to."},
        {"name": "changes", "description": "What has changed since when, to keep a copy up to date."},
        {"name": "audit", "description": "Who has accessed which records."},
        {"name": "me", "description": "Who you are and what you may do."},
        {"name": "health", "description": "Probes and metrics for operators."},
    ],
}

_SHARED_STATUSES = frozenset({"400", "401", "412", "413", "415", "428", "429", "500", "503"})
"""Error statuses with the same documentation for every operation, so that one component per status is enough."""


def build_document(app: FastAPI) -> JsonObject:
    """Return the document that describes the routes of `app`."""
    info = {key: value for key, value in API_METADATA.items() if key != "openapi_tags"}
    document: JsonObject = get_openapi(
        routes=app.routes, tags=API_METADATA["openapi_tags"], servers=[{"url": "/"}], **info
    )
    components = document["components"]
    components["securitySchemes"] = SECURITY_SCHEMES
    # FastAPI knows neither the schema of errors nor those of query strings, whose types, such as orderings, have names
    queries: list[type[BaseModel]] = list(_subclasses(ListParameters))
    models: list[type[BaseModel]] = [Problem, *queries]
    _, definitions = models_json_schema(
        [(model, "validation") for model in models], ref_template="#/components/schemas/{model}"
    )
    schemas = components["schemas"]
    query_names = {model.__name__ for model in queries}
    schemas |= {name: schema for name, schema in definitions["$defs"].items() if name not in query_names}
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    for schema in schemas.values():
        strip_titles(schema)
    for model in _subclasses(Schema):
        if model.example is not None:
            schemas[model.__name__]["examples"] = [model.example]  # set here because Pydantic would sort its keys
    components["headers"] = RESPONSE_HEADERS
    components["responses"] = {}
    for operations in document["paths"].values():
        for operation in operations.values():
            for parameter in operation.get("parameters", ()):
                _tidy_parameter(parameter)
            _tidy_responses(operation["responses"])
            _deduplicate_responses(operation["responses"], components["responses"])
    return document


def _subclasses(base: type[M]) -> Iterator[type[M]]:
    for model in base.__subclasses__():
        yield model
        yield from _subclasses(model)


def _tidy_parameter(parameter: JsonObject) -> None:
    schema: dict[str, Any] = parameter["schema"]
    schema.pop("title", None)
    schema.pop("description", None)  # the parameter has the same description
    if "example" in schema:  # Swagger UI needs it in the parameter, where FastAPI's own option is deprecated
        parameter["example"] = schema.pop("example")
    if "anyOf" in schema:  # a query cannot contain null
        (parameter["schema"],) = (branch for branch in schema["anyOf"] if branch != {"type": "null"})


def _tidy_responses(responses: JsonObject) -> None:
    """Remove the titles of schemas and the responses to validation errors, both of which FastAPI generates."""
    for status, response in list(responses.items()):
        for media_type in response.get("content", {}).values():
            media_type["schema"].pop("title", None)
            if media_type["schema"].get("$ref", "").endswith("/HTTPValidationError"):
                del responses[status]


def _deduplicate_responses(responses: JsonObject, shared_responses: JsonObject) -> None:
    """Replace the problems that are the same for every operation with references to shared components.

    The components are added to `shared_responses`, one for each status.
    """
    for status in sorted(_SHARED_STATUSES & responses.keys()):
        name = status_phrase(int(status)).replace(" ", "")
        shared_responses.setdefault(name, responses[status])
        responses[status] = {"$ref": f"#/components/responses/{name}"}
