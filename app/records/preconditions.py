"""Entity tags, and the preconditions of a request on the current record (RFC 9110, sections 8.8.3 and 13.1)."""

import base64
import hashlib
import re
from dataclasses import dataclass
from typing import Self

from starlette.datastructures import Headers

from app.errors import PreconditionFailedError, PreconditionRequiredError

_TAG_PATTERN = re.compile(r'(?:W/)?"([A-Za-z0-9_-]{22})(?:-+[a-z]+)?"')
"""A tag from `entity_tag`, also as compressing proxies change it: `W/"…"` (nginx) or `"…-gzip"` (Apache, Caddy)."""


def entity_tag(document: str) -> str:
    """Return the strong tag of a representation: a hash of its bytes, so that renaming a hospital changes it too."""
    digest = hashlib.blake2b(document.encode(), digest_size=16).digest()
    return f'"{base64.urlsafe_b64encode(digest).decode().rstrip("=")}"'


def etag_matches(header: str, tag: str | None) -> bool:
    """Return whether the list of tags in a header contains `tag`, that of the representation; `*` matches any tag.

    Nothing matches if `tag` is None: there is no representation.
    """
    if tag is None:
        return False
    return header.strip() == "*" or tag.strip('"') in _TAG_PATTERN.findall(header)


@dataclass(frozen=True, slots=True)
class Precondition:
    """The conditions that a record must meet before it is changed."""

    if_match: str | None = None
    if_none_match: str | None = None
    required: bool = False
    """Whether a change without If-Match is refused."""

    @classmethod
    def from_headers(cls, headers: Headers, *, required: bool = False) -> Self:
        """Return the preconditions in the headers of a request."""
        # several lines of a header form one list (RFC 9110, section 5.3)
        if_match = ", ".join(headers.getlist("if-match")) if "if-match" in headers else None
        if_none_match = ", ".join(headers.getlist("if-none-match")) if "if-none-match" in headers else None
        return cls(if_match, if_none_match, required)

    @property
    def needs_current_etag(self) -> bool:
        """Whether the check needs the tag of the current representation."""
        return self.if_match is not None or self.if_none_match is not None

    def check(self, tag: str | None) -> None:
        """Check the conditions against the representation with `tag`; None means that there is no representation.

        Raises:
            PreconditionFailedError: a condition does not hold.
            PreconditionRequiredError: If-Match is required and missing.
        """
        if self.if_match is not None and not etag_matches(self.if_match, tag):
            raise PreconditionFailedError(tag)
        if self.if_none_match is not None and etag_matches(self.if_none_match, tag):
            raise PreconditionFailedError(tag, "The record exists, which If-None-Match forbids. Nothing was stored.")
        if self.required and self.if_match is None:
            raise PreconditionRequiredError


NO_PRECONDITION = Precondition()
