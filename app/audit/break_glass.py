"""Break glass: emergency access to one patient outside the principal's hospital scope, always audited and logged."""

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
"""Maximum number of characters in a reason."""
MIN_REASON_WORDS = 2
"""Minimum number of words in a reason. One word does not explain to a later reviewer why access was necessary."""
MIN_REASON_LETTERS = 10
"""Minimum number of letters in a reason, so that a few characters do not pass as an explanation."""
MIN_DISTINCT_REASON_LETTERS = 4
"""Minimum number of different letters in a reason, so that `aaaaa aaaaa` does not pass as an explanation."""


def break_glass(request: Request) -> Principal:
    """Return the principal of the request, without its hospital restriction if `X-Break-Glass` contains a reason.

    A request with this header is audited with its reason, and a warning is logged.

    Raises:
        MissingScopeError: the request has the header, but the principal lacks the scope `patients:break-glass`.
        ValidationFailedError: the reason is too long, or too short to explain anything.
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
    """Return the text of a header, decoded as UTF-8 or, if it is not valid UTF-8, as ISO 8859-1 (sent by browsers)."""
    try:
        return header.encode("latin-1").decode("utf-8").strip()
    except UnicodeDecodeError:
        return header.strip()


def _reason_error(message: str) -> ValidationFailedError:
    return ValidationFailedError([FieldError(("header", BREAK_GLASS_HEADER), message, "break_glass_reason")])
