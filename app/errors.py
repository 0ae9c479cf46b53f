"""The errors of the service. `app.http.problems` turns each of them into an RFC 9457 problem response.

    ServiceError                   the base class; the message is sent to the client
    ├── UnauthorizedError          401, with WWW-Authenticate
    ├── ForbiddenError             403, with WWW-Authenticate
    │   └── MissingScopeError      names the scope
    ├── NotFoundError              404
    │   └── MergedError            410, names the record that it was merged into
    ├── BodyTimeoutError           408
    ├── ConflictError              409
    │   ├── IdentifierTakenError
    │   ├── IdentifierRetiredError
    │   ├── InUseError
    │   ├── FormerProfilesError
    │   ├── LastHospitalError
    │   ├── AlreadyMergedError     names the record that it was merged into
    │   ├── NotMergedError
    │   ├── SurvivorMissingError
    │   ├── UndoFirstError         names the record whose merge to undo first
    │   ├── PatientIdentifierTakenError  with the location of each error
    │   └── PossibleDuplicateError  lists the patients
    ├── GoneError                  410
    ├── FeedExpiredError           410
    ├── PreconditionFailedError    412, with the current ETag
    ├── MultipleMatchesError       412
    ├── PreconditionRequiredError  428
    ├── ValidationFailedError      422, with the location of each error
    │   └── ProfileNotAccessibleError
    ├── TooManyRequestsError       429, with Retry-After
    ├── ImportTooLargeError        413
    ├── UnreadableBodyError        400
    ├── InvalidSearchError         400, with the location of each error
    ├── NotAcceptableError         406
    ├── UnsupportedMediaTypeError  415
    └── UnavailableError           503, with Retry-After

Messages never repeat input of the client, because it may be patient data. Ids of hospitals and doctors, and names of
fields and parameters, are not patient data and may appear in messages.
"""

from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

from app.error_types import ErrorType, FhirErrorType, FileErrorType


class FieldError(NamedTuple):
    """One error in a field or parameter of a request.

    `loc` is the location of the error, such as `("body", "hospital_ids", 1)`. `msg` is a message for people, and `type`
    is a code for programs.
    """

    loc: tuple[str | int, ...]
    msg: str
    type: ErrorType | FileErrorType | FhirErrorType

    @property
    def location_in_body(self) -> tuple[str | int, ...] | None:
        """The location within the body, such as `("hospital_ids", 1)`, or None if the error is not about the body."""
        return self.loc[1:] if self.loc[:1] == ("body",) else None


class ServiceError(Exception):
    """An error that becomes a problem response with the HTTP status `status`.

    `detail` is the message of the response and tells the client what to do. `errors` are the errors that the response
    lists, `headers` are further headers of the response, and `extensions` further members of the problem.
    """

    status: ClassVar[HTTPStatus]
    extensions: Mapping[str, Any] = MappingProxyType({})

    def __init__(
        self, detail: str, errors: Iterable[FieldError] = (), headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.errors = list(errors)
        self.headers = headers


class InvalidTokenError(Exception):
    """An access token cannot be trusted. The message is intended for the log and quotes no part of the token."""


class UnauthorizedError(ServiceError):
    status = HTTPStatus.UNAUTHORIZED

    def __init__(self, *, invalid: bool = False) -> None:
        detail = "Send an API key or an access token as `Authorization: Bearer …` (an API key also as `X-API-Key`)."
        if invalid:
            detail = "The API key or access token is invalid, expired or revoked."
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
        super().__init__(f"This request needs the scope {scope}.", scope)


class NotFoundError(ServiceError):
    status = HTTPStatus.NOT_FOUND

    def __init__(self, resource: str, qualifier: str = "with this unique_id") -> None:
        super().__init__(f"There is no {resource} {qualifier}.")


class MergedError(NotFoundError):
    status = HTTPStatus.GONE

    def __init__(self, resource: str, merged_into: str) -> None:
        """Name the record that now stands for the merged one in the problem, as `merged_into`."""
        ServiceError.__init__(
            self,
            f"This {resource} was merged into another one: use the {resource} with the id in merged_into. The history "
            "stays readable. To undo the merge, POST to the unmerge/ path.",
        )
        self.extensions = {"merged_into": merged_into}


class ConflictError(ServiceError):
    status = HTTPStatus.CONFLICT


class IdentifierTakenError(ConflictError):
    def __init__(self, resource: str) -> None:
        super().__init__(
            f"Another {resource} already has this unique_id. Choose another unique_id, or update that one with PUT."
        )


class IdentifierRetiredError(ConflictError):
    def __init__(self, resource: str, last_version: int | None, *, state: str = "deleted") -> None:
        detail = f"A {state} {resource} had this unique_id, and a unique_id is never reused."
        if state == "merged":
            detail += f" GET its path to learn which {resource} it was merged into, or choose another unique_id."
        if last_version is not None:
            detail += f' To restore that record, POST {{"version": {last_version}}} to its restore/ path; '
            detail += "otherwise choose another unique_id."
        super().__init__(detail)


class InUseError(ConflictError):
    def __init__(self, resource: str, patient_count: int | None) -> None:
        """State in the message how many patients are linked to the record.

        If the client may not learn this number, `patient_count` is None and the message says "one or more".
        """
        count = {None: "One or more patients are", 1: "1 patient is"}.get(
            patient_count, f"{patient_count} patients are"
        )
        super().__init__(f"{count} linked to this {resource}. Remove all links to it, then delete it.")


class FormerProfilesError(ConflictError):
    def __init__(self, profile_count: int) -> None:
        former_profiles = "1 other profile" if profile_count == 1 else f"{profile_count} other profiles"
        super().__init__(
            f"The patient previously had {former_profiles} that no patient has now; the patient's history shows which. "
            "Decide what happens to all such profiles: pass --former-profiles erase or --former-profiles keep."
        )


class LastHospitalError(ConflictError):
    def __init__(self) -> None:
        super().__init__(
            "This change would remove the patient from every hospital that your credentials are restricted to, and you "
            "would lose access to the patient. Keep at least one of these hospitals in hospital_ids."
        )


class AlreadyMergedError(ConflictError):
    def __init__(self, resource: str, merged_into: str) -> None:
        super().__init__(
            f"The {resource} in from was already merged into another one, which merged_into names. Merge that one, or "
            "undo the merge first: POST to the unmerge/ path of the one in from."
        )
        self.extensions = {"merged_into": merged_into}


class NotMergedError(ConflictError):
    def __init__(self, resource: str) -> None:
        super().__init__(f"This {resource} is not merged into another one, so there is nothing to undo.")


class SurvivorMissingError(ConflictError):
    def __init__(self, resource: str) -> None:
        super().__init__(
            f"The {resource} that this one was merged into is deleted, or not visible to you. Restore it, then undo "
            "the merge."
        )


class UndoFirstError(ConflictError):
    def __init__(self, resource: str, unique_id: str) -> None:
        super().__init__(
            f"Merges are undone from the newest: first POST to the unmerge/ path of the {resource} that undo_first "
            "names."
        )
        self.extensions = {"undo_first": unique_id}


class PatientIdentifierTakenError(ConflictError):
    def __init__(self, locations: Iterable[tuple[str | int, ...]]) -> None:
        """State where the identifiers are in the request, but not which patients have them: the client may not know."""
        message = "Is taken: another patient has this identifier"
        super().__init__(
            "Another patient has the same identifier, so nothing was stored. Search for the identifier, and open the "
            "patient's record, or correct the identifier.",
            [FieldError(location, message, "patient_identifier_taken") for location in locations],
        )


class PossibleDuplicateError(ConflictError):
    def __init__(self, duplicates: Sequence[Mapping[str, str]]) -> None:
        """List the patients in the problem. Each has a `unique_id` and a `grade`."""
        message = "May describe a person who is registered already"
        super().__init__(
            "This person may be registered already, so nothing was stored. Open the records in `duplicates`, or send "
            "their ids as not_duplicates to register another person.",
            [FieldError(("body",), message, "possible_duplicate")],
        )
        self.extensions = {"duplicates": list(duplicates)}


class GoneError(ServiceError):
    status = HTTPStatus.GONE

    def __init__(self, resource: str) -> None:
        super().__init__(f"This {resource} was deleted.")


class FeedExpiredError(ServiceError):
    status = HTTPStatus.GONE

    def __init__(self) -> None:
        super().__init__(
            "The changes after this cursor are no longer known: they have expired, the database was restored from a "
            "backup, or your hospitals have changed. Take a new copy, and continue after its Changes-Cursor."
        )


class PreconditionFailedError(ServiceError):
    status = HTTPStatus.PRECONDITION_FAILED

    def __init__(
        self,
        etag: str | None = None,
        detail: str = "The record does not match, or no longer matches, the ETag in If-Match. Nothing was stored: read "
        "the record again and apply your change to its current version.",
    ) -> None:
        super().__init__(detail, headers={"ETag": etag} if etag else None)


class MultipleMatchesError(ServiceError):
    status = HTTPStatus.PRECONDITION_FAILED

    def __init__(self) -> None:
        message = "Several resources match the condition, so nothing was stored"
        super().__init__(message, [FieldError(("request",), message, "too_many_matches")])


class PreconditionRequiredError(ServiceError):
    status = HTTPStatus.PRECONDITION_REQUIRED

    def __init__(self, other_record: str = "") -> None:
        """`other_record` says what to send for another record that the request changes."""
        super().__init__(
            f"Send If-Match with the ETag of the record as you read it{other_record}, to avoid overwriting another "
            "client's change."
        )


class ValidationFailedError(ServiceError):
    status = HTTPStatus.UNPROCESSABLE_ENTITY
    READ_DETAIL: ClassVar[str] = "The request has errors."
    """The message of the response to a request that would not have stored anything."""

    def __init__(self, errors: Iterable[FieldError]) -> None:
        super().__init__("The request has errors, so nothing was stored.", errors)


class ProfileNotAccessibleError(ValidationFailedError):
    def __init__(self) -> None:
        location = ("body", "patient_profile", "unique_id")
        message = "Is not available to you: omit the profile, or choose another unique_id to create a new one"
        super().__init__([FieldError(location, message, "profile_unavailable")])


class TooManyRequestsError(ServiceError):
    status = HTTPStatus.TOO_MANY_REQUESTS

    def __init__(self, retry_after_seconds: int) -> None:
        super().__init__(
            "Too many requests. Wait, then send requests more slowly.",
            headers={"Retry-After": str(retry_after_seconds)},
        )


class BodyTimeoutError(ServiceError):
    status = HTTPStatus.REQUEST_TIMEOUT

    def __init__(self, limit_seconds: float) -> None:
        super().__init__(f"The body did not arrive within {limit_seconds:.0f} seconds. Send less data per request.")


class ImportTooLargeError(ServiceError):
    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE

    def __init__(self) -> None:
        super().__init__("An import has at most 16 MiB and 10,000 lines, each of at most 1 MiB. Send several imports.")


class InvalidSearchError(ServiceError):
    status = HTTPStatus.BAD_REQUEST

    def __init__(self, errors: Iterable[FieldError]) -> None:
        super().__init__("The parameters have errors.", errors)


class NotAcceptableError(ServiceError):
    status = HTTPStatus.NOT_ACCEPTABLE

    def __init__(self, media_type: str) -> None:
        super().__init__(f"Responses have the format {media_type}. Accept it.")


class UnreadableBodyError(ServiceError):
    status = HTTPStatus.BAD_REQUEST


class UnsupportedMediaTypeError(ServiceError):
    status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE

    def __init__(self, media_type: str = "application/json") -> None:
        super().__init__(f"Send the body as {media_type} in UTF-8.")


class UnavailableError(ServiceError):
    status = HTTPStatus.SERVICE_UNAVAILABLE

    def __init__(self, detail: str = "The database cannot be reached or is currently too busy. Try again.") -> None:
        super().__init__(detail, headers={"Retry-After": "1"})
