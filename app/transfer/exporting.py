"""Exporting records: all that is wanted of a resource, as of one moment, in constant memory."""

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
"""Records that are read at once: about a megabyte."""
EXPORT_PRINCIPAL = Principal("export")
"""Under this name the audit has what an export has shown."""


class Export:
    """An export of one resource, on the connection of a snapshot."""

    def __init__(self, connection: AsyncConnection, resource: TransferableResource, query: ListQuery) -> None:
        self._connection = connection
        self._listing = Listing(resource.service_class.repository_class(connection, EXPORT_PRINCIPAL))
        self._query = query

    async def count(self) -> int:
        """Count what is wanted."""
        return await self._listing.total(self._query)

    async def batches(self) -> AsyncGenerator[list[KeysetRow]]:
        """Read all that is wanted, in the order of `unique_id`."""
        if self._query.filters:
            # what is rare and what is not is found in different ways
            await self._connection.execute(text("SET LOCAL plan_cache_mode = force_custom_plan"))
        next_page = asyncio.create_task(self._read_page(None))
        try:
            while items := await next_page:
                # PostgreSQL reads on while these are written
                next_page = asyncio.create_task(self._read_page(items[-1].position))
                yield items
        finally:
            next_page.cancel()
            await asyncio.gather(next_page, return_exceptions=True)

    async def _read_page(self, after: Position | None) -> list[KeysetRow]:
        return await self._listing.page(self._query, after, EXPORT_BATCH_SIZE)


class NdjsonFormat:
    """One document a line, as the list streams them."""

    header = ""

    def __init__(self, _: Layout) -> None: ...

    def render(self, records: Sequence[ListItem]) -> str:
        """Some records of the file."""
        return "".join([f"{record.document}\n" for record in records])


class CsvFormat:
    """One record a row, as `import` and spreadsheets read them."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self.header = _csv_text([layout.columns])

    def render(self, records: Sequence[ListItem]) -> str:
        """Some records of the file."""
        return _csv_text(self._layout.to_csv_row(json.loads(record.document)) for record in records)


FORMATS: dict[str, type[NdjsonFormat] | type[CsvFormat]] = {"ndjson": NdjsonFormat, "csv": CsvFormat}


def _csv_text(rows: Iterable[Sequence[str | None]]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer).writerows([cell and escape_formula(cell) for cell in row] for row in rows)
    return buffer.getvalue()
