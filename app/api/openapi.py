"""The OpenAPI document: what FastAPI derives from the routes, and what it does not know."""

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from app.api.break_glass import MAX_REASON_LENGTH
from app.api.idempotency import KEY_PATTERN
from app.auth.scopes import SECURITY_SCHEMES, required_scope
from app.errors import IdentifierRetiredError, InUseError, MissingScopeError, NotFoundError
from app.fields.schemas import Schema, strip_titles
from app.http.problems import Problem, status_phrase

JsonObject = dict[str, Any]

API_METADATA: JsonObject = {
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

_SUMMARIES = {
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

_EXAMPLE_IDS = {"patient": "pat123", "profile": "prof123", "hospital": "hos123", "doctor": "doc123"}
"""Of the demo data, so that "Try it out" finds something."""

_EXAMPLE_ERRORS = {
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

_REQUEST_ID_HEADER = {
    "description": "The id of the request in the log: the request's own `X-Request-ID` if it sent a usable one.",
    "required": True,
    "schema": {"type": "string"},
    "example": "req_01m82ajx1ew0r14nzv08mnkrmd",
}
_RETRY_AFTER_HEADER = {
    "description": "The seconds after which to try again.",
    "required": True,
    "schema": {"type": "integer"},
    "example": 1,
}
_ETAG_HEADER = {
    "description": "Stands for this very representation: send it as `If-Match` with a change, or as `If-None-Match` to "
    "ask whether it has changed.",
    "required": True,
    "schema": {"type": "string"},
    "example": '"9Jd3v4wq0c9h4t5k6m7n8p"',
}
_WWW_AUTHENTICATE_HEADER = {
    "description": "What is missing: credentials, valid ones, or a scope (RFC 6750).",
    "required": True,
    "schema": {"type": "string"},
    "example": 'Bearer realm="patients-api", error="invalid_token"',
}
_IDEMPOTENCY_REPLAYED_HEADER = {
    "description": "`true` where this is the stored answer to an earlier request with the same `Idempotency-Key`.",
    "schema": {"type": "string", "enum": ["true"]},
}
_SHARED_STATUSES = frozenset({"400", "401", "412", "413", "415", "428", "429", "500", "503"})
"""The problems that say the same whatever the operation."""
_RESPONSE_HEADERS = {
    "X-Request-ID": _REQUEST_ID_HEADER,
    "Retry-After": _RETRY_AFTER_HEADER,
    "ETag": _ETAG_HEADER,
    "Idempotency-Replayed": _IDEMPOTENCY_REPLAYED_HEADER,
    "WWW-Authenticate": _WWW_AUTHENTICATE_HEADER,
}

_IF_MATCH_PARAMETER = {
    "name": "If-Match",
    "description": "The `ETag` of what was read: the change is made only if the record is still that, else 412. "
    "Operators may make it obligatory (428).",
}
_IF_NONE_MATCH_PARAMETER = {
    "name": "If-None-Match",
    "description": "The `ETag` of what is known: 304 without a body if it is still that.",
}
_IF_NONE_MATCH_ANY_PARAMETER = {
    "name": "If-None-Match",
    "description": "`*`: create only if there is none of this `unique_id`, else 412.",
}
_IDEMPOTENCY_KEY_PARAMETER = {
    "name": "Idempotency-Key",
    "description": "Any text of up to 255 characters that is new with each request, such as a UUID. A request that is "
    "sent again with it within 24 hours is answered as the first was, and changes nothing.",
    "schema": {"type": "string", "pattern": KEY_PATTERN},
}
_BREAK_GLASS_PARAMETER = {
    "name": "X-Break-Glass",
    "description": "In an emergency: why a patient of other hospitals has to be read, in at least two words of ten "
    "letters in all. It is put on record, with who and when, and needs the scope `patients:break-glass`.",
    "schema": {"type": "string", "maxLength": MAX_REASON_LENGTH},
}
_REQUEST_HEADERS = {
    "get": (_IF_NONE_MATCH_PARAMETER,),
    "get_version": (_IF_NONE_MATCH_PARAMETER,),
    "create": (_IF_NONE_MATCH_ANY_PARAMETER, _IDEMPOTENCY_KEY_PARAMETER),
    "restore": (_IF_MATCH_PARAMETER, _IDEMPOTENCY_KEY_PARAMETER),
    "update": (_IF_MATCH_PARAMETER,),
    "patch": (_IF_MATCH_PARAMETER,),
    "delete": (_IF_MATCH_PARAMETER,),
}
"""The headers that an operation takes notice of (`app.api.endpoints` reads them)."""


def install(app: FastAPI) -> None:
    """Have `app` answer the whole document."""

    def document() -> JsonObject:
        if app.openapi_schema is None:
            app.openapi_schema = _build_document(app)
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]  # FastAPI's documented way


def _build_document(app: FastAPI) -> JsonObject:
    info = {key: value for key, value in API_METADATA.items() if key != "openapi_tags"}
    document = get_openapi(routes=app.routes, tags=API_METADATA["openapi_tags"], servers=[{"url": "/"}], **info)
    document["components"]["securitySchemes"] = SECURITY_SCHEMES
    _, definitions = models_json_schema([(Problem, "validation")], ref_template="#/components/schemas/{model}")
    schemas = document["components"]["schemas"]
    schemas |= definitions["$defs"]
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    for schema in schemas.values():
        strip_titles(schema)
    for model in _subclasses(Schema):
        if model.example is not None:
            schemas[model.__name__]["examples"] = [model.example]  # in its own order: Pydantic sorts the keys
    document["components"]["headers"] = _RESPONSE_HEADERS
    document["components"]["responses"] = {}
    for path, operations in document["paths"].items():
        for operation in operations.values():
            _complete_operation(path, operation)
            _deduplicate_responses(operation["responses"], document["components"]["responses"])
    return document


def _subclasses(base: type[Schema]) -> Iterator[type[Schema]]:
    for model in base.__subclasses__():
        yield model
        yield from _subclasses(model)


def _complete_operation(path: str, operation: JsonObject) -> None:
    """Say what a person would, and leave out what FastAPI says of its own."""
    verb, *rest = operation["operationId"].split("_")
    noun = rest.pop(0) if rest else ""
    verb = "_".join([verb, *rest])
    operation["summary"], success_description = (template.format(noun) for template in _SUMMARIES[verb])
    scope = required_scope(operation) or ""
    operation["description"] += _scope_sentence(scope, verb, noun)
    for parameter in operation.get("parameters", ()):
        _complete_parameter(parameter, noun)
    break_glass_parameters = (_BREAK_GLASS_PARAMETER,) if operation["operationId"] == "get_patient" else ()
    for header in (*_REQUEST_HEADERS.get(verb, ()), *break_glass_parameters):
        header_parameter = {"in": "header", "schema": {"type": "string"}, **header}
        operation.setdefault("parameters", []).append(header_parameter)
    if verb in {"get", "get_version"}:
        operation["responses"]["304"] = {"description": "It is what `If-None-Match` names."}
    for status, response in list(operation["responses"].items()):
        for media_type in response.get("content", {}).values():
            media_type["schema"].pop("title", None)
            if media_type["schema"].get("$ref", "").endswith("/HTTPValidationError"):
                del operation["responses"][status]
            elif "example" in media_type:
                media_type["example"] |= _example_details(status, verb, noun, scope)
        if status.startswith("2"):
            response["description"] = success_description.format(noun)
        response["headers"] = _response_headers(status, verb, path)


def _scope_sentence(scope: str, verb: str, noun: str) -> str:
    """What an operation's description says of the scopes it needs."""
    sentence = f" Needs the scope `{scope}`." if scope else ""
    if noun == "patient" and verb in {"create", "update", "patch", "restore"}:
        sentence += " To link another profile needs `profiles:read`, to change one `profiles:write`."
    return sentence


def _deduplicate_responses(responses: JsonObject, shared_responses: JsonObject) -> None:
    """Put problems that are alike for all operations where they stand once."""
    for status in sorted(_SHARED_STATUSES & responses.keys()):
        name = status_phrase(int(status)).replace(" ", "")
        shared_responses.setdefault(name, responses[status])
        responses[status] = {"$ref": f"#/components/responses/{name}"}


def _complete_parameter(parameter: JsonObject, noun: str) -> None:
    schema = parameter["schema"]
    schema.pop("title", None)
    schema.pop("description", None)  # the parameter has it
    if parameter["name"] == "version":
        parameter["description"] = "Which version, from the history."
    elif parameter["in"] == "path":
        parameter["description"] = f"The `unique_id` of the {noun}."
        parameter["example"] = _EXAMPLE_IDS[noun]
    if "anyOf" in schema:  # in a query there is no null
        (parameter["schema"],) = (branch for branch in schema["anyOf"] if branch != {"type": "null"})


def _example_details(status: str, verb: str, noun: str, scope: str) -> JsonObject:
    """What an example of a problem says of this operation."""
    if status == "403":
        return {"detail": MissingScopeError(scope).detail}
    if status == "404":
        return {"detail": NotFoundError(noun).detail}
    if status == "409":
        retired_error = IdentifierRetiredError("profile" if verb in {"update", "patch"} else noun, 3)
        return {"detail": (InUseError(noun, patient_count=2) if verb == "delete" else retired_error).detail}
    if status == "422":
        return {
            "errors": _EXAMPLE_ERRORS["list" if verb.startswith("list") else verb if verb in _EXAMPLE_ERRORS else noun]
        }
    return {}


def _response_headers(status: str, verb: str, path: str) -> JsonObject:
    header_names = ["X-Request-ID"]
    if status in {"429", "503"}:
        header_names.append("Retry-After")
    if status in {"401", "403"}:
        header_names.append("WWW-Authenticate")
    if status in {"200", "201", "304"} and verb in _REQUEST_HEADERS:
        header_names.append("ETag")
    if status in {"200", "201"} and _IDEMPOTENCY_KEY_PARAMETER in _REQUEST_HEADERS.get(verb, ()):
        header_names.append("Idempotency-Replayed")
    headers: JsonObject = {name: {"$ref": f"#/components/headers/{name}"} for name in header_names}
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
