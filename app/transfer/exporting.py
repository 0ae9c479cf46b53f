"""Export of all records of a resource that match a query. It reads one snapshot and uses constant memory."""

import asyncio
import codecs
import csv
import io
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing, asynccontextmanager

from sqlalchemy import text

from app.auth.principal import Principal
from app.db.connection import Connection
from app.listing.gone import GoneListing
from app.listing.listing import Listing
from app.listing.page import Page
from app.listing.query import ListQuery, Position
from app.listing.read_ahead import ReadAhead
from app.table_files.formulas import escape_cell, escape_cell_for_excel
from app.transfer.layout import Layout
from app.transfer.resources import TransferableResource

EXPORT_BATCH_SIZE = 1000
"""Maximum number of records that are read per page. A page takes about a megabyte."""
EXPORT_PRINCIPAL = Principal("export")
"""The principal of every export. The audit records it as the reader of the exported records."""


class Export:
    """An export of the records of one resource that match a query.

    All connections must read from the same snapshot. As many pages are read concurrently as there are connections.
    """

    def __init__(
        self,
        connections: Sequence[Connection],
        resource: TransferableResource,
        query: ListQuery,
        record: Callable[[Page], Awaitable[None]] | None = None,
    ) -> None:
        """`record`, if given, is called with each page before `batches` yields it, while other pages are read."""
        self._connections = connections
        self._query = query
        self._record = record
        self._free_listings: asyncio.Queue[Listing] = asyncio.Queue()
        for connection in connections:
            repository = resource.service_class.repository_class(connection, EXPORT_PRINCIPAL)
            self._free_listings.put_nowait((Listing if query.gone is None else GoneListing)(repository))

    @asynccontextmanager
    async def _listing(self) -> AsyncIterator[Listing]:
        listing = await self._free_listings.get()
        try:
            yield listing
        finally:
            self._free_listings.put_nowait(listing)

    async def count(self) -> int:
        """Return the number of records that match the query."""
        async with self._listing() as listing:
            return await listing.total(self._query)

    async def batches(self) -> AsyncGenerator[Page]:
        """Yield all records that match the query in batches, ordered by `unique_id` or, if deleted, by time."""
        if self._query.filters:
            # a generic plan ignores how common the filter values are, although the best plan depends on it
            for connection in self._connections:
                await connection.execute(text("SET LOCAL plan_cache_mode = force_custom_plan"))
        first_batch = await self.page(None, EXPORT_BATCH_SIZE)
        if not first_batch:
            return
        yield first_batch
        async with aclosing(ReadAhead(self, first_batch.last_position, EXPORT_BATCH_SIZE).batches()) as batches:
            async for batch in batches:
                if batch:
                    yield batch

    async def page(self, after: Position | None, limit: int) -> Page:
        """Return up to `limit` records that follow the position `after`."""
        async with self._listing() as listing:
            page = await listing.page(self._query, after, limit)
        return await self._recorded(page)

    async def position_after(self, after: Position, distance: int) -> Position | None:
        """Return the position that is `distance` records after the position `after`, or None if it is unknown."""
        if not self._query.is_unfiltered:
            return None
        async with self._listing() as listing:
            return await listing.position_after(after, distance)

    async def range(self, after: Position, last: Position) -> Page:
        """Return the records after the position `after`, up to and including `last`."""
        async with self._listing() as listing:
            page = await listing.read_range(after, last)
        return await self._recorded(page)

    async def _recorded(self, page: Page) -> Page:
        if page and self._record is not None:
            await self._record(page)
        return page


class NdjsonFormat:
    """The NDJSON format: one JSON document per line, as in a list that the API streams."""

    header = b""

    def __init__(self, _: Layout) -> None: ...

    def render(self, page: Page) -> bytes:
        """Return the records as NDJSON, one line per record."""
        return page.lines + b"\n"


class CsvFormat:
    """The CSV format: one row per record, for the command `import`."""

    escape = staticmethod(escape_cell)
    mark = b""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self.header = self.mark + self._csv_text([layout.columns])

    def render(self, page: Page) -> bytes:
        """Return the records as CSV without a header, one row per record."""
        return self._csv_text(self._layout.to_csv_row(json.loads(document)) for document in page.documents())

    def _csv_text(self, rows: Iterable[Sequence[str | None]]) -> bytes:
        buffer = io.StringIO()
        csv.writer(buffer).writerows([cell and self.escape(cell) for cell in row] for row in rows)
        return buffer.getvalue().encode()


class ExcelCsvFormat(CsvFormat):
    """The CSV format for Excel, which recognizes UTF-8 by a mark, and keeps cells with a guard as text."""

    escape = staticmethod(escape_cell_for_excel)
    mark = codecs.BOM_UTF8


FORMATS: dict[str, type[NdjsonFormat] | type[CsvFormat]] = {"ndjson": NdjsonFormat, "csv": CsvFormat}
