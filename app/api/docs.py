from pathlib import Path

from fastapi import Response
from fastapi.staticfiles import StaticFiles
from starlette.routing import Mount

from app.api.routing import make_router
from app.auth.scopes import PUBLIC_ROUTE

_STATIC_DIRECTORY = Path(__file__).parent / "static"
_PAGE_HTML = (_STATIC_DIRECTORY / "index.html").read_bytes()
_PAGE_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
}

router = make_router("", tag="docs")

assets = Mount("/docs/assets", StaticFiles(directory=_STATIC_DIRECTORY, packages=[("fastapi_offline", "static")]))
"""Swagger UI, as the package ships it, and our own files beside the page."""


@router.get("/docs", include_in_schema=False, openapi_extra=PUBLIC_ROUTE)
async def docs() -> Response:
    """The page for people who write clients."""
    return Response(_PAGE_HTML, media_type="text/html", headers=_PAGE_HEADERS)
