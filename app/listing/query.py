"""Types for list requests: the query, and the position of a record in a list."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

GoneBy = Literal["deleted", "merged"]
"""The actions by which records go and can come back, as in the journal."""


class ListQuery(NamedTuple):
    """The filters, ordering and search of a list request, without its page.

    The default query returns every record, ordered by `unique_id`.
    """

    filters: Mapping[str, Sequence[Any]] = {}
    """Filter values by parameter name. For each name, a record has to match at least one of the values.

    For a name with the suffix `__words`, it has to match all of them.
    """
    ordering: str | None = None
    """Name of the column to order by, preceded by `-` for descending order. None means the list's default order."""
    search: Any = None
    """The search text as an `app.search_text.parser.ParsedQuery`. None means that the request contains no search."""

    gone: GoneBy | None = None
    """The action by which the listed records have gone, newest first. None means that the list contains existing
    records.
    """

    @property
    def is_unfiltered(self) -> bool:
        """Whether the query returns every existing record, ordered by `unique_id`."""
        return not self.filters and self.ordering in {None, "unique_id"} and self.search is None and self.gone is None


class Position(NamedTuple):
    """The position of a record in a list. Cursors contain it as a JSON array."""

    segment: int
    """Number of the segment that contains the record. A list consists of one or more consecutive segments."""
    key: Any
    """The record's value in the column by which its segment of the list is sorted; ties are broken by `unique_id`.

    None if the segment is sorted by `unique_id` alone.
    """
    unique_id: str
