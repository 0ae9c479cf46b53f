"""Everything that can go wrong; `app.http.problems` makes RFC 9457 problems of it.

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

No message repeats what the client sent: it is patient data. Ids of hospitals and doctors, and names of fields and
parameters, are not.
"""

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import ClassVar, NamedTuple


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

    def __init__(self, resource: str, qualifier: str = "of this unique_id") -> None:
        super().__init__(f"There is no {resource} {qualifier}.")


class ConflictError(ServiceError):
    status = HTTPStatus.CONFLICT


class IdentifierTakenError(ConflictError):
    def __init__(self, resource: str) -> None:
        super().__init__(f"Another {resource} has this unique_id. Choose another, or change that one by PUT.")


class IdentifierRetiredError(ConflictError):
    def __init__(self, resource: str, last_version: int | None) -> None:
        detail = f"A deleted {resource} had this unique_id, and an id once used never returns to another."
        if last_version is not None:
            detail += f' To bring that one back, POST {{"version": {last_version}}} to its restore/ path; '
            detail += "else choose another id."
        super().__init__(detail)


class InUseError(ConflictError):
    def __init__(self, resource: str, patient_count: int | None) -> None:
        """Say how many `patients` are linked to it, if who asks may know."""
        count = {None: "It is in use: patients are", 1: "1 patient is"}.get(
            patient_count, f"{patient_count} patients are"
        )
        super().__init__(f"{count} linked to this {resource}. Unlink first, then delete.")


class FormerProfilesError(ConflictError):
    def __init__(self, profile_count: int) -> None:
        former_profiles = "1 other profile" if profile_count == 1 else f"{profile_count} other profiles"
        super().__init__(
            f"The patient once had {former_profiles} that no patient has now; its history tells which. "
            "Say what becomes of it all: --former-profiles erase, or keep."
        )


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


class ValidationFailedError(ServiceError):
    status = HTTPStatus.UNPROCESSABLE_ENTITY

    def __init__(self, errors: Iterable[FieldError]) -> None:
        super().__init__("The request has errors; nothing of it was stored.", errors)


class ProfileNotAccessibleError(ValidationFailedError):
    def __init__(self) -> None:
        location = ("body", "patient_profile", "unique_id")
        message = "Is not available to you: leave the profile out, or choose another unique_id for a new one"
        super().__init__([FieldError(location, message, "profile_unavailable")])


class TooManyRequestsError(ServiceError):
    status = HTTPStatus.TOO_MANY_REQUESTS

    def __init__(self, retry_after_seconds: int) -> None:
        super().__init__(
            "Too many requests. Wait, then go on more slowly.", headers={"Retry-After": str(retry_after_seconds)}
        )


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
