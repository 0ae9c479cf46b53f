"""How routes are declared, and how a request's body is read before it is validated."""

import inspect
import re
from collections.abc import Callable, Coroutine, MutableMapping
from typing import Any, ClassVar

from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.routing import Match
from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as ASGIScope

from app.audit.recorder import RequestAudit, requested_ids
from app.auth.authentication import Authenticator
from app.auth.scopes import Scope, required_scope
from app.errors import (
    IdentifierTakenError,
    MissingScopeError,
    NotFoundError,
    PreconditionFailedError,
    PreconditionRequiredError,
    ServiceError,
    TooManyRequestsError,
    UnauthorizedError,
    UnavailableError,
    UnreadableBodyError,
    UnsupportedMediaTypeError,
    ValidationFailedError,
)
from app.http.problems import (
    BODY_TOO_LARGE_DETAIL,
    HEAD_TOO_LARGE_DETAIL,
    PROBLEM_MEDIA_TYPE,
    UNEXPECTED_ERROR_DETAIL,
    problem_content,
    status_for,
    status_phrase,
)
from app.http.strict_json import InvalidJSONError, parse_json

_JSON_MEDIA_TYPE_PATTERN = re.compile(r'application/json\s*(?:;\s*charset=(?:utf-8|"utf-8")\s*)?;?', re.IGNORECASE)
Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class JSONRequest(Request):
    """A request whose body is strict JSON."""

    async def json(self) -> Any:
        """Parse the body.

        Raises:
            UnreadableBodyError: it is not strict JSON.
        """
        if not hasattr(self, "_json"):
            try:
                self._json = parse_json(await self.body())
            except InvalidJSONError as error:
                raise UnreadableBodyError(f"The body {error}.") from None
        return self._json


class Route(APIRoute):
    """A route that asks who it is before all else, reads JSON strictly, and notes its template for the log.

    Raises:
        ValueError: it does not declare which scope it needs.
    """

    audited: ClassVar[bool] = False

    def __init__(self, path: str, endpoint: Callable[..., Any], **keywords: Any) -> None:
        self.required_scope = required_scope(keywords.get("openapi_extra"))
        if self.required_scope is not None:
            keywords["responses"] = {**problem_responses(401, 403, 429), **(keywords.get("responses") or {})}
        super().__init__(path, endpoint, **keywords)
        if _is_passthrough(self):
            self.app = _as_asgi(self._authenticated_and_audited(self._call_endpoint))

    def matches(self, scope: MutableMapping[str, Any]) -> tuple[Match, MutableMapping[str, Any]]:
        """Whether a request is for this route; where its path has no parameters, a comparison tells."""
        if not self.param_convertors and scope["path"] != self.path:
            return Match.NONE, {}
        return super().matches(scope)

    def get_route_handler(self) -> Handler:
        """FastAPI's hook: wrap the handler."""
        handler = super().get_route_handler()
        return self._authenticated_and_audited(handler if self.body_field is None else _with_strict_json(handler))

    async def _call_endpoint(self, request: Request) -> Response:
        response: Response = await self.endpoint(request, **request.path_params)
        return response

    def _authenticated_and_audited(self, handler: Handler) -> Handler:
        scope = self.required_scope

        async def handle(request: Request) -> Response:
            state = request.scope["state"]
            state["route"] = self.path_format
            audit = state["access"] = self._request_audit(request)
            try:
                if scope is not None:
                    authenticator: Authenticator = request.app.state.authenticator
                    state["principal"] = await authenticator.authenticate(request, state["request_id"], scope)
                response = await handler(request)
            except (ServiceError, HTTPException, RequestValidationError) as error:
                await audit.record_denial(status_for(error))
                raise
            await audit.record(response.status_code)
            return response

        return handle

    def _request_audit(self, request: Request) -> RequestAudit:
        state, settings = request.scope["state"], request.app.state.settings
        # a search is a look too, although it is sent by POST
        is_read = self.required_scope is not None and self.required_scope.is_read_only
        audited = self.audited and (not is_read or settings.reads_audited)
        return RequestAudit(request.app.state.trail, state, audited, requested_ids(request), self.status_code or 200)


def _is_passthrough(route: APIRoute) -> bool:
    """Whether the endpoint takes the request, and parts of its path as they are, and answers itself."""
    signature = inspect.signature(route.endpoint)
    path_parameters = route.dependant.path_params
    return (
        inspect.iscoroutinefunction(route.endpoint)
        and signature.return_annotation is Response
        and signature.parameters.keys() == {"request", *(part.name for part in path_parameters)}
        and all(part.field_info.annotation is str and not part.field_info.metadata for part in path_parameters)
        and not route.dependencies
    )


def _as_asgi(handler: Handler) -> ASGIApp:
    """An application of what has nothing to validate or to close: FastAPI would look for it at each request."""

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
            await request.json()  # here, because the framework turns errors of its own call into a bare 400
        return await handler(request)

    return read_json


class AuditedRoute(Route):
    """A route whose requests are put on record before they are answered: what they show is patients' data."""

    audited = True


_EXAMPLE_DETAILS = {
    400: "The body is not valid JSON: Expecting value at line 1, column 24.",
    401: UnauthorizedError().detail,
    403: MissingScopeError(Scope.PATIENTS_READ).detail,
    404: NotFoundError("patient").detail,
    409: IdentifierTakenError("patient").detail,
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
"""Of examples; `app.api.openapi` knows the resource and says it for 404 and 409."""


def _example_problem(status: int) -> dict[str, Any]:
    return problem_content(status, _EXAMPLE_DETAILS[status], "req_01m82ajx1ew0r14nzv08mnkrmd")


def problem_responses(*statuses: int, uses_database: bool = True) -> dict[int | str, dict[str, Any]]:
    """The `responses` of an operation that may answer these problems, 431, 500, and if it asks the `database` 503."""
    schema = {"$ref": "#/components/schemas/Problem"}
    return {
        status: {
            "description": status_phrase(status),
            "content": {PROBLEM_MEDIA_TYPE: {"schema": schema, "example": _example_problem(status)}},
        }
        for status in sorted({*statuses, 431, 500, *({503} if uses_database else ())})
    }


def make_router(prefix: str, tag: str, *, audited: bool = False) -> APIRouter:
    """A router of our routes, `audited` where they show or change patients' data. A route's name is its operationId."""
    return APIRouter(
        prefix=prefix,
        tags=[tag],
        route_class=AuditedRoute if audited else Route,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
    )
