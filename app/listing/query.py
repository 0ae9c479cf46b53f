"""What a list request asks for, and the position of a record in a list."""

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any, NamedTuple, Protocol


class ListQuery(NamedTuple):
    """A list request, independent of pages. The default is every record, ordered by `unique_id`."""

    filters: Mapping[str, Sequence[Any]] = {}
    """Values by parameter name; a record matches if, for each name, it matches one of the values."""
    ordering: str | None = None
    """The name of a column, preceded by `-` for descending order."""
    search: Sequence[Any] | None = None
    """Alternative interpretations of the search text, each an `app.search.parser.ParsedQuery`; the first that matches
    anything is used. None if nothing is searched for."""

    @property
    def is_unfiltered(self) -> bool:
        """Whether the query returns every record in the order of `unique_id`."""
        return not self.filters and self.ordering in {None, "unique_id"} and self.search is None


class Position(NamedTuple):
    """The position of a record in a list; in JSON an array."""

    segment: int
    """The index of the list's segment; a list may consist of several, one after the other."""
    key: Any
    """The sort key within the segment, before `unique_id`; null if the segment is sorted by `unique_id` alone."""
    unique_id: str


class ListItem(Protocol):
    """An item of a list response."""

    @property
    def unique_id(self) -> str: ...

    @property
    def document(self) -> str:
        """The item as JSON text."""

    @property
    def position(self) -> Any:
        """The position as a JSON value; the cursor of the page after this item contains it."""


class SimpleListItem(NamedTuple):
    """An item of a list that has positions of its own kind."""

    unique_id: str
    document: str
    position: Any


class KeysetRow(NamedTuple):
    """A record as list statements return it (`app.listing.keyset.page_documents`)."""

    segment: int
    key: Any
    unique_id: str
    document: str

    @property
    def position(self) -> Position:
        """The position; a property, because only the last record of a page needs it."""
        key = self.key.isoformat() if isinstance(self.key, date) else self.key  # as JSON represents it
        return Position(self.segment, key, self.unique_id)
