"""What of a list is wanted, and what stands where in it."""

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any, NamedTuple, Protocol

from app.search.typed import Typed


class Wanted(NamedTuple):
    """What of a list is wanted; nothing said is everything, in the order of `unique_id`."""

    filters: Mapping[str, Sequence[Any]] = {}
    """Values by the names of parameters: of each, one has to match."""
    ordering: str | None = None
    """The name of a column, after `-` where it is descending."""
    search: Sequence[Typed] | None = None
    """The readings of what was typed, of which the first counts in which somebody is found."""

    @property
    def everything(self) -> bool:
        """Whether this is the plain list."""
        return not self.filters and self.ordering in {None, "unique_id"} and self.search is None


class Place(NamedTuple):
    """Where a record stands in a list; as JSON an array."""

    part: int
    """Lists may have several parts, one after the other."""
    key: Any
    """What the part is ordered by, before `unique_id`; null where it is by that alone."""
    unique_id: str


class Listed(Protocol):
    """A record in a list."""

    @property
    def unique_id(self) -> str: ...

    @property
    def document(self) -> str:
        """JSON text."""

    @property
    def place(self) -> Any:
        """Where it stands, as JSON has it: what the cursor of the page after it holds."""


class Item(NamedTuple):
    """A record in a list whose places are of its own kind."""

    unique_id: str
    document: str
    place: Any


class Found(NamedTuple):
    """A record as statements find it (`app.resource.finding.page_of`)."""

    part: int
    key: Any
    unique_id: str
    document: str

    @property
    def place(self) -> Place:
        """Where it stands; worked out for the last of a page alone."""
        key = self.key.isoformat() if isinstance(self.key, date) else self.key  # as JSON can have it
        return Place(self.part, key, self.unique_id)
