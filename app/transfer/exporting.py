"""Exporting records: all that is wanted of a resource, as of one moment, in constant memory."""

import asyncio
import csv
import io
import json
from collections.abc import AsyncGenerator, Iterable, Sequence

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.auth.principal import Principal
from app.resource.listing import Listing
from app.resource.wanted import Found, Listed, Place, Wanted
from app.transfer.formulas import guarded
from app.transfer.layout import Layout
from app.transfer.resources import Transferred

BATCH = 1000
"""Records that are read at once: about a megabyte."""
EXPORT = Principal("export")
"""Under this name the audit has what an export has shown."""


class Export:
    """An export of one resource, on the connection of a snapshot."""

    def __init__(self, connection: AsyncConnection, transferred: Transferred, wanted: Wanted) -> None:
        self._connection = connection
        self._listing = Listing(transferred.service.repository_class(connection, EXPORT))
        self._wanted = wanted

    async def count(self) -> int:
        """Count what is wanted."""
        return await self._listing.total(self._wanted)

    async def batches(self) -> AsyncGenerator[list[Found]]:
        """Read all that is wanted, in the order of `unique_id`."""
        if self._wanted.filters:
            # what is rare and what is not is found in different ways
            await self._connection.execute(text("SET LOCAL plan_cache_mode = force_custom_plan"))
        coming = asyncio.create_task(self._page(None))
        try:
            while items := await coming:
                # PostgreSQL reads on while these are written
                coming = asyncio.create_task(self._page(items[-1].place))
                yield items
        finally:
            coming.cancel()
            await asyncio.gather(coming, return_exceptions=True)

    async def _page(self, after: Place | None) -> list[Found]:
        return await self._listing.page(self._wanted, after, BATCH)


class Ndjson:
    """One document a line, as the list streams them."""

    heading = ""

    def __init__(self, _: Layout) -> None: ...

    def text(self, records: Sequence[Listed]) -> str:
        """Some records of the file."""
        return "".join([f"{record.document}\n" for record in records])


class Csv:
    """One record a row, as `import` and spreadsheets read them."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self.heading = _rows([layout.columns])

    def text(self, records: Sequence[Listed]) -> str:
        """Some records of the file."""
        return _rows(self._layout.cells(json.loads(record.document)) for record in records)


FORMATS: dict[str, type[Ndjson] | type[Csv]] = {"ndjson": Ndjson, "csv": Csv}


def _rows(rows: Iterable[Sequence[str | None]]) -> str:
    written = io.StringIO()
    csv.writer(written).writerows([cell and guarded(cell) for cell in row] for row in rows)
    return written.getvalue()
