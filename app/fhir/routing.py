"""Routes of the FHIR interface: the interactions that the capability statement lists, and what all routes check."""

import re
from collections.abc import Callable, Coroutine, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from fastapi import APIRouter, Request, Response
from starlette.routing import Match

from app.api.routing import AuditedRoute, Route, passthrough
from app.auth.scopes import PUBLIC_ROUTE, Scope, requires
from app.errors import (
    FieldError,
    InvalidSearchError,
    NotAcceptableError,
    UnreadableBodyError,
    UnsupportedMediaTypeError,
)
from app.fhir_resources.ids import unique_id_of
from app.http.outcomes import FHIR_MEDIA_TYPE
from app.http.strict_json import InvalidJSONError, parse_json
from app.paths import FHIR_PREFIX

Endpoint = Callable[..., Coroutine[Any, Any, Response]]
FHIR_MAJOR_VERSION = "4.0"
"""The version in the parameter `fhirVersion` of media types."""
FORM_MEDIA_TYPE = "application/x-www-form-urlencoded"
_JSON_MEDIA_TYPES = frozenset({FHIR_MEDIA_TYPE, "application/json"})
_ACCEPTABLE_TYPES = _JSON_MEDIA_TYPES | {"application/*", "*/*"}
_FORMATS = _JSON_MEDIA_TYPES | {"json"}
_PARAMETER_NAME_PATTERN = re.compile(r"[A-Za-z_][A-Za-z_-]{0,39}([:.][A-Za-z-]{1,20})?")
_INTERACTION_KEY = "x-fhir-interaction"
_QUERY_KEY = "patients.fhir_query"
"""Key in the ASGI scope of a request under which its parsed query is kept."""


@dataclass(frozen=True, slots=True)
class Interaction:
    """The interaction of FHIR that a route implements."""

    code: str
    """The code of the interaction, such as `read`, or several with spaces, or the name of an operation, as `$match`."""
    resource_type: str | None = None
    """The type of the resources, or None if the interaction is with the whole system."""
    parameters: frozenset[str] = frozenset({"_format"})
    """The names of the parameters that the route accepts. Searches check names on their own."""
    checks_parameters: bool = True


class FhirRoute(Route):
    """A route of the FHIR interface. It decodes the id in the path and checks the format and the parameters.

    The path contains the id of a resource. All other code that reads the path, such as the audit, finds the
    `unique_id`.
    """

    interaction: Interaction

    def __init__(self, path: str, endpoint: Endpoint, **keywords: Any) -> None:
        self.interaction = keywords["openapi_extra"][_INTERACTION_KEY]
        super().__init__(path, passthrough(endpoint), **keywords)

    def matches(self, scope: MutableMapping[str, Any]) -> tuple[Match, MutableMapping[str, Any]]:
        """Match a request against the path of the route."""
        match, child_scope = super().matches(scope)
        resource_id = child_scope.get("path_params", {}).get("unique_id")
        if resource_id is not None:
            child_scope["path_params"]["unique_id"] = unique_id_of(resource_id) or ""
        return match, child_scope

    async def _call_endpoint(self, request: Request) -> Response:
        sent = query_pairs(request)
        check_format(request, dict(sent).get("_format"))
        if self.interaction.checks_parameters:
            refuse_unknown([name for name, _ in sent], self.interaction.parameters)
        return await super()._call_endpoint(request)


class AuditedFhirRoute(FhirRoute, AuditedRoute):
    """A route that reads or changes patients' data. It records each request before it sends the response."""


def fhir_router(tag: str, *, audited: bool = False) -> APIRouter:
    """Return a router for routes of the FHIR interface. `tag` is the name of the resource in the audit."""
    return APIRouter(
        prefix=FHIR_PREFIX,
        tags=[tag],
        route_class=AuditedFhirRoute if audited else FhirRoute,
        redirect_slashes=False,
        include_in_schema=False,  # the capability statement describes them
        generate_unique_id_function=lambda route: route.name,
    )


def add_route(  # noqa: PLR0913  # a route has this many properties
    router: APIRouter,
    method: str,
    path: str,
    endpoint: Endpoint,
    interaction: Interaction,
    *,
    scope: Scope | None,
    status: int = 200,
) -> None:
    """Add a route that requires `scope` to a router. If `scope` is None, it is public."""
    kind = interaction.resource_type or "system"
    name = f"fhir_{kind}_{interaction.code.lstrip('$')}_{method}".lower().replace("-", "_").replace(" ", "_")
    router.add_api_route(
        path,
        endpoint,
        methods=[method],
        name=name,
        status_code=status,
        openapi_extra={**(PUBLIC_ROUTE if scope is None else requires(scope)), _INTERACTION_KEY: interaction},
        responses={},
    )


def query_pairs(request: Request) -> list[tuple[str, str]]:
    """Return the names and values in the query of a request, in their order.

    Raises:
        UnreadableBodyError: the query is not in UTF-8.
    """
    scope = request.scope
    if _QUERY_KEY not in scope:  # the route and the endpoint both need it
        scope[_QUERY_KEY] = _parse_form(scope["query_string"], "query") if scope["query_string"] else []
    pairs: list[tuple[str, str]] = scope[_QUERY_KEY]
    return pairs


def _parse_form(encoded: bytes, subject: str) -> list[tuple[str, str]]:
    try:
        return parse_qsl(encoded.decode(), keep_blank_values=True, errors="strict")
    except (UnicodeDecodeError, ValueError):
        raise UnreadableBodyError(f"The {subject} is not in UTF-8.") from None


def safe_name(name: str) -> str:
    """Return the name of a parameter, or a placeholder if it does not look like one, because it may be patient data."""
    return name if _PARAMETER_NAME_PATTERN.fullmatch(name) else "(a name that is no parameter's)"


def refuse_unknown(names: list[str], known: Any) -> None:
    """Raise an error that names the parameters that are unknown or repeated, if there are any.

    Raises:
        InvalidSearchError: a name is unknown, or a parameter is sent twice.
    """
    errors = [
        FieldError(("query", safe_name(name)), "There is no such parameter here", "parameter")
        for name in dict.fromkeys(names)
        if name not in known
    ]
    errors += [
        FieldError(("query", name), "Must be given once", "repeated")
        for name in dict.fromkeys(names)
        if name in known and names.count(name) > 1
    ]
    if errors:
        raise InvalidSearchError(errors)


def check_format(request: Request, format_parameter: str | None) -> None:
    """Raise NotAcceptableError unless the client accepts JSON. The parameter `_format` precedes the header."""
    if format_parameter is not None:
        if format_parameter.partition(";")[0].strip() not in _FORMATS:
            raise NotAcceptableError(FHIR_MEDIA_TYPE)
        return
    accepted = request.headers.get("accept")
    if accepted is None or accepted in _ACCEPTABLE_TYPES:
        return
    ranges = (_parse_media_type(part) for part in accepted.split(","))
    if not any(
        media_type in _ACCEPTABLE_TYPES and parameters.get("q", "1").strip("0.") and _is_known_version(parameters)
        for media_type, parameters in ranges
    ):
        raise NotAcceptableError(FHIR_MEDIA_TYPE)


def _parse_media_type(text: str) -> tuple[str, dict[str, str]]:
    media_type, *parameters = (part.strip().lower() for part in text.split(";"))
    pairs = (parameter.partition("=") for parameter in parameters)
    return media_type, {name.strip(): value.strip().strip('"') for name, _, value in pairs}


def _is_known_version(parameters: Mapping[str, str]) -> bool:
    """Return whether a media type asks for FHIR R4 or for no version in particular (FHIR R4, http.html)."""
    return parameters.get("fhirversion", FHIR_MAJOR_VERSION) == FHIR_MAJOR_VERSION


def _has_media_type(request: Request, media_types: frozenset[str]) -> bool:
    media_type, parameters = _parse_media_type(request.headers.get("content-type", ""))
    is_utf8 = parameters.get("charset", "utf-8") == "utf-8"
    return media_type in media_types and is_utf8 and _is_known_version(parameters)


async def read_resource(request: Request, resource_type: str) -> dict[str, Any]:
    """Return the resource in the body of a request.

    Raises:
        UnsupportedMediaTypeError: the body is not sent as FHIR's JSON.
        UnreadableBodyError: the body is not strict JSON, or not a resource of this type.
    """
    if not _has_media_type(request, _JSON_MEDIA_TYPES):
        raise UnsupportedMediaTypeError(FHIR_MEDIA_TYPE)
    try:
        resource = parse_json(await request.body())
    except InvalidJSONError as error:
        raise UnreadableBodyError(f"The body {error}.") from None
    return checked_type(resource, resource_type, "The body")


def checked_type(resource: Any, resource_type: str, subject: str) -> dict[str, Any]:
    """Return a resource if it is of this type. `subject` says in messages where it is.

    Raises:
        UnreadableBodyError: the resource is of another type.
    """
    if not isinstance(resource, dict) or resource.get("resourceType") != resource_type:
        raise UnreadableBodyError(f"{subject} must be a resource of the type {resource_type}, in resourceType, too.")
    return resource


async def read_form(request: Request) -> list[tuple[str, str]]:
    """Return the names and values in a body that is sent as a form.

    Raises:
        UnsupportedMediaTypeError: the body is not a form.
        UnreadableBodyError: the body is not in UTF-8.
    """
    body = await request.body()
    if body and not _has_media_type(request, frozenset({FORM_MEDIA_TYPE})):
        raise UnsupportedMediaTypeError(FORM_MEDIA_TYPE)
    return _parse_form(body, "body")


def base_url(request: Request) -> str:
    """Return the address of the FHIR interface, by which the client has reached it."""
    scope = request.scope
    host = request.headers.get("host") or "localhost"
    return f"{scope['scheme']}://{host}{scope.get('root_path', '')}{FHIR_PREFIX}"
