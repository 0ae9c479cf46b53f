"""What of a list is wanted, and what stands where in it."""

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any, NamedTuple, Protocol

from app.search.parser import ParsedQuery


class ListQuery(NamedTuple):
    """What of a list is wanted; nothing said is everything, in the order of `unique_id`."""

    filters: Mapping[str, Sequence[Any]] = {}
    """Values by the names of parameters: of each, one has to match."""
    ordering: str | None = None
    """The name of a column, after `-` where it is descending."""
    search: Sequence[ParsedQuery] | None = None
    """The readings of what was typed, of which the first counts in which somebody is found."""

    @property
    def is_unfiltered(self) -> bool:
        """Whether this is the plain list."""
        return not self.filters and self.ordering in {None, "unique_id"} and self.search is None


class Position(NamedTuple):
    """Where a record stands in a list; as JSON an array."""

    segment: int
    """Lists may have several parts, one after the other."""
    key: Any
    """What the part is ordered by, before `unique_id`; null where it is by that alone."""
    unique_id: str


class ListItem(Protocol):
    """A record in a list."""

    @property
    def unique_id(self) -> str: ...

    @property
    def document(self) -> str:
        """JSON text."""

    @property
    def position(self) -> Any:
        """Where it stands, as JSON has it: what the cursor of the page after it holds."""


class SimpleListItem(NamedTuple):
    """A record in a list whose places are of its own kind."""

    unique_id: str
    document: str
    position: Any


class KeysetRow(NamedTuple):
    """A record as statements find it (`app.listing.keyset.page_of`)."""

    segment: int
    key: Any
    unique_id: str
    document: str

    @property
    def position(self) -> Position:
        """Where it stands; worked out for the last of a page alone."""
        key = self.key.isoformat() if isinstance(self.key, date) else self.key  # as JSON can have it
        return Position(self.segment, key, self.unique_id)
