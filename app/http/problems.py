"""The one mapping of errors to RFC 9457 problems (`application/problem+json`).

The framework's own errors become problems too, and what nobody thought of is a 500 without internals
(`app.http.middleware`).
"""

import re
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import iter_route_contexts
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.exceptions import HTTPException
from starlette.types import Scope

from app.errors import FieldError, InvalidError, ServiceError, UnavailableError

log = structlog.get_logger()

MEDIA_TYPE = "application/problem+json"


class ProblemError(BaseModel):
    """One error in a request."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    loc: list[str | int] = Field(examples=[["body", "hospital_ids", 1]])
    """The way to the error."""
    msg: str = Field(examples=["There is no hospital of the unique_id hos999"])
    """What to change, for people."""
    type: str = Field(examples=["unknown_hospital"])
    """What is wrong, for programs."""


class Problem(BaseModel):
    """What went wrong: an RFC 9457 problem."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    type: str = Field(examples=["about:blank"])
    title: str = Field(examples=["Unprocessable Content"])
    status: int = Field(examples=[422])
    detail: str = Field(examples=["The request has errors; nothing of it was stored."])
    instance: str = Field(examples=["urn:request:req_01jd3v4wq0c9h4t5k6m7n8p9q0"])
    request_id: str = Field(examples=["req_01jd3v4wq0c9h4t5k6m7n8p9q0"])
    """The id of the request, as in `X-Request-ID` and the log."""
    errors: list[ProblemError] = Field(default_factory=list)
    """All errors of the fields at once, or all ids that do not exist; where the status is 422."""


def problem_content(status: int, detail: str, request_id: str) -> dict[str, Any]:
    """A problem's members. `type` is `about:blank`: the status says it all (RFC 9457, section 4.2.1)."""
    return {
        "type": "about:blank",
        "title": title(status),
        "status": status,
        "detail": detail,
        "instance": f"urn:request:{request_id}",
        "request_id": request_id,
    }


class ProblemResponse(JSONResponse):
    """A problem."""

    media_type = MEDIA_TYPE

    def __init__(
        self,
        scope: Scope,
        status: int,
        detail: str,
        errors: Iterable[FieldError] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        errors = list(errors)
        if len(errors) > MAX_ERRORS:
            detail += f" Here are the first {MAX_ERRORS} of {len(errors)} errors."
        content = problem_content(status, detail, scope["state"]["request_id"])
        if listed := [error._asdict() for error in errors[:MAX_ERRORS]]:
            content["errors"] = listed
        super().__init__(content, status, headers)


MAX_ERRORS = 100
"""The most errors that an answer lists."""
BODY_TOO_LARGE = "The body is larger than 1 MiB. Send less at once."
HEAD_TOO_LARGE = "Path, query and headers are larger than 32 KiB. Send less; what is searched for may stand in a body."
NOTHING_HERE = "There is nothing at this path."
UNEXPECTED = "Something went wrong on our side. Tell the operators the request_id."

_TITLES = {413: "Content Too Large", 422: "Unprocessable Content"}
"""RFC 9110's names where Python 3.11 and 3.12 have older ones."""


def title(status: int) -> str:
    """The name of a status."""
    return _TITLES.get(status) or HTTPStatus(status).phrase


_DETAILS = {
    404: NOTHING_HERE,
    405: "This path does not answer this method; see the Allow header.",
    413: BODY_TOO_LARGE,
}


async def _service_error(request: Request, error: Exception) -> ProblemResponse:
    assert isinstance(error, ServiceError)  # noqa: S101  # Starlette passes only what the handler is registered for
    if isinstance(error, UnavailableError):
        request_id = request.scope["state"]["request_id"]
        log.warning("unavailable", request_id=request_id, cause=type(error.__cause__ or error).__name__)
    return ProblemResponse(request.scope, error.status, error.detail, error.errors, error.headers)


async def _http_error(request: Request, error: Exception) -> ProblemResponse:
    assert isinstance(error, HTTPException)  # noqa: S101  # as above
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        template, methods = _at_this_path(request)
        request.scope["state"]["route"] = template
        headers["Allow"] = ", ".join(methods)
    detail = _DETAILS.get(error.status_code, title(error.status_code))
    return ProblemResponse(request.scope, error.status_code, detail, headers=headers)


def _at_this_path(request: Request) -> tuple[str, list[str]]:
    """The template of the request's path, and all its methods: the framework names those of its first route alone."""
    template = ""
    methods: set[str] = set()
    for route in iter_route_contexts(request.app.routes):
        regex = getattr(route, "path_regex", None)
        if regex is not None and regex.match(request.scope["path"]):
            template = template or route.path_format or ""
            if route.path_format == template:  # `search/` is no id
                methods |= route.methods or set()
    return template, sorted(methods | {"HEAD"} if "GET" in methods else methods)


_MESSAGES = {
    "missing": "Must be given",
    "extra_forbidden": "There is no such field or parameter",
}
_FIELD_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")


def _place(part: str | int) -> str | int:
    """A step of an error's way. A key of the client's own that is no field's name may be data: it is not repeated."""
    return part if isinstance(part, int) or _FIELD_NAME.fullmatch(part) else "(a key that is no field's name)"


def field_errors(error: ValidationError | RequestValidationError) -> list[FieldError]:
    """What validation found, in our words; nothing in it repeats the input."""
    return [
        FieldError(tuple(_place(part) for part in item["loc"]), _MESSAGES.get(item["type"], item["msg"]), item["type"])
        for item in error.errors()
    ]


def status_of(error: ServiceError | HTTPException | RequestValidationError) -> int:
    """The status with which an error is answered."""
    if isinstance(error, RequestValidationError):
        return InvalidError.status
    return error.status if isinstance(error, ServiceError) else error.status_code


async def _validation_error(request: Request, error: Exception) -> ProblemResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101  # as above
    return await _service_error(request, InvalidError(field_errors(error)))


def add_error_handlers(app: FastAPI) -> None:
    """Make problems of the errors that routes and the framework raise."""
    app.add_exception_handler(ServiceError, _service_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
