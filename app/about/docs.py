"""The page with the API documentation (Swagger UI). All of its scripts and styles are served by this application."""

from pathlib import Path

from fastapi import Response
from fastapi.staticfiles import StaticFiles
from starlette.routing import Mount

from app.api.routing import make_router
from app.auth.scopes import PUBLIC_ROUTE

_STATIC_DIRECTORY = Path(__file__).parent / "static"
_PAGE_HTML = (_STATIC_DIRECTORY / "index.html").read_bytes()
# Redoc, which fastapi_offline ships too, is not served: it inserts <style> elements, which needs 'unsafe-inline', and
# loads a logo from another host. Scalar is not in the package.
_PAGE_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
}

router = make_router("", tag="docs")

assets = Mount("/docs/assets", StaticFiles(directory=_STATIC_DIRECTORY, packages=[("fastapi_offline", "static")]))
"""Static files of the documentation page: the project's own, and Swagger UI from the package `fastapi_offline`."""


@router.get("/docs", include_in_schema=False, openapi_extra=PUBLIC_ROUTE)
async def docs() -> Response:
    """Return the HTML page on which client developers read the API documentation and try out requests."""
    return Response(_PAGE_HTML, media_type="text/html", headers=_PAGE_HEADERS)
