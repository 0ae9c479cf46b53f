"""The formats in which lists are sent: a JSON array, or one record per line."""

from typing import NamedTuple

from app.listing.page import Page


class ListFormat(NamedTuple):
    """A format for the items of a list, such as a JSON array or one record per line."""

    media_type: str
    opening: bytes
    record_suffix: bytes
    """Bytes that follow each record."""
    separator: bytes
    """Bytes between two consecutive records."""
    closing: bytes

    def encode(self, page: Page) -> bytes:
        """Return the items of a page as bytes in this format, without `opening` and `closing`."""
        between = self.record_suffix + self.separator
        lines = page.lines if between == b"\n" else page.lines.replace(b"\n", between)
        return lines + self.record_suffix if page else lines


JSON_ARRAY = ListFormat("application/json", b"[", b"", b",", b"]")
NDJSON = ListFormat("application/x-ndjson", b"", b"\n", b"", b"")
"""The format with one JSON record per line, for tools that process records as they arrive."""
