"""Entity tags, and the conditions that a request makes on what is there (RFC 9110, sections 8.8.3 and 13.1)."""

import base64
import hashlib
import re
from dataclasses import dataclass
from typing import Self

from starlette.datastructures import Headers

from app.errors import PreconditionFailedError, PreconditionRequiredError

_TAG_PATTERN = re.compile(r'(?:W/)?"([A-Za-z0-9_-]{22})(?:-+[a-z]+)?"')
"""One of our tags, also as compressing proxies change it: `W/"…"` (nginx) or `"…-gzip"` (Apache, Caddy)."""


def entity_tag(document: str) -> str:
    """The strong tag of a representation: a hash of its bytes, so that a renamed hospital changes it too."""
    digest = hashlib.blake2b(document.encode(), digest_size=16).digest()
    return f'"{base64.urlsafe_b64encode(digest).decode().rstrip("=")}"'


def etag_matches(header: str, tag: str | None) -> bool:
    """Whether a list of tags in a header names `tag`, that of the representation; `*` names any that is there."""
    if tag is None:
        return False
    return header.strip() == "*" or tag.strip('"') in _TAG_PATTERN.findall(header)


@dataclass(frozen=True, slots=True)
class Precondition:
    """What has to hold of a record before it is changed."""

    if_match: str | None = None
    if_none_match: str | None = None
    required: bool = False
    """Whether a change without If-Match is refused."""

    @classmethod
    def from_headers(cls, headers: Headers, *, required: bool = False) -> Self:
        """The conditions of a request."""
        # several lines are one list (RFC 9110, section 5.3)
        if_match = ", ".join(headers.getlist("if-match")) if "if-match" in headers else None
        if_none_match = ", ".join(headers.getlist("if-none-match")) if "if-none-match" in headers else None
        return cls(if_match, if_none_match, required)

    @property
    def needs_current_etag(self) -> bool:
        """Whether the representation has to be read to check it."""
        return self.if_match is not None or self.if_none_match is not None

    def check(self, tag: str | None) -> None:
        """Go on only where the condition holds of the representation that has `tag`; of none, where it is absent.

        Raises:
            PreconditionFailedError: it does not hold.
            PreconditionRequiredError: there is none, and there has to be.
        """
        if self.if_match is not None and not etag_matches(self.if_match, tag):
            raise PreconditionFailedError(tag)
        if self.if_none_match is not None and etag_matches(self.if_none_match, tag):
            raise PreconditionFailedError(tag, "The record is there, which If-None-Match forbids. Nothing was stored.")
        if self.required and self.if_match is None:
            raise PreconditionRequiredError


NO_PRECONDITION = Precondition()
