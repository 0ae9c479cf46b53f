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
MIN_WORDS = 2
MIN_LETTERS = 10
MIN_DIFFERENT_LETTERS = 4
"""Of a reason: less says nothing to who asks later why the glass was broken."""


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
    if not _says_why(reason):
        raise _refuse(f"Say in words why: at least {MIN_WORDS}, of {MIN_LETTERS} letters in all, without line breaks")
    if len(reason) > MOST_CHARACTERS:
        raise _refuse(f"Must have at most {MOST_CHARACTERS} characters")
    Access.of(request).break_glass(reason)
    log.warning("glass broken", request_id=principal.request_id, principal=principal.name)
    return dataclasses.replace(principal, hospitals=None)


def _says_why(reason: str) -> bool:
    letters = [character for character in reason.casefold() if character.isalpha()]
    words = [word for word in reason.split() if any(character.isalpha() for character in word)]
    return (
        reason.isprintable()
        and len(words) >= MIN_WORDS
        and len(letters) >= MIN_LETTERS
        and len(set(letters)) >= MIN_DIFFERENT_LETTERS
    )


def _text(header: str) -> str:
    """What a header says: UTF-8, where it is that, else what browsers send (ISO 8859-1)."""
    try:
        return header.encode("latin-1").decode("utf-8").strip()
    except UnicodeDecodeError:
        return header.strip()


def _refuse(message: str) -> InvalidError:
    return InvalidError([FieldError(("header", HEADER), message, "break_glass_reason")])
