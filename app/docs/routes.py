from pathlib import Path

from fastapi import Response
from fastapi.staticfiles import StaticFiles
from starlette.routing import Mount

from app.auth.scopes import OPEN
from app.http.routing import make_router

_STATIC = Path(__file__).parent / "static"
_PAGE = (_STATIC / "index.html").read_bytes()
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
}

router = make_router("", tag="docs")

assets = Mount("/docs/assets", StaticFiles(directory=_STATIC, packages=[("fastapi_offline", "static")]))
"""Swagger UI, as the package ships it, and our own files beside the page."""


@router.get("/docs", include_in_schema=False, openapi_extra=OPEN)
async def docs() -> Response:
    """The page for people who write clients."""
    return Response(_PAGE, media_type="text/html", headers=_HEADERS)
