"""The OpenAPI document: what FastAPI derives from the routes, and what it does not know."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from app.errors import Problem
from app.resource.schemas import untitle

DESCRIPTION: dict[str, Any] = {
    "title": "Patients API",
    "version": "0.1.0",
    "summary": "Patients, their profiles, hospitals and doctors.",
    "license_info": {"name": "MIT", "identifier": "MIT"},
    "openapi_tags": [
        {"name": "patients", "description": "Patients, each with a profile, hospitals and doctors."},
        {"name": "profiles", "description": "Accounts that patients are linked to."},
        {"name": "hospitals", "description": "The hospitals that patients may be linked to."},
        {"name": "doctors", "description": "The doctors that patients may be linked to."},
        {"name": "health", "description": "For those who run the service."},
    ],
}


def install(app: FastAPI) -> None:
    """Have `app` answer the whole document."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app)
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]  # FastAPI's documented way


def _document(app: FastAPI) -> dict[str, Any]:
    document = get_openapi(routes=app.routes, tags=DESCRIPTION["openapi_tags"], **_info())
    _, definitions = models_json_schema([(Problem, "validation")], ref_template="#/components/schemas/{model}")
    schemas = document["components"]["schemas"]
    schemas |= definitions["$defs"]
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    for schema in schemas.values():
        untitle(schema)
    for path in document["paths"].values():
        for operation in path.values():
            _tidy(operation)
    return document


def _tidy(operation: dict[str, Any]) -> None:
    """Leave out what FastAPI says of its own: its form of validation errors, titles made from names."""
    operation["summary"] = operation["summary"].capitalize()
    for parameter in operation.get("parameters", ()):
        parameter["schema"].pop("title", None)
    for status, response in list(operation["responses"].items()):
        for media_type in response.get("content", {}).values():
            media_type["schema"].pop("title", None)
            if media_type["schema"].get("$ref", "").endswith("/HTTPValidationError"):
                del operation["responses"][status]


def _info() -> dict[str, Any]:
    return {key: value for key, value in DESCRIPTION.items() if key != "openapi_tags"}
