"""Pages of lists: consecutive items, with their documents as lines of JSON text.

PostgreSQL aggregates the documents of a page to one value. A row for each document would take the driver and this
process three times as much CPU time.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any, NamedTuple, Self

from sqlalchemy import Integer, Select, Text, cast, func, literal_column, null, select

from app.listing.query import Position

FIRST_SEGMENT = literal_column("0", Integer).label("segment")
"""The segment number in statements for lists that consist of one segment."""
NO_KEY = cast(null(), Text).label("key")
"""The key in statements for lists that are sorted by `unique_id` alone."""


class ListItem(NamedTuple):
    """An item of a list whose positions are plain JSON values and not of the type `Position`."""

    unique_id: str
    document: str
    """The item as JSON text."""
    position: Any


@dataclass(frozen=True, slots=True)
class Page:
    """Consecutive items of a list."""

    ids: Sequence[str]
    """The `unique_id` of each item."""
    lines: bytes
    """The items as JSON texts, with a newline between two of them. A JSON text contains no newline."""
    position_of: Callable[[int], Any]
    """Returns the position, as a JSON value, of the item with the given index.

    The cursor of the page that starts after this item contains the position. It is computed only when it is needed,
    because only that of the last item is.
    """

    @classmethod
    def of_items(cls, items: Sequence[ListItem]) -> Self:
        """Return the page that consists of `items`."""
        ids, lines = [item.unique_id for item in items], "\n".join([item.document for item in items])
        return cls(ids, lines.encode(), lambda index: items[index].position)

    def __len__(self) -> int:
        """Return the number of items."""
        return len(self.ids)

    @property
    def last_position(self) -> Any:
        """The position of the last item of a page that is not empty."""
        return self.position_of(len(self) - 1)

    def without_last(self) -> Self:
        """Return the page without its last item."""
        return type(self)(self.ids[:-1], self.lines[: max(self.lines.rfind(b"\n"), 0)], self.position_of)

    def first(self, count: int) -> Self:
        """Return the page of the first `count` items."""
        if len(self) <= count:
            return self
        return replace(self, ids=self.ids[:count], lines=b"\n".join(self.documents()[:count]))

    def followed_by(self, other: Self) -> Self:
        """Return the page of the items of this page and then those of another page."""

        def position_of(index: int) -> Any:
            return self.position_of(index) if index < len(self) else other.position_of(index - len(self))

        lines = b"\n".join(page.lines for page in (self, other) if page.ids)
        return type(self)([*self.ids, *other.ids], lines, position_of)

    def documents(self) -> list[bytes]:
        """Return the JSON text of each item."""
        return self.lines.split(b"\n") if self.ids else []

    def convert(self, convert_document: Callable[[bytes], bytes]) -> Self:
        """Return the page with each document replaced by the JSON text that `convert_document` returns for it."""
        return replace(self, lines=b"\n".join(map(convert_document, self.documents())))


EMPTY_PAGE = Page.of_items(())


def aggregate_keys(rows: Select[Any]) -> Select[Any]:
    """Return the same statement as `aggregate_page` for a page whose documents are read later. `rows` selects none."""
    return select(*map(func.array_agg, rows.subquery("listed").c))


def aggregate_page(rows: Select[Any]) -> Select[Any]:
    """Return the statement that selects the rows of a page as a single row, the input of `page_from_aggregates`.

    `rows` selects segment number, key, `unique_id` and document (as text) of each record, in the order of the list.
    PostgreSQL aggregates the rows of a sorted subquery in their order if nothing comes between, such as a join.
    """
    segment, key, unique_id, document = rows.subquery("listed").c
    lines = func.convert_to(func.string_agg(document, literal_column("E'\\n'")), literal_column("'UTF8'"))
    aggregates = map(func.array_agg, (segment, key, unique_id))
    return select(*aggregates, lines)


def page_from_aggregates(segments: Sequence[int], keys: Sequence[Any], ids: Sequence[str], lines: bytes = b"") -> Page:
    """Return the page that `aggregate_page` or `aggregate_keys` selected. The arguments are None if it is empty."""

    def position_of(index: int) -> Position:
        key = keys[index]
        return Position(segments[index], key.isoformat() if isinstance(key, date) else key, ids[index])

    return Page(ids or (), lines or b"", position_of)
