"""The formats in which lists are sent: a JSON array, or one record per line."""

from collections.abc import Sequence
from typing import NamedTuple

from app.listing.query import ListItem


class ListFormat(NamedTuple):
    """A format for the items of a list, such as a JSON array or one record per line."""

    media_type: str
    opening: bytes
    record_suffix: bytes
    """Bytes that follow each record."""
    separator: bytes
    """Bytes between two consecutive records."""
    closing: bytes

    def encode(self, items: Sequence[ListItem]) -> bytes:
        """Return the items as bytes in this format, without `opening` and `closing`."""
        # each document separately, because one non-ASCII character would slow down the encoding of a joined text
        documents = [item.document.encode() for item in items]
        if self.record_suffix:
            documents = [document + self.record_suffix for document in documents]
        return self.separator.join(documents)


JSON_ARRAY = ListFormat("application/json", b"[", b"", b",", b"]")
NDJSON = ListFormat("application/x-ndjson", b"", b"\n", b"", b"")
"""The format with one JSON record per line, for tools that process records as they arrive."""
