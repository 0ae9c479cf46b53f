"""Route classes that authenticate and audit each request and parse its body as strict JSON."""

import inspect
import re
from collections.abc import Callable, Coroutine, MutableMapping
from typing import Any, ClassVar, TypeVar, cast

from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.routing import Match
from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as ASGIScope

from app.api.documentation import access_problem_responses, header_references, refused_read_response
from app.api.services import get_services
from app.audit.recorder import RequestAudit, requested_ids
from app.auth.scopes import is_public, required_scope
from app.errors import FieldError, ServiceError, UnreadableBodyError, UnsupportedMediaTypeError, ValidationFailedError
from app.http.field_errors import MISSING_MESSAGE, validated_body
from app.http.problems import status_for
from app.http.strict_json import InvalidJSONError, parse_json
from app.request_state import RequestState

_JSON_MEDIA_TYPE_PATTERN = re.compile(r'application/json\s*(?:;\s*charset=(?:utf-8|"utf-8")\s*)?;?', re.IGNORECASE)
Handler = Callable[[Request], Coroutine[Any, Any, Response]]
E = TypeVar("E", bound=Callable[..., Coroutine[Any, Any, Response]])

_PASSTHROUGH_ATTRIBUTE = "is_passthrough"


def passthrough(endpoint: E) -> E:
    """Declare that FastAPI need not process requests for this endpoint, so that `Route` calls it directly.

    The endpoint must be a coroutine function that returns a `Response`. Each of its parameters, except `request`, must
    be a path parameter of type `str`, or `body`, a model for the JSON body. The fast path increases the throughput of
    a route without a body by a third. FastAPI #16108 proposes the same fast path; when FastAPI has it, this decorator
    can be removed. Starlette #3339 and FastAPI #16236 propose faster matching of paths; `Route.matches` already does
    this for paths without parameters.
    """
    setattr(endpoint, _PASSTHROUGH_ATTRIBUTE, True)
    return endpoint


class JSONRequest(Request):
    """A request whose body is parsed as strict JSON."""

    async def json(self) -> Any:
        """Return the parsed body.

        Raises:
            UnreadableBodyError: the body is not strict JSON.
        """
        if not hasattr(self, "_json"):
            try:
                self._json = parse_json(await self.body())
            except InvalidJSONError as error:
                raise UnreadableBodyError(f"The body {error}.") from None
        return self._json


class Route(APIRoute):
    """A route that authenticates the caller before anything else, and parses JSON strictly.

    It also stores its path template in the state of the request, for the log.

    Raises:
        ValueError: the route does not declare which credentials it needs, or its endpoint is declared `passthrough` but
            FastAPI has to process its parameters.
    """

    audited: ClassVar[bool] = False
    """Whether requests are audited. Reads are audited only if the setting `reads_audited` is on as well."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **keywords: Any) -> None:
        self.required_scope = required_scope(keywords.get("openapi_extra"))
        self.is_public = is_public(keywords.get("openapi_extra"))
        self._literal_beginning = path.partition("{")[0]
        has_read_scope = self.required_scope is not None and self.required_scope.is_read_only
        self.is_read = has_read_scope or "GET" in (keywords.get("methods") or ("GET",))
        """Whether requests change nothing. A search is a read although it is sent by POST, because of its scope."""
        responses = dict(keywords.get("responses") or {})
        success_status = keywords.get("status_code") or 200
        responses.setdefault(success_status, {})
        description = keywords.get("description") or inspect.cleandoc(endpoint.__doc__ or "")
        if not self.is_public:
            responses = {**access_problem_responses(self.required_scope), **responses}
        if self.required_scope is not None:
            description += f" Needs the scope `{self.required_scope}`."
        if self.is_read and 422 in responses:  # noqa: PLR2004  # only this problem says what was stored
            responses[422] = refused_read_response(responses[422])
        for response in responses.values():
            response["headers"] = {**header_references("X-Request-ID"), **response.get("headers", {})}
        super().__init__(path, endpoint, **{**keywords, "responses": responses, "description": description})
        if getattr(endpoint, _PASSTHROUGH_ATTRIBUTE, False):
            _check_passthrough(self)
            handler = self._call_endpoint if self.body_field is None else _with_strict_json(self._call_with_body)
            self.app = _as_asgi(self._authenticated_and_audited(handler))

    def matches(self, scope: MutableMapping[str, Any]) -> tuple[Match, MutableMapping[str, Any]]:
        """Match a request against the path of the route.

        What precedes the first parameter is compared as text, which is faster than Starlette's regular expression.
        """
        path: str = scope["path"]
        if not path.startswith(self._literal_beginning) or (not self.param_convertors and path != self.path):
            return Match.NONE, {}
        return super().matches(scope)

    def get_route_handler(self) -> Handler:
        """Return FastAPI's handler, wrapped with authentication, auditing and strict JSON parsing.

        FastAPI calls this method.
        """
        handler = super().get_route_handler()
        return self._authenticated_and_audited(handler if self.body_field is None else _with_strict_json(handler))

    async def _call_endpoint(self, request: Request) -> Response:
        response: Response = await self.endpoint(request, **request.path_params)
        return response

    async def _call_with_body(self, request: Request) -> Response:
        assert self.body_field is not None  # noqa: S101  # see `__init__`
        if not await request.body():
            raise ValidationFailedError([FieldError(("body",), MISSING_MESSAGE, "missing")])
        schema = cast("type[BaseModel]", self.body_field.field_info.annotation)
        body = validated_body(schema, await request.json())
        response: Response = await self.endpoint(request, **request.path_params, body=body)
        return response

    def _authenticated_and_audited(self, handler: Handler) -> Handler:
        async def handle(request: Request) -> Response:
            state = RequestState.from_scope(request.scope)
            state.route, state.is_read = self.path_format, self.is_read
            audit = state.audit = self._request_audit(request, state)
            try:
                if not self.is_public:
                    authenticator = get_services(request).authenticator
                    state.principal = await authenticator.authenticate(request, state.request_id, self.required_scope)
                response = await handler(request)
            except (ServiceError, HTTPException, RequestValidationError) as error:
                await audit.record_denial(status_for(error))
                raise
            await audit.record(response.status_code)
            return response

        return handle

    def _request_audit(self, request: Request, state: RequestState) -> RequestAudit:
        services = get_services(request)
        audited = self.audited and (not self.is_read or services.settings.reads_audited)
        return RequestAudit(
            services.audit_recorder,
            state,
            audited,
            requested_ids(request),
            self.status_code or 200,
            str(self.tags[0]) if self.tags else "",
        )


def _check_passthrough(route: APIRoute) -> None:
    """Raise ValueError if the endpoint does not meet the conditions of `passthrough`, or the route has dependencies."""
    signature = inspect.signature(route.endpoint)
    path_parameters = route.dependant.path_params
    body = () if route.body_field is None else ("body",)
    if not (
        inspect.iscoroutinefunction(route.endpoint)
        and signature.return_annotation is Response
        and signature.parameters.keys() == {"request", *(parameter.name for parameter in path_parameters), *body}
        and all(
            parameter.field_info.annotation is str and not parameter.field_info.metadata
            for parameter in path_parameters
        )
        and not route.dependencies
    ):
        raise ValueError(f"{route.name} is declared as passthrough, but FastAPI has to process its parameters.")


def _as_asgi(handler: Handler) -> ASGIApp:
    """Return an ASGI application that calls the handler directly, without resolving FastAPI dependencies."""

    async def serve(scope: ASGIScope, receive: Receive, send: Send) -> None:
        response = await handler(Request(scope, receive, send))
        await response(scope, receive, send)

    return serve


def _with_strict_json(handler: Handler) -> Handler:
    async def read_json(request: Request) -> Response:
        request = JSONRequest(request.scope, request.receive)
        if await request.body():
            if _JSON_MEDIA_TYPE_PATTERN.fullmatch(request.headers.get("content-type", "")) is None:
                raise UnsupportedMediaTypeError
            await request.json()  # FastAPI would turn errors into a 400 without details
        return await handler(request)

    return read_json


class AuditedRoute(Route):
    """A route that reads or changes patients' data. It records each request before it sends the response."""

    audited = True


def make_router(prefix: str, tag: str, *, audited: bool = False) -> APIRouter:
    """Return a router for the routes of the calling module.

    `audited` must be true if the routes read or change patients' data. `tag` is the OpenAPI tag, and the name of the
    resource in the audit. The name of each route is also its OpenAPI `operationId`.
    """
    return APIRouter(
        prefix=prefix,
        tags=[tag],
        route_class=AuditedRoute if audited else Route,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
    )
