"""Hooks of schemathesis for `tests/test_conformance.py`, which only schemathesis imports, in its own process."""

import json
from typing import Any

import jsonschema_rs
import schemathesis
from schemathesis.core.failures import AcceptedNegativeData, Failure
from schemathesis.core.parameters import ParameterLocation
from schemathesis.openapi.checks import JsonSchemaError, RejectedPositiveData

from app.fields.characters import is_blank

ERROR_TYPES_BEYOND_JSON_SCHEMA = {
    "cursor": "a cursor contains the position at which a page ended; no pattern describes the texts that contain one",
    "unknown_hospital": "the document does not know which hospitals exist",
    "unknown_doctor": "the document does not know which doctors exist",
    "unknown_patient": "the document does not know which patients exist",
    "same_record": "a schema cannot forbid a value in the body to be that of the path",
    "identifier_type": "operators add types of identifiers",
    "identifier_check_digit": "no pattern computes check digits",
    "identifier_form": "the form of an identifier depends on its type",
    "identifier_country": "whether an identifier has a country depends on its type",
    "identifier_hospital": "whether an identifier has a hospital depends on its type and on the stored patient",
    "name_missing": "whether a change leaves a name depends on the stored patient",
    "date_in_future": "the document does not know today's date",
    "read_only_links": "the document does not know the links of the stored patient",
    "unique_id_change": "a schema cannot require the id in the body to be that of the path",
    "missing_profile": "the document does not know which profiles were deleted",
    "missing_hospital": "the document does not know which hospitals were deleted",
    "missing_doctor": "the document does not know which doctors were deleted",
    "unknown_version": "the document does not know which versions a record has",
    "version_deleted": "the document does not know which versions are deletions",
    "idempotency_key_reused": "the document does not know which keys were sent before",
    "break_glass_reason": "no pattern can require a reason to be meaningful",
    "moment": "the format describes a timestamp; requiring one since 1900 would need a pattern instead of the format",
    "search_words": "a pattern that limits the number of words would be unreadable",
    "too_long_for_pages": "whether the filters are too long for a cursor depends on all of them together",
    "deleted_alone": "a schema of single parameters cannot forbid two of them together",
    "string_blank": "U+001C to U+001F are blanks to Python, but not to patterns",
    "string_nul": "a pattern that excludes NUL in every text would hide the meaningful pattern",
}
"""Error types of requests that are refused although the document allows them, and why it cannot forbid them."""


@schemathesis.serializer("application/x-ndjson")
def serialize_lines(_: schemathesis.SerializationContext, value: Any) -> bytes:
    """Return a body of lines: text as it is, and anything else as one line of JSON."""
    return (value if isinstance(value, str) else json.dumps(value)).encode(errors="replace")


@schemathesis.hook
def filter_failure(
    context: schemathesis.HookContext,  # noqa: ARG001  # schemathesis passes it by name
    failure: Failure,
    case: schemathesis.Case[Any],
    response: schemathesis.Response,
) -> bool:
    """Return whether the failure of a check is a defect."""
    if response.status_code in {410, 412}:
        return False  # the document knows neither which patients were merged nor the current tags
    if "429 Too Many Requests" in failure.message:
        return False  # where schemathesis expects a 401 for the thirty-first request without valid credentials
    if isinstance(failure, JsonSchemaError) and requests_fields(case):
        return False  # the document cannot make the required fields of a response depend on a parameter
    if isinstance(failure, RejectedPositiveData):
        errors = {error["type"] for error in response.json().get("errors", [])}
        return not errors or not errors <= ERROR_TYPES_BEYOND_JSON_SCHEMA.keys()
    if isinstance(failure, AcceptedNegativeData):
        return not is_valid_per_document(case)
    return True


def requests_fields(case: schemathesis.Case[Any]) -> bool:
    """Return whether the request asks for some fields of records only."""
    body = case.body if isinstance(case.body, dict) else {}
    return (case.query or {}).get("fields") is not None or body.get("fields") is not None


def is_valid_per_document(case: schemathesis.Case[Any]) -> bool:
    r"""Return whether the document allows the body, which only schemathesis considers invalid, or the body trimmed.

    It takes the pattern `\S`, one non-blank character, together with a length for `^\S{1,255}$`. The service trims
    texts, and takes invisible characters for blanks, which patterns and lengths cannot describe.
    """
    locations = case.meta.components if case.meta is not None else {}
    if [location for location, part in locations.items() if part.mode.is_negative] != [ParameterLocation.BODY]:
        return False
    document: dict[str, Any] = case.operation.schema.raw_schema
    operation = document["paths"][case.operation.path][case.operation.method]
    content = operation["requestBody"]["content"]
    if "application/json" not in content:
        return True  # lines of text, each of which has a result of its own
    schema = content["application/json"]["schema"]
    validator = jsonschema_rs.Draft202012Validator({**schema, "components": document["components"]})
    return validator.is_valid(trimmed(case.body))


def trimmed(value: Any) -> Any:
    """Return a JSON value whose texts have no blanks around them."""
    if isinstance(value, dict):
        return {name: trimmed(member) for name, member in value.items()}
    if isinstance(value, list):
        return [trimmed(member) for member in value]
    if isinstance(value, str):
        return "" if is_blank(value) else value.strip()
    return value
