"""Entity tags, and the preconditions that a request sets for the current record (RFC 9110, sections 8.8.3 and 13.1)."""

import base64
import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from app.errors import PreconditionFailedError, PreconditionRequiredError

if TYPE_CHECKING:  # see `app.auth.principal`
    from starlette.datastructures import Headers

_TAG_PATTERN = re.compile(r'(?:W/)?"([A-Za-z0-9_-]{22}|[0-9]{1,19})(?:-+[a-z]+)?"')
"""Matches a tag from `entity_tag` or one that consists of a version, as FHIR resources have it.

It matches even if a compressing proxy has changed the tag to `W/"…"` (nginx) or `"…-gzip"` (Apache, Caddy)."""


_INCLUDED_FIELD_MARK = ',"patient_identifiers":'
"""The beginning of what the parameter `include` adds to a document. Text in a document cannot contain it, because a
quotation mark in text is escaped."""


def entity_tag(document: str) -> str:
    """Return the strong entity tag of a representation: a hash of the bytes of `document`.

    The tag of a patient therefore also changes if a hospital of the patient is renamed. What `include` adds does not
    count, so that the tag can be sent with any change; if it changes, so does `last_updated`.
    """
    end = document.rfind(_INCLUDED_FIELD_MARK)
    if end >= 0:
        document = f"{document[:end]}}}"
    digest = hashlib.blake2b(document.encode(), digest_size=16).digest()
    return f'"{base64.urlsafe_b64encode(digest).decode().rstrip("=")}"'


def etag_matches(header: str, tag: str | None) -> bool:
    """Return whether the list of entity tags in a header contains `tag`, the tag of the current representation.

    The header `*` matches any tag. If `tag` is None, there is no representation, and nothing matches.
    """
    if tag is None:
        return False
    return header.strip() == "*" or tag.removeprefix("W/").strip('"') in _TAG_PATTERN.findall(header)


@dataclass(frozen=True, slots=True)
class Precondition:
    """The conditions that a record must meet before a request may change it."""

    if_match: str | None = None
    if_none_match: str | None = None
    required: bool = False
    """Whether a change without If-Match is rejected."""

    @classmethod
    def from_headers(cls, headers: "Headers", *, required: bool = False) -> Self:
        """Return the preconditions in the If-Match and If-None-Match headers of a request."""
        # several lines of a header form one list (RFC 9110, section 5.3)
        if_match = ", ".join(headers.getlist("if-match")) if "if-match" in headers else None
        if_none_match = ", ".join(headers.getlist("if-none-match")) if "if-none-match" in headers else None
        return cls(if_match, if_none_match, required)

    @property
    def needs_current_etag(self) -> bool:
        """Whether `check` needs the entity tag of the current representation."""
        return self.if_match is not None or self.if_none_match is not None

    def check(self, tag: str | None) -> None:
        """Check the conditions against `tag`, the entity tag of the current representation.

        If there is no representation, `tag` is None.

        Raises:
            PreconditionFailedError: a condition does not hold.
            PreconditionRequiredError: If-Match is required, but the request does not have it.
        """
        if self.if_match is not None and not etag_matches(self.if_match, tag):
            raise PreconditionFailedError(tag)
        if self.if_none_match is not None and etag_matches(self.if_none_match, tag):
            raise PreconditionFailedError(tag, "The record exists, which If-None-Match forbids. Nothing was stored.")
        if self.required and self.if_match is None:
            raise PreconditionRequiredError


NO_PRECONDITION = Precondition()
