from collections.abc import Callable
from datetime import date, datetime
from decimal import Decimal
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Date,
    DateTime,
    Executable,
    FromClause,
    Integer,
    Numeric,
    Select,
    Text,
    and_,
    bindparam,
    case,
    cast,
    func,
    literal_column,
    select,
)
from sqlalchemy.dialects.postgresql import JSON, JSONB, aggregate_order_by

from app.errors import FieldError, NotFoundError, ValidationFailedError
from app.fields.history import HistoryEntry
from app.identifiers import is_identifier
from app.models import journal
from app.records.missing import IS_OF_RECORD, SELECT_LATEST_SNAPSHOT, may_know
from app.records.repository import Repository
from app.records.results import Record
from app.statements import hospital_scope
from app.statements.documents import as_contract_json
from app.statements.journal_entries import snapshot_columns


class PastState(NamedTuple):
    """The column values of a record in an earlier version, and the ids of its linked records."""

    columns: dict[str, Any]
    links: dict[str, list[str]]
    """The ids of the linked records, by the name of the set of links, such as `hospital_ids`."""


class History:
    """Reads the history of the records of one resource from the journal.

    `list_entries`, `get` and `newest_version` return only what the principal of `repository` may see. Before a
    caller uses any other method, the caller must check that the principal may see the history.
    """

    def __init__(self, repository: Repository) -> None:
        self.connection = repository.connection
        self.repository = repository

    def parameters(self, unique_id: str, **extra: Any) -> dict[str, Any]:
        """Return the bind parameters of a statement about the history of one record.

        Raises:
            NotFoundError: `unique_id` does not have the form of an id.
        """
        if not is_identifier(unique_id):
            raise NotFoundError(self.repository.name)
        resource = {"resource": self.repository.table.name, "id": unique_id}
        return {**resource, **hospital_scope.scope_parameters(self.repository.principal), **extra}

    def scoped_statement(self, build_statement: Callable[..., Executable]) -> Executable:
        """Return the statement that `build_statement` returns for this repository and the kind of its principal."""
        return build_statement(type(self.repository), restricted=self.repository.restricted)

    async def list_entries(self, unique_id: str, before: int, limit: int) -> list[Record]:
        """Return up to `limit` journal entries of a record, newest first, starting below the version `before`.

        Each entry is returned as a `Record`. Its `unique_id` is the version number as text, and its `document` is the
        entry as JSON text.
        """
        parameters = self.parameters(unique_id, before=before, limit=limit)
        return [
            Record(*row) for row in await self.connection.execute(self.scoped_statement(_entries_statement), parameters)
        ]

    async def get(self, unique_id: str, version: int) -> Record:
        """Return the journal entry of a record for one version.

        Raises:
            NotFoundError: the record has no such version, or the principal may not see its history.
        """
        entries = await self.list_entries(unique_id, version + 1, 1)
        if not entries or entries[0].unique_id != str(version):
            raise NotFoundError(self.repository.name, "with this unique_id and version")
        return entries[0]

    async def past_state(self, unique_id: str, version: int) -> PastState:
        """Return the column values and links of a record in an earlier version.

        The caller must have checked that the principal may see the history of the record.

        Raises:
            ValidationFailedError: the record has no such version, or this version is a deletion.
        """
        row = (
            await self.connection.execute(_SELECT_SNAPSHOT, self.parameters(unique_id, version=version))
        ).one_or_none()
        if row is None:
            raise ValidationFailedError(
                [FieldError(("body", "version"), "Must be a version of the history", "unknown_version")]
            )
        if row.record is None:
            message = "Must not be a deletion: choose the version before it"
            raise ValidationFailedError([FieldError(("body", "version"), message, "version_deleted")])
        table, record = self.repository.table, row.record
        columns = {
            name: _decode_value(table.c[name], record.get(name))
            for name in snapshot_columns(table)
            if name != "last_updated"
        }
        return PastState(columns, {name: record.get(name, []) for name in self.repository.link_relations})

    async def latest_snapshot(self, unique_id: str) -> dict[str, Any] | None:
        """Return the newest snapshot of a record in the journal, or None if there never was a record with this id.

        For a deleted record, the snapshot is its last state before the deletion.
        """
        record: dict[str, Any] | None = (
            await self.connection.execute(SELECT_LATEST_SNAPSHOT, self.parameters(unique_id))
        ).scalar_one_or_none()
        return record

    async def distinct_values(self, unique_id: str, field: str) -> set[str]:
        """Return all values that the text field `field` of a record has had in any version."""
        value = journal.c.record.op("->>")(field)
        distinct_statement = select(value).where(IS_OF_RECORD, value.is_not(None)).distinct()
        rows = await self.connection.execute(distinct_statement, self.parameters(unique_id))
        return set(rows.scalars())

    async def newest_version(self, unique_id: str) -> int:
        """Return the number of a record's newest version. For a deleted record, this version is the deletion.

        Raises:
            NotFoundError: there never was a record with this id, or the principal may not see its history.
        """
        newest = await self.connection.execute(
            self.scoped_statement(_newest_version_statement), self.parameters(unique_id)
        )
        version: int | None = newest.scalar_one()
        if version is None:
            raise NotFoundError(self.repository.name)
        return version


def _decode_value(column: Column[Any], value: Any) -> Any:
    """Convert a JSON value from the `record` of a journal entry to the Python type of its column."""
    if value is None:
        return None
    if isinstance(column.type, DateTime):
        return datetime.fromisoformat(value)
    if isinstance(column.type, Date):
        return date.fromisoformat(value)
    return Decimal(value) if isinstance(column.type, Numeric) else value


_SELECT_SNAPSHOT = select(journal.c.record).where(
    IS_OF_RECORD, journal.c.version == bindparam("version", type_=BigInteger)
)


@cache
def _newest_version_statement(repository_class: type[Repository], *, restricted: bool) -> Select[int | None]:
    return select(func.max(journal.c.version)).where(IS_OF_RECORD, may_know(repository_class, restricted=restricted))


def _changed_fields(earlier: FromClause, later: FromClause) -> ColumnElement[Any]:
    """Return the SQL expression for the differences between the snapshots in two journal entries.

    The differences are a JSON object with a key for each field that differs. The value of a key contains the two values
    of the field, `from` and `to`. `last_updated` is omitted, because it always differs. The differences are computed
    when a client requests them. If entries stored them, the entry of a creation would contain the whole record twice.
    """
    old, new = (
        func.json_each(side.c.record).table_valued("key", "value", name=name).render_derived()
        for side, name in ((earlier, "old"), (later, "new"))
    )
    name = func.coalesce(new.c.key, old.c.key)
    change = func.json_build_object(literal_column("'from'"), old.c.value, literal_column("'to'"), new.c.value)
    differs = cast(old.c.value, JSONB).is_distinct_from(cast(new.c.value, JSONB))
    changes = func.json_object_agg(name, aggregate_order_by(change, name))
    return (
        select(func.coalesce(changes, literal_column("'{}'::json"), type_=JSON))
        .select_from(old.join(new, old.c.key == new.c.key, full=True))
        .where(differs, name != literal_column("'last_updated'"))
        .scalar_subquery()
    )


@cache
def _entries_statement(repository_class: type[Repository], *, restricted: bool) -> Select[str, str]:
    before = bindparam("before", type_=BigInteger)
    earlier = journal.alias("earlier")
    is_preceding_entry = and_(
        earlier.c.resource == journal.c.resource,
        earlier.c.unique_id == journal.c.unique_id,
        earlier.c.version == journal.c.version - 1,
    )
    fields: list[ColumnElement[Any]] = [
        (_changed_fields(earlier, journal) if name == "changes" else as_contract_json(journal.c[name])).label(name)
        for name in HistoryEntry.model_fields
        if name != "merge"
    ]
    page = (
        select(*fields, journal.c.merge)
        .select_from(journal.outerjoin(earlier, is_preceding_entry))
        .where(IS_OF_RECORD, journal.c.version < before, may_know(repository_class, restricted=restricted))
        .order_by(journal.c.version.desc())
        .limit(bindparam("limit", type_=Integer, literal_execute=True))
        .subquery("entry")
    )
    shown = select(*(each for each in page.c if each.name != "merge")).correlate(page).subquery("shown")
    entry = select(func.row_to_json(shown.table_valued())).correlate(page).scalar_subquery()
    step = select(func.row_to_json(page.table_valued())).correlate(page).scalar_subquery()
    document = cast(case((page.c.merge.is_(None), entry), else_=step), Text)
    return select(cast(page.c.version, Text), document).order_by(page.c.version.desc())
