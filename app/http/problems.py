"""Problem responses according to RFC 9457 (`application/problem+json`), and the handlers that turn errors into them.

The framework's own errors become problems, too. Unexpected errors are handled by `app.http.middleware`, which responds
with a 500 that reveals no internals.
"""

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any, Literal

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import iter_route_contexts
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.types import Scope

from app.error_types import ErrorType
from app.errors import FieldError, ServiceError, UnavailableError, ValidationFailedError
from app.http.field_errors import MAX_LISTED_ERRORS, field_errors
from app.http.outcomes import FHIR_MEDIA_TYPE, outcome_content
from app.http.strict_json import MAX_BODY_SIZE_BYTES
from app.paths import is_fhir_path
from app.request_state import RequestState

log = structlog.get_logger()

PROBLEM_MEDIA_TYPE = "application/problem+json"


class ProblemError(BaseModel):
    """One error in a field, parameter or header of a request."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    loc: list[str | int] = Field(examples=[["body", "hospital_ids", 1]])
    """The location of the error in the request, as a path of names and list indexes."""
    msg: str = Field(examples=["There is no hospital with the unique_id hos999"])
    """A message that tells people what is wrong or what to change."""
    type: ErrorType = Field(examples=["unknown_hospital"])
    """A code that identifies the kind of error, for use by programs."""


class ProblemDuplicate(BaseModel):
    """A registered patient who may be the person of a request."""

    unique_id: str = Field(examples=["pat123"])
    grade: Literal["certain", "probable"]


class Problem(BaseModel):
    """A description of an error as an RFC 9457 problem."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    type: str = Field(examples=["about:blank"])
    title: str = Field(examples=["Unprocessable Content"])
    status: int = Field(examples=[422])
    detail: str = Field(examples=["The request has errors, so nothing was stored."])
    instance: str = Field(examples=["urn:request:req_01jd3v4wq0c9h4t5k6m7n8p9q0"])
    request_id: str = Field(examples=["req_01jd3v4wq0c9h4t5k6m7n8p9q0"])
    """The id of the request, which is also in the `X-Request-ID` header and in the service's log."""
    errors: list[ProblemError] = Field(default_factory=list)
    """The errors in the request, at most 100 of them. Only problems with status 422, and those of possible duplicates,
    have this list."""
    duplicates: list[ProblemDuplicate] = Field(default_factory=list)
    """The patients who may be the person to register. Only the problem of a possible duplicate (409) has this list."""
    merged_into: str = Field(default_factory=str, examples=["pat123"])
    """The id of the record that now stands for a merged one. Only problems of merged records (409, 410) have it."""
    undo_first: str = Field(default_factory=str, examples=["pat456"])
    """The id of the record whose merge has to be undone first. Only the problem of undoing an older one (409) has
    it."""


def problem_content(status: int, detail: str, request_id: str) -> dict[str, Any]:
    """Return the members of a problem, without a list of errors.

    Its `type` is `about:blank`, which means that the status alone identifies the problem (RFC 9457, section 4.2.1).
    """
    return {
        "type": "about:blank",
        "title": status_phrase(status),
        "status": status,
        "detail": detail,
        "instance": f"urn:request:{request_id}",
        "request_id": request_id,
    }


class ProblemResponse(JSONResponse):
    """A response that contains a problem, with the first `MAX_LISTED_ERRORS` of its errors.

    For a path of the FHIR interface, it contains the same as an OperationOutcome.
    """

    media_type = PROBLEM_MEDIA_TYPE

    def __init__(
        self,
        scope: Scope,
        status: int,
        detail: str,
        errors: Iterable[FieldError] = (),
        headers: Mapping[str, str] | None = None,
        **extensions: Any,
    ) -> None:
        errors = list(errors)
        if len(errors) > MAX_LISTED_ERRORS:
            detail += f" These are the first {MAX_LISTED_ERRORS} of {len(errors)} errors."
        request_id = RequestState.from_scope(scope).request_id
        if is_fhir_path(scope["path"]):
            self.media_type = FHIR_MEDIA_TYPE
            outcome = outcome_content(status, detail, errors[:MAX_LISTED_ERRORS], request_id, extensions)
            super().__init__(outcome, status, headers)
            return
        content = problem_content(status, detail, request_id)
        if listed_errors := [error._asdict() for error in errors[:MAX_LISTED_ERRORS]]:
            content["errors"] = listed_errors
        content |= extensions
        super().__init__(content, status, headers)


def body_too_large_detail(max_bytes: int) -> str:
    """Return the detail of the response to a request whose body is larger than `max_bytes`."""
    return f"The body is larger than {max_bytes // 1024**2} MiB. Send less data per request."


BODY_TOO_LARGE_DETAIL = body_too_large_detail(MAX_BODY_SIZE_BYTES)
HEAD_TOO_LARGE_DETAIL = (
    "Path, query and headers together are larger than 32 KiB. Send less; search parameters can be sent in a body."
)
NOT_FOUND_DETAIL = "There is nothing at this path."
UNEXPECTED_ERROR_DETAIL = "An unexpected error occurred on the server. Report the request_id to the operators."

_STATUS_PHRASES = {413: "Content Too Large", 422: "Unprocessable Content"}
"""Reason phrases according to RFC 9110, for the statuses that have an older phrase in Python 3.11 and 3.12."""


def status_phrase(status: int) -> str:
    """Return the reason phrase of an HTTP status, such as `Not Found` for 404."""
    return _STATUS_PHRASES.get(status) or HTTPStatus(status).phrase


_DETAIL_BY_STATUS = {
    404: NOT_FOUND_DETAIL,
    405: "This path does not support this method; see the Allow header.",
    413: BODY_TOO_LARGE_DETAIL,
}


async def _handle_service_error(request: Request, error: Exception) -> ProblemResponse:
    assert isinstance(error, ServiceError)  # noqa: S101  # Starlette passes only the registered errors
    state = RequestState.from_scope(request.scope)
    if isinstance(error, UnavailableError):
        log.warning("unavailable", request_id=state.request_id, cause=type(error.__cause__ or error).__name__)
    is_refused_read = state.is_read and isinstance(error, ValidationFailedError)
    detail = ValidationFailedError.READ_DETAIL if is_refused_read else error.detail
    return ProblemResponse(request.scope, error.status, detail, error.errors, error.headers, **error.extensions)


async def _handle_http_error(request: Request, error: Exception) -> ProblemResponse:
    assert isinstance(error, HTTPException)  # noqa: S101  # as above
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        template, methods = _template_and_methods_at_path(request)
        RequestState.from_scope(request.scope).route = template
        headers["Allow"] = ", ".join(methods)
    detail = _DETAIL_BY_STATUS.get(error.status_code, status_phrase(error.status_code))
    return ProblemResponse(request.scope, error.status_code, detail, headers=headers)


def _template_and_methods_at_path(request: Request) -> tuple[str, list[str]]:
    """Return the path template that matches the request's path, and all methods that are supported for this template.

    This is needed for the `Allow` header, because the framework lists only the methods of the first matching route.
    """
    template = ""
    methods: set[str] = set()
    for route in iter_route_contexts(request.app.routes):
        regex = getattr(route, "path_regex", None)
        if regex is not None and regex.match(request.scope["path"]):
            template = template or route.path_format or ""
            if route.path_format == template:  # `search/` also matches the template of a record's path
                methods |= route.methods or set()
    return template, sorted(methods | {"HEAD"} if "GET" in methods else methods)


def status_for(error: ServiceError | HTTPException | RequestValidationError) -> int:
    """Return the HTTP status with which the service responds to an error."""
    if isinstance(error, RequestValidationError):
        return ValidationFailedError.status
    return error.status if isinstance(error, ServiceError) else error.status_code


async def _handle_validation_error(request: Request, error: Exception) -> ProblemResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101  # as above
    body_field = getattr(request.scope.get("route"), "body_field", None)
    schema = body_field.field_info.annotation if body_field is not None else None
    return await _handle_service_error(request, ValidationFailedError(field_errors(error, schema)))


def add_error_handlers(app: FastAPI) -> None:
    """Register the handlers that turn errors of routes and of the framework into problem responses."""
    app.add_exception_handler(ServiceError, _handle_service_error)
    app.add_exception_handler(HTTPException, _handle_http_error)
    app.add_exception_handler(RequestValidationError, _handle_validation_error)
