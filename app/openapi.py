"""The OpenAPI document: what FastAPI derives from the routes, and what it does not know."""

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from app.auth.break_glass import MOST_CHARACTERS
from app.auth.scopes import SCHEMES, needed
from app.errors import IdentifierRetiredError, InUseError, MissingScopeError, NotFoundError
from app.http.problems import Problem, title
from app.resource.idempotency import PATTERN
from app.resource.schemas import Schema, untitle

Json = dict[str, Any]

DESCRIPTION: Json = {
    "title": "Patients API",
    "version": "0.1.0",
    "summary": "Patients, their profiles, hospitals and doctors.",
    "description": (
        "A list is a bare array: everything, or a page where `limit` is given; one record a line with `Accept: "
        "application/x-ndjson`. A change leaves alone what it does not name; `null` clears. Every error is an RFC 9457 "
        "problem, `application/problem+json`, with all fields that are wrong at once; whether hospitals and doctors "
        "exist is looked up when the fields are right. Every path works without its last slash too."
    ),
    "license_info": {"name": "MIT", "identifier": "MIT"},
    "openapi_tags": [
        {"name": "patients", "description": "Patients, each with a profile, hospitals and doctors."},
        {"name": "profiles", "description": "Accounts that patients are linked to."},
        {"name": "hospitals", "description": "The hospitals that patients may be linked to."},
        {"name": "doctors", "description": "The doctors that patients may be linked to."},
        {"name": "audit", "description": "Who has looked at whom."},
        {"name": "health", "description": "For those who run the service."},
    ],
}

_WORDS = {
    "list": ("List {}", "All {}, or a page of them."),
    "search": ("Search for {}", "Those that are wanted, or a page of them."),
    "list_history": ("List what was done to a {}", "Its versions, newest first."),
    "get_version": ("Get a {} as it was in one version", "The version."),
    "list_access": ("List who has seen a {}", "Looks and changes, newest first."),
    "list_entries": ("List who has looked at whom", "Entries, newest first."),
    "restore": ("Restore a {}", "The {} as it is now."),
    "create": ("Create a {}", "The new {}."),
    "get": ("Get a {}", "The {}."),
    "update": ("Update a {}", "The {} as it is now."),
    "patch": ("Update a {}, as PUT does", "The {} as it is now."),
    "delete": ("Delete a {}", "The {} is deleted."),
    "livez": ("Tell whether the process lives", "It lives."),
    "readyz": ("Tell whether the service can serve", "It can."),
    "metrics": ("Tell what is measured", "The metrics."),
}
"""The summary of an operation and the description of its success, by its operationId without the resource."""

_IDS = {"patient": "pat123", "profile": "prof123", "hospital": "hos123", "doctor": "doc123"}
"""Of the demo data, so that "Try it out" finds something."""

_ERRORS = {
    "list": [
        {"loc": ["query", "limit"], "msg": "Input should be less than or equal to 1000", "type": "less_than_equal"}
    ],
    "search": [{"loc": ["body", "search"], "msg": "Must have at most 8 words", "type": "search_words"}],
    "patient": [
        {"loc": ["body", "patient_date_of_birth"], "msg": "Must be a date written YYYY-MM-DD", "type": "date"},
        {
            "loc": ["body", "patient_email_address"],
            "msg": "Must be an e-mail address such as name@example.com",
            "type": "email",
        },
    ],
    "profile": [
        {"loc": ["body", "email"], "msg": "Must be an e-mail address such as name@example.com", "type": "email"}
    ],
    "hospital": [{"loc": ["body", "hospital_name"], "msg": "Must not be blank", "type": "string_blank"}],
    "doctor": [{"loc": ["body", "doctor_first_name"], "msg": "Must not be blank", "type": "string_blank"}],
    "restore": [{"loc": ["body", "version"], "msg": "Must be a version of the history", "type": "unknown_version"}],
    "get_version": [{"loc": ["path", "version"], "msg": "Input should be a valid integer", "type": "int_parsing"}],
}
"""Examples of what a 422 lists, by operation or by resource."""

_REQUEST_ID = {
    "description": "The id of the request in the log: the request's own `X-Request-ID` if it sent a usable one.",
    "required": True,
    "schema": {"type": "string"},
    "example": "req_01m82ajx1ew0r14nzv08mnkrmd",
}
_RETRY_AFTER = {
    "description": "The seconds after which to try again.",
    "required": True,
    "schema": {"type": "integer"},
    "example": 1,
}
_ETAG = {
    "description": "Stands for this very representation: send it as `If-Match` with a change, or as `If-None-Match` to "
    "ask whether it has changed.",
    "required": True,
    "schema": {"type": "string"},
    "example": '"9Jd3v4wq0c9h4t5k6m7n8p"',
}
_CHALLENGE = {
    "description": "What is missing: credentials, valid ones, or a scope (RFC 6750).",
    "required": True,
    "schema": {"type": "string"},
    "example": 'Bearer realm="patients-api", error="invalid_token"',
}
_REPLAYED = {
    "description": "`true` where this is the stored answer to an earlier request with the same `Idempotency-Key`.",
    "schema": {"type": "string", "enum": ["true"]},
}
_ALIKE = frozenset({"400", "401", "412", "413", "415", "428", "429", "500", "503"})
"""The problems that say the same whatever the operation."""
_HEADERS = {
    "X-Request-ID": _REQUEST_ID,
    "Retry-After": _RETRY_AFTER,
    "ETag": _ETAG,
    "Idempotency-Replayed": _REPLAYED,
    "WWW-Authenticate": _CHALLENGE,
}

_IF_MATCH = {
    "name": "If-Match",
    "description": "The `ETag` of what was read: the change is made only if the record is still that, else 412. "
    "Operators may make it obligatory (428).",
}
_IF_NONE_MATCH = {
    "name": "If-None-Match",
    "description": "The `ETag` of what is known: 304 without a body if it is still that.",
}
_IF_NEW = {"name": "If-None-Match", "description": "`*`: create only if there is none of this `unique_id`, else 412."}
_KEY = {
    "name": "Idempotency-Key",
    "description": "Any text of up to 255 characters that is new with each request, such as a UUID. A request that is "
    "sent again with it within 24 hours is answered as the first was, and changes nothing.",
    "schema": {"type": "string", "pattern": PATTERN},
}
_BREAK_GLASS = {
    "name": "X-Break-Glass",
    "description": "In an emergency: why a patient of other hospitals has to be read, in at least two words of ten "
    "letters in all. It is put on record, with who and when, and needs the scope `patients:break-glass`.",
    "schema": {"type": "string", "maxLength": MOST_CHARACTERS},
}
_ACCEPTED = {
    "get": (_IF_NONE_MATCH,),
    "get_version": (_IF_NONE_MATCH,),
    "create": (_IF_NEW, _KEY),
    "restore": (_IF_MATCH, _KEY),
    "update": (_IF_MATCH,),
    "patch": (_IF_MATCH,),
    "delete": (_IF_MATCH,),
}
"""The headers that an operation takes notice of (`app.resource.routes` reads them)."""


def install(app: FastAPI) -> None:
    """Have `app` answer the whole document."""

    def document() -> Json:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app)
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]  # FastAPI's documented way


def _document(app: FastAPI) -> Json:
    info = {key: value for key, value in DESCRIPTION.items() if key != "openapi_tags"}
    document = get_openapi(routes=app.routes, tags=DESCRIPTION["openapi_tags"], servers=[{"url": "/"}], **info)
    document["components"]["securitySchemes"] = SCHEMES
    _, definitions = models_json_schema([(Problem, "validation")], ref_template="#/components/schemas/{model}")
    schemas = document["components"]["schemas"]
    schemas |= definitions["$defs"]
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    for schema in schemas.values():
        untitle(schema)
    for model in _models(Schema):
        if model.example is not None:
            schemas[model.__name__]["examples"] = [model.example]  # in its own order: Pydantic sorts the keys
    document["components"]["headers"] = _HEADERS
    document["components"]["responses"] = {}
    for path, operations in document["paths"].items():
        for operation in operations.values():
            _tidy(path, operation)
            _share(operation["responses"], document["components"]["responses"])
    return document


def _models(base: type[Schema]) -> Iterator[type[Schema]]:
    for model in base.__subclasses__():
        yield model
        yield from _models(model)


def _tidy(path: str, operation: Json) -> None:
    """Say what a person would, and leave out what FastAPI says of its own."""
    verb, *rest = operation["operationId"].split("_")
    noun = rest.pop(0) if rest else ""
    verb = "_".join([verb, *rest])
    operation["summary"], success = (words.format(noun) for words in _WORDS[verb])
    scope = needed(operation) or ""
    operation["description"] += _scopes(scope, verb, noun)
    for parameter in operation.get("parameters", ()):
        _tidy_parameter(parameter, noun)
    breaking = (_BREAK_GLASS,) if operation["operationId"] == "get_patient" else ()
    for header in (*_ACCEPTED.get(verb, ()), *breaking):
        taken = {"in": "header", "schema": {"type": "string"}, **header}
        operation.setdefault("parameters", []).append(taken)
    if verb in {"get", "get_version"}:
        operation["responses"]["304"] = {"description": "It is what `If-None-Match` names."}
    for status, response in list(operation["responses"].items()):
        for media_type in response.get("content", {}).values():
            media_type["schema"].pop("title", None)
            if media_type["schema"].get("$ref", "").endswith("/HTTPValidationError"):
                del operation["responses"][status]
            elif "example" in media_type:
                media_type["example"] |= _particulars(status, verb, noun, scope)
        if status.startswith("2"):
            response["description"] = success.format(noun)
        response["headers"] = _headers(status, verb, path)


def _scopes(scope: str, verb: str, noun: str) -> str:
    """What an operation's description says of the scopes it needs."""
    needs = f" Needs the scope `{scope}`." if scope else ""
    if noun == "patient" and verb in {"create", "update", "patch", "restore"}:
        needs += " To link another profile needs `profiles:read`, to change one `profiles:write`."
    return needs


def _share(responses: Json, shared: Json) -> None:
    """Put problems that are alike for all operations where they stand once."""
    for status in sorted(_ALIKE & responses.keys()):
        name = title(int(status)).replace(" ", "")
        shared.setdefault(name, responses[status])
        responses[status] = {"$ref": f"#/components/responses/{name}"}


def _tidy_parameter(parameter: Json, noun: str) -> None:
    schema = parameter["schema"]
    schema.pop("title", None)
    schema.pop("description", None)  # the parameter has it
    if parameter["name"] == "version":
        parameter["description"] = "Which version, from the history."
    elif parameter["in"] == "path":
        parameter["description"] = f"The `unique_id` of the {noun}."
        parameter["example"] = _IDS[noun]
    if "anyOf" in schema:  # in a query there is no null
        (parameter["schema"],) = (branch for branch in schema["anyOf"] if branch != {"type": "null"})


def _particulars(status: str, verb: str, noun: str, scope: str) -> Json:
    """What an example of a problem says of this operation."""
    if status == "403":
        return {"detail": MissingScopeError(scope).detail}
    if status == "404":
        return {"detail": NotFoundError(noun).detail}
    if status == "409":
        used = IdentifierRetiredError("profile" if verb in {"update", "patch"} else noun, 3)
        return {"detail": (InUseError(noun, patients=2) if verb == "delete" else used).detail}
    if status == "422":
        return {"errors": _ERRORS["list" if verb.startswith("list") else verb if verb in _ERRORS else noun]}
    return {}


def _headers(status: str, verb: str, path: str) -> Json:
    sent = ["X-Request-ID"]
    if status in {"429", "503"}:
        sent.append("Retry-After")
    if status in {"401", "403"}:
        sent.append("WWW-Authenticate")
    if status in {"200", "201", "304"} and verb in _ACCEPTED:
        sent.append("ETag")
    if status in {"200", "201"} and _KEY in _ACCEPTED.get(verb, ()):
        sent.append("Idempotency-Replayed")
    headers: Json = {name: {"$ref": f"#/components/headers/{name}"} for name in sent}
    if status == "201":
        headers["Location"] = {
            "description": "Where the new record is.",
            "required": True,
            "schema": {"type": "string"},
            "example": f"{path}an-id/",
        }
    if verb.startswith("list") and status == "200":
        headers["Link"] = {
            "description": 'Of a page: the next one, as `<…>; rel="next"`, where there is one, and the first.',
            "schema": {"type": "string"},
            "example": f'<{path}?limit=100&cursor=t1Q9Zk3m0aXl>; rel="next", <{path}?limit=100>; rel="first"',
        }
    if verb == "search" and status == "200":
        headers["Next-Cursor"] = {
            "description": "Of a page: the `cursor` of the next one, where there is one.",
            "schema": {"type": "string"},
            "example": "t1Q9Zk3m0aXl",
        }
    if verb in {"list", "search"} and status == "200":
        headers["X-Total-Count"] = {
            "description": "How many records the list has, where `count=exact` asked for it; of more than 1,000 that a "
            "filter or a search finds, an estimate with two digits.",
            "schema": {"type": "integer"},
            "example": 2543,
        }
    return headers
