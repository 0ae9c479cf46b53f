"""Where the items of a list response come from."""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from fastapi import Request

from app.api.services import get_services
from app.audit.recorder import RequestAudit
from app.auth.principal import Principal
from app.errors import FieldError, ValidationFailedError
from app.listing.listing import Listing
from app.listing.pagination import ListParameters
from app.listing.query import KeysetRow, ListItem, Position
from app.records.repository import Repository

STREAM_BATCH_SIZE = 500
"""Rows that the stream of a whole list reads at once: about half a megabyte and a few milliseconds of a connection."""
MAX_HOSPITALS_FOR_CHEAP_PAGES = 50
"""With more hospitals, unfiltered pages of a principal are admitted like searches: one reads a page's worth of ids from
each hospital."""


class ListSource(ABC):
    """The items that one list request asks for. A position is what `ListItem.position` returns; None is the start."""

    @abstractmethod
    async def page(self, after: Any, limit: int) -> Sequence[ListItem]:
        """Return up to `limit` items after a position."""

    async def before_send(self, items: Sequence[ListItem]) -> None:  # noqa: B027  # most lists have nothing to do
        """Do what has to be done before a response with these items is sent; by default nothing."""

    async def count(self) -> int | None:
        """Return the number of items in the list if the request asks for it and the list supports it, else None."""
        return None

    async def position_after(self, after: Any) -> Any:  # noqa: ARG002  # used by overrides
        """Return the position `STREAM_BATCH_SIZE` items after another, or None if it is unknown without reading."""
        return None

    async def range(self, after: Any, last: Any) -> Sequence[ListItem]:
        """Return the items after one position up to another, which `position_after` has returned."""
        raise NotImplementedError


class RecordListSource(ListSource):
    """The records of one resource that match the parameters of a request and are visible to its principal."""

    def __init__(
        self,
        request: Request,
        repository_class: type[Repository],
        listing_class: type[Listing],
        parameters: ListParameters,
    ) -> None:
        self._services = get_services(request)
        self._audit = RequestAudit.from_request(request)
        self._principal = Principal.from_request(request)
        self._repository_class = repository_class
        self._listing_class = listing_class
        self._is_count_requested = parameters.count is not None
        self._query = parameters.to_query(self._services.settings.phone_region)

    async def page(self, after: Any, limit: int) -> list[KeysetRow]:
        """Return up to `limit` records after a position."""
        position = after and Position._make(after)
        if self._is_cheap:
            return await self._services.batched_reads.page(
                self._repository_class, self._principal.hospitals, position, limit
            )
        async with self._open_listing() as listing:
            return await listing.page(self._query, position, limit)

    async def before_send(self, items: Sequence[ListItem]) -> None:
        """Audit that a response with these records is about to be sent."""
        await self._audit.record_page([record.unique_id for record in items])

    async def count(self) -> int | None:
        """Return the number of records, and note the ids that the number depends on for the audit.

        Raises:
            ValidationFailedError: the count is requested by HEAD, whose response must not differ from that to GET.
        """
        if not self._is_count_requested:
            return None
        if self._audit.method == "HEAD":
            raise ValidationFailedError(
                [FieldError(("query", "count"), "Is not answered to HEAD: ask by GET", "count_by_head")]
            )
        async with self._services.database.search_snapshot(self._principal.name) as connection:
            listing = self._listing_class(self._repository_class(connection, self._principal))
            number, ids = await listing.count(self._query)
        self._audit.note_counted_ids(ids)
        return number

    async def position_after(self, after: Any) -> Position | None:
        """Return the position of the record `STREAM_BATCH_SIZE` after another, of unfiltered lists only."""
        if not self._query.is_unfiltered:
            return None
        async with self._open_listing() as listing:
            return await listing.position_after(after, STREAM_BATCH_SIZE)

    async def range(self, after: Any, last: Any) -> list[KeysetRow]:
        """Return the records of an unfiltered list after one position up to another."""
        async with self._open_listing() as listing:
            return await listing.read_range(after, last)

    @property
    def _is_cheap(self) -> bool:
        """Whether a page costs little, so that it need not be admitted like a search."""
        hospitals = self._principal.hospitals
        return self._query.is_unfiltered and (hospitals is None or len(hospitals) <= MAX_HOSPITALS_FOR_CHEAP_PAGES)

    @asynccontextmanager
    async def _open_listing(self) -> AsyncIterator[Listing]:
        database = self._services.database
        async with database.read() if self._is_cheap else database.search_snapshot(self._principal.name) as connection:
            yield self._listing_class(self._repository_class(connection, self._principal))
