"""Everything that can go wrong, and its one mapping to RFC 9457 problems (`application/problem+json`).

    ServiceError                   a rule was broken; the message is for the client
    ├── UnauthorizedError          401, with WWW-Authenticate
    ├── ForbiddenError             403
    │   └── MissingScopeError      naming it
    ├── NotFoundError              404
    ├── ConflictError              409
    │   ├── IdentifierTakenError
    │   ├── IdentifierRetiredError
    │   ├── InUseError
    │   └── LastHospitalError
    ├── PreconditionFailedError    412, with the current ETag
    ├── PreconditionRequiredError  428
    ├── InvalidError               422, with the place of each error
    │   └── UnavailableProfileError
    ├── TooManyRequestsError       429, with Retry-After
    ├── UnreadableBodyError        400
    ├── UnsupportedMediaTypeError  415
    └── UnavailableError           503, with Retry-After

The framework's own errors become problems too, and what nobody thought of is a 500 without internals
(`app.http.middleware`). No problem repeats what the client sent: it is patient data. Ids of hospitals and doctors, and
names of fields and parameters, are not.
"""

import re
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any, ClassVar, NamedTuple

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import iter_route_contexts
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.exceptions import HTTPException
from starlette.types import Scope

log = structlog.get_logger()

MEDIA_TYPE = "application/problem+json"


class FieldError(NamedTuple):
    """One error in a request: `loc` is the way to it, as `("body", "hospital_ids", 1)`."""

    loc: tuple[str | int, ...]
    msg: str
    type: str


class ServiceError(Exception):
    """A rule was broken. `detail` tells a person what to change."""

    status: ClassVar[HTTPStatus]

    def __init__(
        self, detail: str, errors: Iterable[FieldError] = (), headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.errors = list(errors)
        self.headers = headers


class InvalidTokenError(Exception):
    """An access token is not to be trusted; the message is for the log, and holds nothing of the token."""


class UnauthorizedError(ServiceError):
    status = HTTPStatus.UNAUTHORIZED

    def __init__(self, *, invalid: bool = False) -> None:
        detail = "Send an API key or an access token, as `Authorization: Bearer …` (a key also as `X-API-Key`)."
        if invalid:
            detail = "The API key or access token is not valid, or no longer."
        challenge = 'Bearer realm="patients-api"' + (
            ', error="invalid_token"' if invalid else ""
        )  # RFC 6750, section 3
        super().__init__(detail, headers={"WWW-Authenticate": challenge})


class ForbiddenError(ServiceError):
    status = HTTPStatus.FORBIDDEN

    def __init__(self, detail: str, scope: str | None = None) -> None:
        challenge = 'Bearer realm="patients-api", error="insufficient_scope"' + (f', scope="{scope}"' if scope else "")
        super().__init__(detail, headers={"WWW-Authenticate": challenge})


class MissingScopeError(ForbiddenError):
    def __init__(self, scope: str) -> None:
        super().__init__(f"This needs the scope {scope}.", scope)


class NotFoundError(ServiceError):
    status = HTTPStatus.NOT_FOUND

    def __init__(self, resource: str, which: str = "of this unique_id") -> None:
        super().__init__(f"There is no {resource} {which}.")


class ConflictError(ServiceError):
    status = HTTPStatus.CONFLICT


class IdentifierTakenError(ConflictError):
    def __init__(self, resource: str) -> None:
        super().__init__(f"Another {resource} has this unique_id. Choose another, or change that one by PUT.")


class IdentifierRetiredError(ConflictError):
    def __init__(self, resource: str, last: int | None) -> None:
        detail = f"A deleted {resource} had this unique_id, and an id once used never returns to another."
        if last is not None:
            detail += (
                f' To bring that one back, POST {{"version": {last}}} to its restore/ path; else choose another id.'
            )
        super().__init__(detail)


class InUseError(ConflictError):
    def __init__(self, resource: str, patients: int | None) -> None:
        """Say how many `patients` are linked to it, if who asks may know."""
        count = {None: "It is in use: patients are", 1: "1 patient is"}.get(patients, f"{patients} patients are")
        super().__init__(f"{count} linked to this {resource}. Unlink first, then delete.")


class LastHospitalError(ConflictError):
    def __init__(self) -> None:
        super().__init__(
            "This would leave the patient without any of the hospitals that you are limited to, and you without the "
            "patient. Keep one of them in hospital_ids."
        )


class PreconditionFailedError(ServiceError):
    status = HTTPStatus.PRECONDITION_FAILED

    def __init__(
        self,
        etag: str | None = None,
        detail: str = "The record is not, or no longer, what the ETag in If-Match stands for. Nothing was stored: "
        "read it again, and apply the change to what it is now.",
    ) -> None:
        super().__init__(detail, headers={"ETag": etag} if etag else None)


class PreconditionRequiredError(ServiceError):
    status = HTTPStatus.PRECONDITION_REQUIRED

    def __init__(self) -> None:
        super().__init__("Send If-Match with the ETag of what you have read, so that nobody's change is overwritten.")


class InvalidError(ServiceError):
    status = HTTPStatus.UNPROCESSABLE_ENTITY

    def __init__(self, errors: Iterable[FieldError]) -> None:
        super().__init__("The request has errors; nothing of it was stored.", errors)


class UnavailableProfileError(InvalidError):
    def __init__(self) -> None:
        place = ("body", "patient_profile", "unique_id")
        message = "Is not available to you: leave the profile out, or choose another unique_id for a new one"
        super().__init__([FieldError(place, message, "profile_unavailable")])


class TooManyRequestsError(ServiceError):
    status = HTTPStatus.TOO_MANY_REQUESTS

    def __init__(self, seconds: int) -> None:
        super().__init__("Too many requests. Wait, then go on more slowly.", headers={"Retry-After": str(seconds)})


class UnreadableBodyError(ServiceError):
    status = HTTPStatus.BAD_REQUEST


class UnsupportedMediaTypeError(ServiceError):
    status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE

    def __init__(self) -> None:
        super().__init__("Send the body as application/json, in UTF-8.")


class UnavailableError(ServiceError):
    status = HTTPStatus.SERVICE_UNAVAILABLE

    def __init__(self, detail: str = "The database cannot be reached or is too busy at the moment. Try again.") -> None:
        super().__init__(detail, headers={"Retry-After": "1"})


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
        content = problem_content(status, detail, scope["state"]["request_id"])
        if listed := [error._asdict() for error in errors]:
            content["errors"] = listed
        super().__init__(content, status, headers)


MAX_ERRORS = 100
"""The most errors that an answer lists."""
BODY_TOO_LARGE = "The body is larger than 1 MiB. Send less at once."
UNEXPECTED = "Something went wrong on our side. Tell the operators the request_id."

_TITLES = {413: "Content Too Large", 422: "Unprocessable Content"}
"""RFC 9110's names where Python 3.11 and 3.12 have older ones."""


def title(status: int) -> str:
    """The name of a status."""
    return _TITLES.get(status) or HTTPStatus(status).phrase


_DETAILS = {
    404: "There is nothing at this path.",
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
    errors = field_errors(error)
    invalid = InvalidError(errors)
    if len(errors) > MAX_ERRORS:
        invalid.detail += f" Here are the first {MAX_ERRORS} of {len(errors)} errors."
        del errors[MAX_ERRORS:]
    return ProblemResponse(request.scope, invalid.status, invalid.detail, errors)


def add_error_handlers(app: FastAPI) -> None:
    """Make problems of the errors that routes and the framework raise."""
    app.add_exception_handler(ServiceError, _service_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
