"""Break glass: in an emergency, to read one patient across the walls between hospitals, loudly."""

import dataclasses

import structlog
from fastapi import Request

from app.audit.recorder import RequestAudit
from app.auth.principal import Principal
from app.auth.scopes import Scope
from app.errors import FieldError, ValidationFailedError

log = structlog.get_logger()

BREAK_GLASS_HEADER = "X-Break-Glass"
MAX_REASON_LENGTH = 500
MIN_REASON_WORDS = 2
MIN_REASON_LETTERS = 10
MIN_DISTINCT_REASON_LETTERS = 4
"""Of a reason: less says nothing to who asks later why the glass was broken."""


def break_glass(request: Request) -> Principal:
    """The principal, without walls where the request says why in `X-Break-Glass`.

    Raises:
        MissingScopeError: it lacks `patients:break-glass`.
        InvalidError: the reason says nothing.
    """
    principal = Principal.from_request(request)
    header_values = request.headers.getlist(BREAK_GLASS_HEADER)
    if not header_values:
        return principal
    principal.require(Scope.BREAK_GLASS)
    reason = _decode_header(" ".join(header_values))
    if not _is_meaningful(reason):
        raise _reason_error(
            f"Say in words why: at least {MIN_REASON_WORDS}, of {MIN_REASON_LETTERS} letters in all, "
            "without line breaks"
        )
    if len(reason) > MAX_REASON_LENGTH:
        raise _reason_error(f"Must have at most {MAX_REASON_LENGTH} characters")
    RequestAudit.from_request(request).break_glass(reason)
    log.warning("glass broken", request_id=principal.request_id, principal=principal.name)
    return dataclasses.replace(principal, hospitals=None)


def _is_meaningful(reason: str) -> bool:
    letters = [character for character in reason.casefold() if character.isalpha()]
    words = [word for word in reason.split() if any(character.isalpha() for character in word)]
    return (
        reason.isprintable()
        and len(words) >= MIN_REASON_WORDS
        and len(letters) >= MIN_REASON_LETTERS
        and len(set(letters)) >= MIN_DISTINCT_REASON_LETTERS
    )


def _decode_header(header: str) -> str:
    """What a header says: UTF-8, where it is that, else what browsers send (ISO 8859-1)."""
    try:
        return header.encode("latin-1").decode("utf-8").strip()
    except UnicodeDecodeError:
        return header.strip()


def _reason_error(message: str) -> ValidationFailedError:
    return ValidationFailedError([FieldError(("header", BREAK_GLASS_HEADER), message, "break_glass_reason")])
