"""The parts of OpenAPI descriptions that routes share: headers, parameters and problem responses."""

from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import BaseModel

from app.audit.break_glass import MAX_REASON_LENGTH
from app.auth.scopes import Scope
from app.errors import (
    BodyTimeoutError,
    FeedExpiredError,
    IdentifierRetiredError,
    MissingScopeError,
    NotFoundError,
    PreconditionFailedError,
    PreconditionRequiredError,
    ServiceError,
    TooManyRequestsError,
    UnauthorizedError,
    UnavailableError,
    UnsupportedMediaTypeError,
    ValidationFailedError,
)
from app.http.problems import (
    BODY_TOO_LARGE_DETAIL,
    HEAD_TOO_LARGE_DETAIL,
    PROBLEM_MEDIA_TYPE,
    UNEXPECTED_ERROR_DETAIL,
    problem_content,
    status_phrase,
)
from app.http.query_parameters import query_parameters
from app.records.idempotency import KEY_PATTERN

JsonObject = dict[str, Any]

_EXAMPLE_REQUEST_ID = "req_01m82ajx1ew0r14nzv08mnkrmd"

RESPONSE_HEADERS: JsonObject = {
    "X-Request-ID": {
        "description": "The id of the request in the log: the request's own `X-Request-ID` if it sent a usable one.",
        "required": True,
        "schema": {"type": "string"},
        "example": _EXAMPLE_REQUEST_ID,
    },
    "Retry-After": {
        "description": "The number of seconds after which to try again.",
        "required": True,
        "schema": {"type": "integer"},
        "example": 1,
    },
    "ETag": {
        "description": "Identifies the state of the whole record, whatever `fields` selects: send it as `If-Match` "
        "with a change, or as `If-None-Match` to ask whether it has changed.",
        "required": True,
        "schema": {"type": "string"},
        "example": '"9Jd3v4wq0c9h4t5k6m7n8p"',
    },
    "Idempotency-Replayed": {
        "description": "`true` if this is the stored response to an earlier request with the same `Idempotency-Key`.",
        "schema": {"type": "string", "enum": ["true"]},
    },
    "Audit-Reads": {
        "description": "`false` if the service records changes only: who has read which records is then unknown.",
        "required": True,
        "schema": {"type": "string", "enum": ["true", "false"]},
        "example": "true",
    },
    "Same-Name-As": {
        "description": "A warning: the ids of other records that have the same name, apart from case and accents, "
        "separated by commas. At most 10 are listed.",
        "schema": {"type": "string"},
        "example": "hos123, hos456",
    },
    "Identifier-Warning": {
        "description": "A warning: which identifiers disagree with the date of birth or the gender.",
        "schema": {"type": "string"},
        "example": "patient_identifiers.0.value disagrees with patient_date_of_birth",
    },
    "WWW-Authenticate": {
        "description": "What is missing: credentials, valid credentials, or a scope (RFC 6750).",
        "required": True,
        "schema": {"type": "string"},
        "example": 'Bearer realm="patients-api", error="invalid_token"',
    },
}
"""Response headers that several operations return, for `components.headers` of the OpenAPI document."""

IF_MATCH: JsonObject = {
    "name": "If-Match",
    "description": "The `ETag` of the representation you read: the change is made only if the record is still the "
    "same, otherwise the response is 412. Operators may require this header (428).",
}
IF_NONE_MATCH: JsonObject = {
    "name": "If-None-Match",
    "description": "The `ETag` of the representation you have: the response is 304 without a body if it is still "
    "current.",
}
IF_NONE_MATCH_ANY: JsonObject = {
    "name": "If-None-Match",
    "description": "`*`: create the record only if none has this `unique_id`, otherwise the response is 412.",
}
IDEMPOTENCY_KEY: JsonObject = {
    "name": "Idempotency-Key",
    "description": "A text of up to 255 characters that is unique for each request, such as a UUID. A request repeated "
    "with the same key within 24 hours gets the response of the first one, and changes nothing.",
    "schema": {"type": "string", "pattern": KEY_PATTERN},
}
BREAK_GLASS: JsonObject = {
    "name": "X-Break-Glass",
    "description": "In an emergency, the reason for reading a patient of other hospitals, in at least two words with "
    "ten letters in all. It is audited, with the caller and the time, and needs the scope `patients:break-glass`.",
    "schema": {"type": "string", "maxLength": MAX_REASON_LENGTH},
}


def request_parameters(
    *, query: type[BaseModel] | None = None, headers: Iterable[JsonObject] = ()
) -> dict[str, list[JsonObject]]:
    """Return the `openapi_extra` that describes the query parameters and the request headers of an operation.

    `query` is the model of the query parameters. `headers` are OpenAPI parameters such as `IF_MATCH`.
    """
    parameters = [] if query is None else query_parameters(query)
    parameters += [{"in": "header", "schema": {"type": "string"}, **one} for one in headers]
    return {"parameters": parameters} if parameters else {}


def header_references(*names: str) -> JsonObject:
    """Return the `headers` of a response, with one reference to `components.headers` for each name."""
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def not_modified_response(noun: str) -> dict[int | str, JsonObject]:
    """Return the `responses` of an operation that returns 304 if `If-None-Match` names the current `noun`."""
    description = f"The {noun} is still the one that `If-None-Match` names."
    return {304: {"description": description, "headers": header_references("ETag")}}


def location_header(path: str) -> JsonObject:
    """Return the OpenAPI description of the `Location` header for a record that is created below `path`."""
    return {
        "Location": {
            "description": "The path of the new record.",
            "required": True,
            "schema": {"type": "string"},
            "example": f"{path}an-id/",
        }
    }


def page_headers(path: str) -> JsonObject:
    """Return the OpenAPI descriptions of the headers that lead from a page of the list at `path` to other pages."""
    return {
        "Link": {
            "description": 'On a page: the URL of the next page, as `<…>; rel="next"`, if there is one, and of the '
            "first.",
            "schema": {"type": "string"},
            "example": f'<{path}?limit=100&cursor=t1Q9Zk3m0aXl>; rel="next", <{path}?limit=100>; rel="first"',
        },
        **NEXT_CURSOR_HEADER,
    }


NEXT_CURSOR_HEADER: JsonObject = {
    "Next-Cursor": {
        "description": "On a page: the `cursor` of the next page, if there is one.",
        "schema": {"type": "string"},
        "example": "t1Q9Zk3m0aXl",
    }
}
CHANGES_CURSOR_HEADER: JsonObject = {
    "Changes-Cursor": {
        "description": "On a whole list: the cursor after which `GET /changes/` lists what this list may not show yet. "
        "It needs the scope `changes:read`.",
        "schema": {"type": "string"},
        "example": "t1Q9Zk3m0aXl",
    }
}
TOTAL_COUNT_HEADER: JsonObject = {
    "X-Total-Count": {
        "description": "The number of records in the list, if requested by `count=exact`; for more than 1,000 matches "
        "of a filter or a search, an estimate with two digits.",
        "schema": {"type": "integer"},
        "example": 2543,
    }
}

SEARCH_HEADERS: JsonObject = {
    "Search-Agreement": {
        "description": "On the first page of a search: `full` if patients agree with everything in the search text. "
        "Otherwise how well the best patient agrees, `partial` or `weak`, or `none` if no patient is found.",
        "schema": {"type": "string", "enum": ["full", "partial", "weak", "none"]},
        "example": "full",
    },
    "Search-Set-Aside": {
        "description": "On the first page of a search: the number of words, dates and numbers in the search text that "
        "the best patient does not agree with.",
        "schema": {"type": "integer"},
        "example": 0,
    },
}
PAGE_ERRORS: Sequence[JsonObject] = [
    {"loc": ["query", "limit"], "msg": "Must be at most 1000", "type": "less_than_equal"}
]
"""Example of the `errors` in a 422 problem, for operations that return a list."""

_DETAILS: dict[int, str] = {
    400: "The body is not valid JSON: Expecting value at line 1, column 24.",
    401: UnauthorizedError().detail,
    408: BodyTimeoutError(120).detail,
    412: PreconditionFailedError().detail,
    413: BODY_TOO_LARGE_DETAIL,
    415: UnsupportedMediaTypeError().detail,
    422: ValidationFailedError([]).detail,
    429: TooManyRequestsError(1).detail,
    428: PreconditionRequiredError().detail,
    431: HEAD_TOO_LARGE_DETAIL,
    500: UNEXPECTED_ERROR_DETAIL,
    503: UnavailableError().detail,
}
"""Example of the `detail` for each status, except those that have a different example for each operation."""
_PROBLEM_HEADERS = {
    401: ("WWW-Authenticate",),
    403: ("WWW-Authenticate",),
    429: ("Retry-After",),
    503: ("Retry-After",),
}


def problem_responses(
    *statuses: int,
    noun: str = "record",
    conflict: ServiceError | None = None,
    gone: ServiceError | None = None,
    errors: Sequence[JsonObject] = (),
    uses_database: bool = True,
) -> dict[int | str, JsonObject]:
    """Return the `responses` of an operation for `statuses`, 431, 500 and, if the operation uses the database, 503.

    `noun` names the missing record in the example of a 404 problem. `conflict` is the error in the example of a 409
    problem, `gone` that of a 410 problem. `errors` are the errors that the example of a 422 problem lists.
    """
    details = {
        404: NotFoundError(noun).detail,
        409: (conflict or IdentifierRetiredError(noun, 3)).detail,
        410: (gone or FeedExpiredError()).detail,
    }
    all_statuses = sorted({*statuses, 431, 500, *({503} if uses_database else ())})
    return {status: _problem_response(status, details.get(status), errors) for status in all_statuses}


def refused_read_response(response: JsonObject) -> JsonObject:
    """Return the 422 `response` of an operation that changes nothing, whose message does not speak of storing."""
    media_type = response["content"][PROBLEM_MEDIA_TYPE]
    example = {**media_type["example"], "detail": ValidationFailedError.READ_DETAIL}
    return {**response, "content": {PROBLEM_MEDIA_TYPE: {**media_type, "example": example}}}


def access_problem_responses(scope: Scope | None) -> dict[int | str, JsonObject]:
    """Return the 401, 403 and 429 `responses` of an operation that requires `scope`.

    Without a `scope`, any credentials suffice, and there is no 403.
    """
    responses: dict[int | str, JsonObject] = {401: _problem_response(401), 429: _problem_response(429)}
    if scope is not None:
        responses[403] = _problem_response(403, MissingScopeError(scope).detail)
    return responses


def _problem_response(status: int, detail: str | None = None, errors: Sequence[JsonObject] = ()) -> JsonObject:
    example = problem_content(status, detail or _DETAILS.get(status) or status_phrase(status), _EXAMPLE_REQUEST_ID)
    if status == 422 and errors:  # noqa: PLR2004  # only this status lists errors
        example["errors"] = errors
    return {
        "description": status_phrase(status),
        "content": {PROBLEM_MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}, "example": example}},
        "headers": header_references(*_PROBLEM_HEADERS.get(status, ())),
    }
