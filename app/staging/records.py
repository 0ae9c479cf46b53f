"""Bulk writes in batches: each batch is copied into a staging table, compared with the stored records, and written.

The number of statements per batch does not depend on the number of records in the batch. The statements write records
in the order of their keys. The effect is the same as if the services wrote each record for an unrestricted principal.
"""

from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

from sqlalchemy import (
    ARRAY,
    CTE,
    BigInteger,
    Column,
    ColumnElement,
    DateTime,
    Insert,
    Integer,
    MetaData,
    Select,
    Table,
    Update,
    and_,
    any_,
    bindparam,
    case,
    delete,
    func,
    insert,
    literal_column,
    null,
    or_,
    select,
    update,
)
from sqlalchemy.schema import CreateTable, DropTable

from app.auth.principal import Principal
from app.db.base import ID_TEXT
from app.db.connection import Connection
from app.db.errors import SerializationError
from app.errors import FieldError, IdentifierRetiredError
from app.fields.types import TIMESTAMP_FIELDS
from app.http.field_errors import MISSING_MESSAGE
from app.records.repository import Repository
from app.staging.batches import StagedBatch
from app.staging.first_entries import insert_first_entries
from app.staging.links import StagedLinks
from app.staging.results import RowError, RowStatus, UnknownLink
from app.staging.table_build import TableBuild
from app.statements.damage import LOST_ZEROS_MESSAGE, lost_zeros_statement
from app.statements.journal_entries import author_parameters, has_journal_entries, insert_entry
from app.statements.write_statements import client_columns, next_version_values


class Staging:
    """The staging table of one resource and the statements that use it, in the transaction of one connection."""

    def __init__(
        self, connection: Connection, principal: Principal, repository: type[Repository], *, overwrite: bool
    ) -> None:
        self.connection = connection
        self.author_parameters = author_parameters(principal)
        self.repository = repository
        self.overwrite = overwrite
        """Whether a line updates a stored record that differs from it. If not, such a line is an error."""
        self.table = repository.table
        self.client_columns = client_columns(self.table)
        self.build: TableBuild | None = None
        """The tables that are written instead of the repository's own, if these were empty."""
        names = [*self.client_columns, *repository.link_relations]
        self.field_bits: Mapping[str, int] = {name: 1 << index for index, name in enumerate(names)}
        """Maps each field (a column or a set of links) to its bit in the mask of the fields that a line sets."""
        self.staging_table = Table(
            f"staged_{self.table.name}",
            MetaData(),
            Column("line", Integer),
            Column("unique_id", ID_TEXT, primary_key=True),
            Column("given", BigInteger),
            *(Column(name, DateTime(timezone=True)) for name in TIMESTAMP_FIELDS),
            *(Column(name, self.table.c[name].type) for name in self.client_columns),
            *(Column(name, ARRAY(ID_TEXT)) for name in repository.link_relations),
            Column("fate", ID_TEXT, server_default=RowStatus.CREATED),
            prefixes=["TEMPORARY"],
            postgresql_on_commit="DROP",
        )

    async def create_tables(self) -> None:
        """Create the staging table, which PostgreSQL drops when the transaction ends."""
        await self.connection.execute(CreateTable(self.staging_table))

    async def finish(self, *, stores: bool) -> None:  # noqa: ARG002  # nothing else is done for most resources
        """Drop the staging table when a file has been imported. `stores` says whether lines were written to be kept.

        The same transaction may then import another file of the same resource, for which it creates the table again.
        """
        await self.connection.execute(DropTable(self.staging_table))

    def new_batch(self) -> StagedBatch:
        """Return an empty batch."""
        return StagedBatch(self)

    async def stage(self, tables: Sequence[bytes]) -> None:
        """Replace the contents of the staging table with the rows of a batch, which are the first of `tables`."""
        await self.connection.execute_sql(f"TRUNCATE {self.staging_table.name}")
        columns = [column.name for column in self.staging_table.columns if column.name != "fate"]
        await self.connection.copy(self.staging_table.name, columns, tables[0])

    async def classify(self) -> None:
        """Set the status of each staged line by comparing it with the stored record.

        With `overwrite`, lock the stored records first.

        Raises:
            ConflictError: the table was empty, and another transaction has since created one of the records.
        """
        if self.build is not None:
            await self.build.refuse_concurrent_records(self.table.name, self.staging_table.name)
            if not (await self.connection.execute(self._stored_count_statement)).scalar_one():
                return
            await self.build.build_keys(self.link_tables)  # the links of stored records are found by them
        if self.overwrite:
            await self.connection.execute(self._lock_statement)
        await self.connection.execute(self._classify_statement)

    async def find_errors(self) -> AsyncIterator[RowError]:
        """Yield the errors that only the database can detect in the staged lines."""
        if not self.overwrite:
            for line_number in await self._line_numbers(self._differing_statement):
                message = (
                    f"A stored {self.repository.name} has this unique_id and other data: use --update to change it"
                )
                yield RowError(line_number, FieldError(("unique_id",), message, "identifier_taken"))
        for line_number in await self._line_numbers(self._retired_statement):
            yield RowError(
                line_number, FieldError(("unique_id",), retired_id_message(self.repository), "identifier_retired")
            )
        for name, statement in self._missing_value_statements.items():
            for line_number in await self._line_numbers(statement):
                yield RowError(line_number, FieldError((name,), MISSING_MESSAGE, "missing"))

    async def find_conflicts(self, rejected: Collection[int]) -> list[RowError]:  # noqa: ARG002  # as most resources
        """Return the errors of staged lines because of earlier lines of the batch that are stored.

        The `rejected` lines have other errors, so they are no reason to reject a later line.
        """
        return []

    async def unknown_links(self) -> list[UnknownLink]:
        """Return the links of staged lines to records that do not exist."""
        return [
            UnknownLink(line_number, name, index, unique_id)
            for name, links in self._links.items()
            for line_number, index, unique_id in await self.connection.execute(links.unknown_statement)
        ]

    async def leave_out(self, name: str, line_numbers: Iterable[int]) -> None:
        """Change staged lines so that they do not set a field. Call this before `classify`."""
        columns = self.staging_table.c
        other_fields: ColumnElement[int] = literal_column(str(~self.field_bits[name]))
        statement = (
            update(self.staging_table)
            .where(columns.line == any_(bindparam("lines", type_=ARRAY(Integer))))
            .values({name: null(), "given": columns.given.bitwise_and(other_fields)})
        )
        await self.connection.execute(statement, {"lines": sorted(line_numbers)})

    async def find_remarks(self) -> AsyncIterator[RowError]:
        """Yield remarks on staged lines that lose leading zeros of a stored value, as spreadsheets lose them."""
        if self.overwrite:
            for line_number, name in await self.connection.execute(self._lost_zeros_statement):
                yield RowError(line_number, FieldError((name,), LOST_ZEROS_MESSAGE, "zeros_lost"), is_remark=True)

    async def discard(self, line_numbers: Iterable[int]) -> None:
        """Remove lines from the staging table, so that they are not written."""
        statement = delete(self.staging_table).where(
            self.staging_table.c.line == any_(bindparam("lines", type_=ARRAY(Integer)))
        )
        await self.connection.execute(statement, {"lines": sorted(line_numbers)})

    async def write(self) -> dict[str, int]:
        """Create and update the records of the staged lines, with their links and journal entries.

        Return the number of lines per status.

        Raises:
            SerializationError: a concurrent transaction created or changed one of the records first.
        """
        counts = {fate: int(number) for fate, number in await self.connection.execute(self._status_counts_statement)}
        created, updated = (counts.get(fate, 0) for fate in (RowStatus.CREATED, RowStatus.UPDATED))
        written = entries = 0
        if created:
            written += (await self.connection.execute(self._insert_statement)).rowcount
        if updated:
            written += (await self.connection.execute(self._update_statement)).rowcount
        if created or updated:
            for links in self._links.values():
                if updated:
                    await self.connection.execute(links.delete_statement)
                if self.build is not None:
                    await self.connection.execute(links.lock_targets_statement)
                await self.connection.execute(links.insert_statement)
        if created:
            first_entries = await self.connection.execute(self._first_entries_statement, self.author_parameters)
            entries += first_entries.rowcount
        if updated:
            update_entries = await self.connection.execute(self._update_entries_statement, self.author_parameters)
            entries += update_entries.scalar_one()
        if not created + updated == written == entries:
            raise SerializationError
        return counts

    async def _line_numbers(self, statement: Select[Any]) -> Sequence[int]:
        line_numbers: Sequence[int] = (await self.connection.execute(statement)).scalars().all()
        return line_numbers

    def sets_field(self, name: str) -> ColumnElement[bool]:
        """Return the SQL condition that a staged line sets a field, which is a column or a set of links."""
        return self.staging_table.c.given.bitwise_and(literal_column(str(self.field_bits[name]))) != literal_column("0")

    def has_status(self, *statuses: RowStatus) -> ColumnElement[bool]:
        """Return the SQL condition that a staged line has one of these statuses."""
        return self.staging_table.c.fate.in_([literal_column(f"'{fate}'") for fate in statuses])

    @property
    def same_record(self) -> ColumnElement[bool]:
        """The SQL condition that a stored record is that of a staged line."""
        return self.table.c.unique_id == self.staging_table.c.unique_id

    @cached_property
    def _links(self) -> Mapping[str, StagedLinks]:
        """The links of the staged lines by the name of their field."""
        return {name: StagedLinks(self, name) for name in self.repository.link_relations}

    @property
    def link_tables(self) -> list[Table]:
        """The tables that link the records to others."""
        return [relation.link_table for relation in self.repository.link_relations.values()]

    @cached_property
    def _stored_count_statement(self) -> Select[Any]:
        return select(func.count()).select_from(self.staging_table.join(self.table, self.same_record))

    @cached_property
    def _lock_statement(self) -> Select[Any]:
        stored_records: Select[Any] = select(literal_column("1")).select_from(
            self.staging_table.join(self.table, self.same_record)
        )
        # not FOR UPDATE, which would deadlock with foreign-key checks of other transactions
        return stored_records.order_by(self.table.c.unique_id).with_for_update(key_share=True, of=self.table)

    @cached_property
    def _classify_statement(self) -> Update:
        differences = [
            and_(self.sets_field(name), self.table.c[name].is_distinct_from(self.staging_table.c[name]))
            for name in self.client_columns
        ]
        for name, relation in self.repository.link_relations.items():
            requested_id = func.unnest(self.staging_table.c[name]).column_valued("asked")
            requested_ids = func.array(select(requested_id).distinct().order_by(requested_id).scalar_subquery())
            linked_ids = (
                select(relation.target_column)
                .where(relation.owner_column == self.table.c.unique_id)
                .order_by(relation.target_column)
            )
            differs = requested_ids.is_distinct_from(func.array(linked_ids.correlate(self.table).scalar_subquery()))
            differences.append(and_(self.sets_field(name), differs))
        status = case((or_(*differences), literal_column("'updated'")), else_=literal_column("'unchanged'"))
        return update(self.staging_table).values(fate=status).where(self.same_record)

    @cached_property
    def _status_counts_statement(self) -> Select[Any]:
        return select(self.staging_table.c.fate, func.count()).group_by(self.staging_table.c.fate)

    @cached_property
    def _differing_statement(self) -> Select[Any]:
        return select(self.staging_table.c.line).where(self.has_status(RowStatus.UPDATED))

    @property
    def reuses_retired_id(self) -> ColumnElement[bool]:
        """The SQL condition that a staged line would create a record with the id of a deleted record."""
        return and_(
            self.has_status(RowStatus.CREATED),
            has_journal_entries(self.table, self.staging_table.c.unique_id).correlate(self.staging_table),
        )

    @cached_property
    def _retired_statement(self) -> Select[Any]:
        return select(self.staging_table.c.line).where(self.reuses_retired_id)

    @cached_property
    def _lost_zeros_statement(self) -> Select[Any]:
        return lost_zeros_statement(self)

    @cached_property
    def _missing_value_statements(self) -> Mapping[str, Select[Any]]:
        """For each column that must have a value, a statement that selects the new records without one."""
        return {
            name: select(self.staging_table.c.line).where(
                self.has_status(RowStatus.CREATED), self.staging_table.c[name].is_(None)
            )
            for name in self.client_columns
            if not self.table.c[name].nullable
        }

    @cached_property
    def _insert_statement(self) -> Insert:
        staged_columns, now = self.staging_table.c, func.statement_timestamp()
        values = {
            "unique_id": staged_columns.unique_id,
            **{name: staged_columns[name] for name in self.client_columns},
            "date_created": func.coalesce(staged_columns.date_created, staged_columns.last_updated, now),
            "last_updated": func.coalesce(staged_columns.last_updated, now),
        }
        rows = select(*values.values()).where(self.has_status(RowStatus.CREATED)).order_by(staged_columns.unique_id)
        return insert(self.table).from_select(list(values), rows)

    @cached_property
    def _update_statement(self) -> Update:
        values = {
            name: case((self.sets_field(name), self.staging_table.c[name]), else_=self.table.c[name])
            for name in self.client_columns
        }
        return (
            update(self.table)
            .values({**values, **next_version_values(self.table)})
            .where(self.same_record, self.has_status(RowStatus.UPDATED))
        )

    def _written_rows(self, status: RowStatus, *staged_columns: ColumnElement[Any]) -> CTE:
        """Return a CTE with the stored records of the staged lines that have a status, and with staged columns."""
        rows = self.repository.document.select_rows().add_columns(*staged_columns)
        rows = rows.join(self.staging_table, self.same_record)
        return rows.where(self.has_status(status)).cte(status)

    @cached_property
    def _first_entries_statement(self) -> Insert:
        links = (self.staging_table.c[name] for name in self.repository.link_relations)
        created_rows = self._written_rows(RowStatus.CREATED, *links)
        return insert_first_entries(self.table, created_rows, self.repository.link_relations)

    @cached_property
    def _update_entries_statement(self) -> Select[Any]:
        updated_rows = self._written_rows(RowStatus.UPDATED)
        action: ColumnElement[str] = literal_column(f"'{RowStatus.UPDATED}'")
        entries = insert_entry(self.table, updated_rows, self.repository.link_relations, action)
        return select(func.count()).select_from(entries)


def retired_id_message(repository: type[Repository]) -> str:
    """Return the error message for a new record that has the id of a deleted or merged record."""
    return IdentifierRetiredError(
        repository.name, None, state="deleted or merged" if repository.mergeable else "deleted"
    ).detail
