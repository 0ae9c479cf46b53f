"""Export of all records of a resource that match a query. It reads one snapshot and uses constant memory."""

import asyncio
import csv
import io
import json
from collections.abc import AsyncGenerator, Iterable, Sequence

from sqlalchemy import text

from app.auth.principal import Principal
from app.db.connection import Connection
from app.listing.listing import Listing
from app.listing.page import Page
from app.listing.query import ListQuery, Position
from app.transfer.formulas import escape_formula
from app.transfer.layout import Layout
from app.transfer.resources import TransferableResource

EXPORT_BATCH_SIZE = 1000
"""Maximum number of records that are read per page. A page takes about a megabyte."""
EXPORT_PRINCIPAL = Principal("export")
"""The principal of every export. The audit records it as the reader of the exported records."""


class Export:
    """An export of the records of one resource that match a query. `connection` must read from one snapshot."""

    def __init__(self, connection: Connection, resource: TransferableResource, query: ListQuery) -> None:
        self._connection = connection
        self._listing = Listing(resource.service_class.repository_class(connection, EXPORT_PRINCIPAL))
        self._query = query

    async def count(self) -> int:
        """Return the number of records that match the query."""
        return await self._listing.total(self._query)

    async def batches(self) -> AsyncGenerator[Page]:
        """Yield all records that match the query in batches, ordered by `unique_id`."""
        if self._query.filters:
            # a generic plan ignores how common the filter values are, although the best plan depends on it
            await self._connection.execute(text("SET LOCAL plan_cache_mode = force_custom_plan"))
        next_page = asyncio.create_task(self._read_page(None))
        try:
            while page := await next_page:
                # PostgreSQL reads the next page while the caller writes this one
                next_page = asyncio.create_task(self._read_page(page.last_position))
                yield page
        finally:
            next_page.cancel()
            await asyncio.gather(next_page, return_exceptions=True)

    async def _read_page(self, after: Position | None) -> Page:
        return await self._listing.page(self._query, after, EXPORT_BATCH_SIZE)


class NdjsonFormat:
    """The NDJSON format: one JSON document per line, as in a list that the API streams."""

    header = b""

    def __init__(self, _: Layout) -> None: ...

    def render(self, page: Page) -> bytes:
        """Return the records as NDJSON, one line per record."""
        return page.lines + b"\n"


class CsvFormat:
    """The CSV format: one row per record, for the command `import` and for spreadsheets."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self.header = _csv_text([layout.columns])

    def render(self, page: Page) -> bytes:
        """Return the records as CSV without a header, one row per record."""
        return _csv_text(self._layout.to_csv_row(json.loads(document)) for document in page.documents())


FORMATS: dict[str, type[NdjsonFormat] | type[CsvFormat]] = {"ndjson": NdjsonFormat, "csv": CsvFormat}


def _csv_text(rows: Iterable[Sequence[str | None]]) -> bytes:
    buffer = io.StringIO()
    csv.writer(buffer).writerows([cell and escape_formula(cell) for cell in row] for row in rows)
    return buffer.getvalue().encode()
