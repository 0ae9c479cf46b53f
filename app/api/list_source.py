"""Sources of list responses. A source reads and counts the items of a list, and audits them before they are sent."""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from fastapi import Request

from app.api.resource import ResourceApi
from app.api.services import get_services
from app.audit.recorder import RequestAudit
from app.auth.principal import Principal
from app.auth.scopes import Scope
from app.changes.cursors import newest_cursor
from app.db.connection import Connection
from app.errors import FieldError, ValidationFailedError
from app.listing.gone import GoneListing
from app.listing.listing import Listing
from app.listing.page import Page
from app.listing.pagination import ListParameters
from app.listing.query import Position

STREAM_BATCH_SIZE = 500
"""Number of rows that are read at a time when a whole list is streamed.

This many rows take about half a megabyte. Reading them occupies a database connection for a few milliseconds.
"""
MAX_HOSPITALS_FOR_CHEAP_PAGES = 50
"""An unfiltered page counts as cheap only if the principal is restricted to at most this number of hospitals.

To read such a page, PostgreSQL reads as many ids from each hospital as the page has records. If the principal has more
hospitals, the page is therefore subject to the same concurrency limits as a search.
"""


class ListSource(ABC):
    """The items of the list that one request asks for.

    A position is a value that `Page.position_of` returns; None is the position before the first item.
    """

    @abstractmethod
    async def page(self, after: Any, limit: int) -> Page:
        """Return up to `limit` items that follow the position `after`."""

    async def before_send(self, page: Page) -> None:  # noqa: B027  # most sources have nothing to do
        """Do the work that is necessary before these items are sent, such as auditing them. By default, do nothing."""

    @property
    def headers(self) -> Mapping[str, str]:
        """Further headers of the response, after a page was read."""
        return {}

    async def count(self) -> int | None:
        """Return the number of items if the request asks for it and the list supports it, otherwise None."""
        return None

    async def changes_cursor(self) -> str | None:
        """Return the cursor after which the change feed lists what changes from now on, if the list is of records."""
        return None

    async def position_after(self, after: Any, distance: int) -> Any:  # noqa: ARG002  # used by overrides
        """Return the position that is `distance` items after the position `after`, or None if it is unknown.

        The position is unknown if the source would have to read the items to find it, or if the list ends before it.
        """
        return None

    async def range(self, after: Any, last: Any) -> Page:
        """Return the items after the position `after`, up to and including the position `last`.

        `last` must be a result of `position_after`. A source whose `position_after` always returns None need not
        implement this method.
        """
        raise NotImplementedError


class RecordListSource(ListSource):
    """The records of one resource that match the parameters of a request and are visible to its principal.

    Raises:
        MissingScopeError: the request asks for deleted or merged records, but the principal may not bring them back.
    """

    def __init__(
        self,
        request: Request,
        resource: ResourceApi[Any, Any],
        parameters: ListParameters,
    ) -> None:
        resource = resource.including(parameters)
        self._services = get_services(request)
        self._audit = RequestAudit.from_request(request)
        self._principal = Principal.from_request(request)
        self._repository_class = resource.repository_class
        self._is_count_requested = parameters.count is not None
        self._query = parameters.to_query(self._services.settings.locality)
        self._listing_class = resource.listing_class if self._query.gone is None else GoneListing
        self._selection = resource.selection(parameters)
        self._headers: Mapping[str, str] = {}
        if self._query.gone is not None:
            self._principal.require(Scope.PATIENTS_MERGE if self._query.gone == "merged" else resource.write_scope)

    async def page(self, after: Any, limit: int) -> Page:
        """Return up to `limit` records that follow the position `after`."""
        position = after and Position._make(after)
        if self._is_cheap:
            reads, hospitals = self._services.batched_reads, self._principal.hospitals
            return self._select_fields(await reads.page(self._repository_class, hospitals, position, limit))
        async with self._open_listing() as listing:
            rows = await listing.page(self._query, position, limit)
            self._headers = listing.headers
            return self._select_fields(rows)

    @property
    def headers(self) -> Mapping[str, str]:
        """Further headers of the response: how well a search text is met."""
        return self._headers

    async def before_send(self, page: Page) -> None:
        """Record in the audit that the response, or a part of it, is about to reveal these records."""
        await self._audit.record_page(page.ids)

    async def count(self) -> int | None:
        """Return the number of matching records, or None if the request does not ask for a count.

        If the list is filtered, the ids of the records on which the number depends are passed to the audit.

        Raises:
            ValidationFailedError: a HEAD request asks for a count. The response to HEAD must have the same headers as
                the response to GET, so the count cannot simply be left out.
        """
        if not self._is_count_requested:
            return None
        if self._audit.method == "HEAD":
            raise ValidationFailedError(
                [FieldError(("query", "count"), "Is not supported with HEAD; use GET", "count_by_head")]
            )
        async with self._search_snapshot() as connection:
            listing = self._listing_class(self._repository_class(connection, self._principal))
            number, ids = await listing.count(self._query)
        self._audit.note_counted_ids(ids)
        return number

    async def changes_cursor(self) -> str | None:
        """Return the cursor of the newest change, or None if the principal may not read changes."""
        if not self._principal.has(Scope.CHANGES_READ):
            return None
        return await newest_cursor(self._services.feed, self._services.cursors, self._principal.hospitals)

    async def position_after(self, after: Any, distance: int) -> Position | None:
        """Return the position that is `distance` records after the position `after` in an unfiltered list.

        Return None if the list is filtered, searched or not ordered by `unique_id`, if the principal is restricted to
        hospitals, or if the list ends before that position.
        """
        if not self._query.is_unfiltered:
            return None
        async with self._open_listing() as listing:
            return await listing.position_after(after, distance)

    async def range(self, after: Any, last: Any) -> Page:
        """Return the records of an unfiltered list after the position `after`, up to and including `last`."""
        async with self._open_listing() as listing:
            return self._select_fields(await listing.read_range(after, last))

    def _select_fields(self, page: Page) -> Page:
        return page if self._selection is None else page.convert(self._selection.apply)

    @property
    def _is_cheap(self) -> bool:
        """Whether a page costs so little that it is exempt from the concurrency limits for searches."""
        hospitals = self._principal.hospitals
        return self._query.is_unfiltered and (hospitals is None or len(hospitals) <= MAX_HOSPITALS_FOR_CHEAP_PAGES)

    @asynccontextmanager
    async def _open_listing(self) -> AsyncIterator[Listing]:
        database = self._services.database
        async with database.read() if self._is_cheap else self._search_snapshot() as connection:
            yield self._listing_class(self._repository_class(connection, self._principal))

    def _search_snapshot(self) -> AbstractAsyncContextManager[Connection]:
        has_text = self._query.search is not None
        return self._services.database.search_snapshot(self._principal.name, has_text=has_text)
