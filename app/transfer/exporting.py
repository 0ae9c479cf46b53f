"""Export of all records of a resource that match a query, from one snapshot and in constant memory."""

import asyncio
import csv
import io
import json
from collections.abc import AsyncGenerator, Iterable, Sequence

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.auth.principal import Principal
from app.listing.listing import Listing
from app.listing.query import KeysetRow, ListItem, ListQuery, Position
from app.transfer.formulas import escape_formula
from app.transfer.layout import Layout
from app.transfer.resources import TransferableResource

EXPORT_BATCH_SIZE = 1000
"""Maximum number of records per page that is read: about a megabyte."""
EXPORT_PRINCIPAL = Principal("export")
"""The principal under which the audit records what an export has read."""


class Export:
    """An export of one resource, on the connection of a snapshot."""

    def __init__(self, connection: AsyncConnection, resource: TransferableResource, query: ListQuery) -> None:
        self._connection = connection
        self._listing = Listing(resource.service_class.repository_class(connection, EXPORT_PRINCIPAL))
        self._query = query

    async def count(self) -> int:
        """Return the number of matching records."""
        return await self._listing.total(self._query)

    async def batches(self) -> AsyncGenerator[list[KeysetRow]]:
        """Yield all matching records in batches, ordered by `unique_id`."""
        if self._query.filters:
            # the best plan depends on how common the filter values are, which a generic plan ignores
            await self._connection.execute(text("SET LOCAL plan_cache_mode = force_custom_plan"))
        next_page = asyncio.create_task(self._read_page(None))
        try:
            while items := await next_page:
                # PostgreSQL reads the next page while the caller writes this one
                next_page = asyncio.create_task(self._read_page(items[-1].position))
                yield items
        finally:
            next_page.cancel()
            await asyncio.gather(next_page, return_exceptions=True)

    async def _read_page(self, after: Position | None) -> list[KeysetRow]:
        return await self._listing.page(self._query, after, EXPORT_BATCH_SIZE)


class NdjsonFormat:
    """NDJSON: one document per line, as the list streams them."""

    header = ""

    def __init__(self, _: Layout) -> None: ...

    def render(self, records: Sequence[ListItem]) -> str:
        """Return the lines of some records."""
        return "".join([f"{record.document}\n" for record in records])


class CsvFormat:
    """CSV: one record per row, for `import` and for spreadsheets."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self.header = _csv_text([layout.columns])

    def render(self, records: Sequence[ListItem]) -> str:
        """Return the rows of some records."""
        return _csv_text(self._layout.to_csv_row(json.loads(record.document)) for record in records)


FORMATS: dict[str, type[NdjsonFormat] | type[CsvFormat]] = {"ndjson": NdjsonFormat, "csv": CsvFormat}


def _csv_text(rows: Iterable[Sequence[str | None]]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer).writerows([cell and escape_formula(cell) for cell in row] for row in rows)
    return buffer.getvalue()
