"""Break glass: in an emergency, to read one patient across the walls between hospitals, loudly."""

import dataclasses

import structlog
from fastapi import Request

from app.audit.trail import Access
from app.auth.principal import Principal
from app.auth.scopes import Scope
from app.errors import FieldError, InvalidError

log = structlog.get_logger()

HEADER = "X-Break-Glass"
MOST_CHARACTERS = 500


def break_glass(request: Request) -> Principal:
    """The principal, without walls where the request says why in `X-Break-Glass`.

    Raises:
        MissingScopeError: it lacks `patients:break-glass`.
        InvalidError: the reason says nothing.
    """
    principal = Principal.of(request)
    lines = request.headers.getlist(HEADER)
    if not lines:
        return principal
    principal.require(Scope.BREAK_GLASS)
    reason = _text(" ".join(lines))
    if not any(character.isalpha() for character in reason) or not reason.isprintable():
        raise _refuse("Say in words why, without line breaks")
    if len(reason) > MOST_CHARACTERS:
        raise _refuse(f"Must have at most {MOST_CHARACTERS} characters")
    Access.of(request).break_glass(reason)
    log.warning("glass broken", request_id=principal.request_id, principal=principal.name)
    return dataclasses.replace(principal, hospitals=None)


def _text(header: str) -> str:
    """What a header says: UTF-8, where it is that, else what browsers send (ISO 8859-1)."""
    try:
        return header.encode("latin-1").decode("utf-8").strip()
    except UnicodeDecodeError:
        return header.strip()


def _refuse(message: str) -> InvalidError:
    return InvalidError([FieldError(("header", HEADER), message, "break_glass_reason")])
