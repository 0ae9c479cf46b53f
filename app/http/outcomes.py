"""Errors as FHIR OperationOutcomes (R4), which the FHIR interface sends instead of problems."""

import json
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from app.errors import FieldError

FHIR_MEDIA_TYPE = "application/fhir+json"
ERROR_SYSTEM = "urn:patients-api:error"
"""Code system of the codes of errors, which `docs/api.md` and `docs/fhir.md` explain."""

_CODE_BY_STATUS = {
    400: "invalid",
    401: "login",
    403: "forbidden",
    404: "not-found",
    405: "not-supported",
    406: "not-supported",
    409: "conflict",
    410: "deleted",
    412: "conflict",
    413: "too-long",
    415: "not-supported",
    422: "processing",
    428: "required",
    429: "throttled",
    431: "too-long",
    503: "transient",
}
"""The issue type for each HTTP status (http://hl7.org/fhir/issue-type). Other statuses have the type `exception`."""
_CODE_BY_ERROR_TYPE = {
    "element_modifier": "not-supported",
    "element_refused": "not-supported",
    "extra_forbidden": "not-supported",
    "missing": "required",
    "name_missing": "required",
    "own_hospital_missing": "business-rule",
    "parameter": "not-supported",
    "possible_duplicate": "duplicate",
    "profile_unavailable": "forbidden",
    "string_too_long": "too-long",
    "too_long": "too-long",
    "too_many_matches": "multiple-matches",
    "unknown_doctor": "not-found",
    "unknown_hospital": "not-found",
}
"""The issue types of the errors in single elements, by their code. Other errors have the type `value`."""


def issue(error: FieldError, severity: str = "error") -> dict[str, Any]:
    """Return the issue for an error in an element, a parameter or a header.

    The location of an error in a resource is a FHIRPath. That of another error is called `http.` and a name.
    """
    first, *rest = map(str, error.loc or ("request",))
    location = {"location": [f"http.{'.'.join(rest)}"]} if first in {"query", "header", "path"} else {}
    return {
        "severity": severity,
        "code": _CODE_BY_ERROR_TYPE.get(error.type, "value"),
        "details": {"coding": [{"system": ERROR_SYSTEM, "code": error.type}], "text": error.msg},
        **(location or {"expression": [".".join((first, *rest))]}),
    }


def outcome_content(
    status: int,
    detail: str,
    errors: Sequence[FieldError],
    request_id: str,
    extensions: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the OperationOutcome with an issue for each of the `errors` or, if there are none, with one for `detail`.

    The id of the request is in each issue, for those who ask operators about it, and so are the `extensions` that a
    problem would have, as JSON text.
    """
    severity = "fatal" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "error"
    code = _CODE_BY_STATUS.get(status, "exception")
    issues = [issue(error, severity) for error in errors]
    issues = issues or [{"severity": severity, "code": code, "details": {"text": detail}}]
    for one in issues:
        one["diagnostics"] = f"request {request_id}" + (f", {json.dumps(extensions)}" if extensions else "")
    return {"resourceType": "OperationOutcome", "issue": issues}
