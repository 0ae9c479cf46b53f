"""How routes are declared, and how a request's body is read before it is validated."""

import json
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn

from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute

from app.errors import MEDIA_TYPE, UnreadableBodyError, UnsupportedMediaTypeError, title

JSON_TYPES = frozenset({"application/json", "application/json; charset=utf-8", "application/json;charset=utf-8"})


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


class JSONRequest(Request):
    """A request whose body is JSON as RFC 8259 has it: UTF-8 only, no NaN or Infinity.

    `json.loads` alone takes UTF-16, UTF-32 and NaN.
    """

    async def json(self) -> Any:
        """Parse the body.

        Raises:
            UnreadableBodyError: it is no JSON, not in UTF-8, nested too deeply, or has a number of thousands of digits.
        """
        if not hasattr(self, "_json"):
            self._json = self._parse(await self.body())
        return self._json

    @staticmethod
    def _parse(body: bytes) -> Any:
        try:
            return json.loads(body.decode("utf-8"), parse_constant=_refuse_constant)
        except UnicodeDecodeError:
            raise UnreadableBodyError("The body is not in UTF-8.") from None
        except json.JSONDecodeError as error:
            place = f"line {error.lineno}, column {error.colno}"
            raise UnreadableBodyError(f"The body is not valid JSON: {error.msg} at {place}.") from None
        except RecursionError:
            raise UnreadableBodyError("The body is nested too deeply.") from None
        except ValueError:
            raise UnreadableBodyError("The body is not valid JSON: it has a number that JSON does not have.") from None


class Route(APIRoute):
    """A route that reads JSON strictly, and notes its template for the log."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's hook: wrap the handler."""
        handler = super().get_route_handler()
        takes_body = self.body_field is not None

        async def handle(request: Request) -> Response:
            request.scope["state"]["route"] = self.path_format
            if takes_body:
                request = JSONRequest(request.scope, request.receive)
                if await request.body():
                    if request.headers.get("content-type", "").lower() not in JSON_TYPES:
                        raise UnsupportedMediaTypeError("Send the body as application/json, in UTF-8.")
                    await request.json()  # here, because the framework turns errors of its own call into a bare 400
            return await handler(request)

        return handle


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of an operation that may answer these problems, and 500 and 503 as all may."""
    schema = {"$ref": "#/components/schemas/Problem"}
    return {
        status: {"description": title(status), "content": {MEDIA_TYPE: {"schema": schema}}}
        for status in sorted({*statuses, 500, 503})
    }


def make_router(prefix: str, tag: str) -> APIRouter:
    """A router of our routes. A route's name is its operationId."""
    return APIRouter(
        prefix=prefix,
        tags=[tag],
        route_class=Route,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
    )
