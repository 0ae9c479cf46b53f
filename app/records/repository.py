"""What the repositories of all resources share: reading documents, and insert, lock, link, update, delete, journal.

Statements are built once for each class, with bound parameters: building one costs more than running it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any, ClassVar, NamedTuple, Self

from sqlalchemy import (
    ARRAY,
    Column,
    ColumnElement,
    Executable,
    Row,
    Select,
    Table,
    and_,
    any_,
    bindparam,
    column,
    delete,
    func,
    literal_column,
    select,
    true,
)
from sqlalchemy.engine import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from app.auth.principal import Principal
from app.db.base import ID_TEXT
from app.db.transaction_batching import execute_row, input_rows
from app.errors import ConflictError, IdentifierRetiredError, IdentifierTakenError, InUseError, NotFoundError
from app.identifiers import is_identifier, new_identifier
from app.models import journal
from app.records import hospital_scope as walls
from app.records import write_statements as writing
from app.records.documents import Document, ToMany
from app.records.erasure import erase_traces
from app.records.journal_entries import author_parameters, insert_deletion_entry
from app.records.links import LinkResult, linkable_ids_statement
from app.records.write_statements import client_columns

_ID_PARAMETER = bindparam("id", type_=ID_TEXT)


class Record(NamedTuple):
    """A record as it is answered."""

    unique_id: str
    document: str
    """JSON text."""


class WriteResult(NamedTuple):
    """What writing a record came to."""

    record: Record
    """As it is now."""
    link_result: LinkResult
    journaled: bool
    """Whether the journal has taken what was written, if anything was."""


class Repository:
    """Queries of one resource, on one connection, on behalf of one principal."""

    name: ClassVar[str]
    """What one record is called in messages: `patient`."""
    prefix: ClassVar[str]
    """What ids made by us begin with."""
    table: ClassVar[Table]
    document: ClassVar[Document]
    patient_reference_column: ClassVar[Column[Any] | None] = None
    """The column by which patients refer to records of this resource, if they do."""
    month_indexed_columns: ClassVar[frozenset[str]] = frozenset()
    """The columns with an index of their months, by which lists are filtered."""
    link_relations: ClassVar[Mapping[str, ToMany]] = {}
    """The sets of links to other records, under the names by which requests replace them."""

    def __init__(self, connection: AsyncConnection, principal: Principal) -> None:
        self.connection = connection
        self.principal = principal
        self.restricted = principal.hospitals is not None

    @property
    def unrestricted(self) -> Self:
        """The same on behalf of nobody who is limited: for what is right although the principal does not see it."""
        return type(self)(self.connection, replace(self.principal, hospitals=None))

    @classmethod
    def visibility_condition(cls, *, restricted: bool) -> ColumnElement[bool]:  # noqa: ARG003  # of those that have walls
        """Which rows the principal may see: all, but where the resource has walls and the principal is `limited`.

        Every request begins with a statement that asks it: look-ups by id, locks, lists, and the journal.
        """
        return true()

    @classmethod
    def was_visible(cls, record: ColumnElement[Any]) -> ColumnElement[bool]:  # noqa: ARG003  # as above
        """Which deleted records a limited principal may know of, by the last `record` that the journal has of each."""
        return true()

    @classmethod
    def _id_condition(cls) -> ColumnElement[bool]:
        return cls.table.c.unique_id == _ID_PARAMETER

    @classmethod
    def _visible_id_condition(cls, *, restricted: bool) -> ColumnElement[bool]:
        return and_(cls._id_condition(), cls.visibility_condition(restricted=restricted))

    def _id_parameters(self, unique_id: str) -> dict[str, Any]:
        """The parameters of a statement about one record."""
        if not is_identifier(unique_id):
            raise NotFoundError(self.name)  # no record can have it, and PostgreSQL's text could not hold it (NUL)
        return {"id": unique_id, **walls.scope_parameters(self.principal)}

    @classmethod
    @cache
    def _get_statement(cls, *, restricted: bool) -> Select[str, str]:
        requested = cls.table.c.unique_id == any_(bindparam("ids", type_=ARRAY(ID_TEXT)))
        return cls.document.select_documents(
            cls.document.select_rows().where(requested, cls.visibility_condition(restricted=restricted))
        )

    async def get_many(self, ids: Sequence[str]) -> dict[str, Record]:
        """Read the records that there are of some ids, by these."""
        parameters = {"ids": ids, **walls.scope_parameters(self.principal)}
        rows = await self.connection.execute(self._get_statement(restricted=self.restricted), parameters)
        return {record.unique_id: record for record in map(Record._make, rows)}

    async def get(self, unique_id: str) -> Record:
        """Read one record.

        Raises:
            NotFoundError: there is none of this id.
        """
        records = await self.get_many([self._id_parameters(unique_id)["id"]])
        if unique_id not in records:
            raise NotFoundError(self.name)
        return records[unique_id]

    async def visible_ids_if_few(self) -> dict[str, Any] | None:
        """All that the principal may see, as parameters of `walls.is_one_of_few`; None where there is no such way."""
        return None

    @classmethod
    def next_visible_rows(
        cls, after: ColumnElement[str], limit: ColumnElement[int], *, restricted: bool
    ) -> Select[Any]:
        """The first rows after an id that the principal may see, up to a number, in the order of `unique_id`."""
        key = cls.table.c.unique_id
        return (
            cls.document.select_rows()
            .where(cls.visibility_condition(restricted=restricted), key > after)
            .order_by(key)
            .limit(limit)
        )

    @classmethod
    @cache
    def _insert_statement(cls, action: str, extra_columns: frozenset[str], *, restricted: bool) -> Select[Any]:
        return writing.insert_records(cls.document, cls.link_relations, action, extra_columns, restricted=restricted)

    async def create(
        self, unique_id: str | None, values: Mapping[str, Any], links: Mapping[str, list[str]], action: str = "created"
    ) -> WriteResult:
        """Write a new record under `unique_id`, or a new id.

        Raises:
            IdentifierTakenError: a record has the id.
        """
        statement = self._insert_statement(
            action, frozenset(values).difference(client_columns(self.table)), restricted=self.restricted
        )
        row = {"unique_id": unique_id or new_identifier(self.prefix), **values}
        result = await self._write(statement, row, {name: links.get(name, []) for name in self.link_relations})
        if result is None:
            raise IdentifierTakenError(self.name)
        return result

    async def _execute_row(self, statement: Select[Any], row: Mapping[str, Any]) -> Row[Any] | None:
        return await execute_row(self.connection, statement, row, walls.scope_parameters(self.principal))

    async def _write(
        self, statement: Select[Any], row: Mapping[str, Any], links: Mapping[str, list[str]]
    ) -> WriteResult | None:
        link_ids = {name: sorted(set(ids)) for name, ids in links.items()}
        result_row = await self._execute_row(statement, {**row, **link_ids, **author_parameters(self.principal)})
        if result_row is None:
            return None
        record = Record(result_row.unique_id, result_row.document)
        return WriteResult(record, _link_result(links, result_row), result_row.entered)

    @classmethod
    @cache
    def _lock_statement(cls, *, restricted: bool) -> Select[Any]:
        inputs = input_rows(column("unique_id", ID_TEXT))
        same_id = cls.table.c.unique_id == inputs.c.unique_id
        rows = (
            cls.document.select_rows()
            .join(inputs, same_id)
            .where(cls.visibility_condition(restricted=restricted))
            .order_by(cls.table.c.unique_id)
        )
        # not FOR UPDATE, which would deadlock with foreign-key checks of other transactions
        return rows.where(cls.visibility_condition(restricted=restricted)).with_for_update(key_share=True, of=cls.table)

    async def lock_or_none(self, unique_id: str) -> RowMapping | None:
        """Lock one record against other changes and read its columns as they are then; none if there is none."""
        locked = await self._execute_row(
            self._lock_statement(restricted=self.restricted), {"unique_id": self._id_parameters(unique_id)["id"]}
        )
        if locked is None or not await self._is_still_visible(unique_id):
            return None
        return locked._mapping  # noqa: SLF001  # public, so named that no column has its name

    @classmethod
    @cache
    def _visible_id_statement(cls, *, restricted: bool) -> Select[str]:
        return select(cls.table.c.unique_id).where(cls._visible_id_condition(restricted=restricted))

    async def is_visible(self, unique_id: str) -> bool:
        """Whether there is a record of this id that the principal may see."""
        result = await self.connection.execute(
            self._visible_id_statement(restricted=self.restricted), self._id_parameters(unique_id)
        )
        return result.one_or_none() is not None

    async def _is_still_visible(self, unique_id: str) -> bool:
        """Whether a record that was waited for, and is locked now, is visible to the principal as it is now.

        The statement that waited has looked at the links as they were before.
        """
        return not self.restricted or await self.is_visible(unique_id)

    async def lock(self, unique_id: str) -> RowMapping:
        """Lock one record against other changes and read its columns as they are then.

        Raises:
            NotFoundError: there is none of this id.
        """
        row = await self.lock_or_none(unique_id)
        if row is None:
            raise NotFoundError(self.name)
        return row

    @classmethod
    @cache
    def _update_statement(cls, action: str, replaced_links: frozenset[str], *, restricted: bool) -> Select[Any]:
        return writing.update_records(cls.document, cls.link_relations, action, replaced_links, restricted=restricted)

    async def update(
        self, locked: RowMapping, values: Mapping[str, Any], links: Mapping[str, list[str]], action: str = "updated"
    ) -> WriteResult:
        """Write what differs from the `locked` row, and make sets of links exactly what they are to be.

        Links, as far as the principal may. Where nothing differs nothing is written.
        """
        new_values = {name: values.get(name, locked[name]) for name in client_columns(self.table)}
        differs = any(locked[name] != value for name, value in new_values.items())
        statement = self._update_statement(action, frozenset(links), restricted=self.restricted)
        row = {"unique_id": locked["unique_id"], "differs": differs, **new_values}
        result = await self._write(statement, row, links)
        assert result is not None, "it is locked"  # noqa: S101
        return result

    @classmethod
    @cache
    def _linkable_ids_statement(cls, names: frozenset[str], *, restricted: bool) -> Select[Any]:
        inputs = input_rows(column("unique_id", ID_TEXT), *(column(name, ARRAY(ID_TEXT)) for name in sorted(names)))
        return linkable_ids_statement({name: cls.link_relations[name] for name in names}, inputs, restricted=restricted)

    async def linkable_ids(self, unique_id: str, links: Mapping[str, list[str]]) -> LinkResult:
        """Which of the ids that a record is to be linked to the principal may link it to."""
        if not links:
            return LinkResult({}, {})
        statement = self._linkable_ids_statement(frozenset(links), restricted=self.restricted)
        result_row = await self._execute_row(statement, {"unique_id": unique_id, **links})
        assert result_row is not None, "it answers a row for each that it is given"  # noqa: S101
        return _link_result(links, result_row)

    async def ensure_journaled(self, result: WriteResult, action: str) -> None:
        """Refuse to go on where the journal did not take what was written.

        Raises:
            IdentifierRetiredError: it was created under the id of a deleted record.
            ConflictError: another change was faster.
        """
        if not result.journaled:
            raise await self.retired_error(result.record.unique_id) if action == "created" else self.conflict_error()

    def conflict_error(self) -> ConflictError:
        """The error of a change that another one was faster than."""
        return ConflictError(f"This {self.name} was changed at the same moment. Read it again.")

    @classmethod
    @cache
    def _last_version_statement(cls) -> Select[int | None]:
        same_record = and_(journal.c.resource == cls.table.name, journal.c.unique_id == _ID_PARAMETER)
        return select(func.max(journal.c.version)).where(same_record, journal.c.record.is_not(None))

    async def retired_error(self, unique_id: str) -> IdentifierRetiredError:
        """The error of using the id of a deleted record again; it says how to bring that back."""
        last_version = await self.connection.execute(self._last_version_statement(), {"id": unique_id})
        return IdentifierRetiredError(self.name, last_version.scalar_one())

    @classmethod
    @cache
    def _advisory_lock_statement(cls) -> Select[Any]:
        lock_name = literal_column(f"'{cls.table.name}/'").concat(_ID_PARAMETER)
        return select(func.pg_advisory_xact_lock(func.hashtextextended(lock_name, literal_column("0"))))

    async def advisory_lock(self, unique_id: str) -> None:
        """Lock an id against others who bring its record back or erase it, whether there is a row to lock or not."""
        await self.connection.execute(self._advisory_lock_statement(), self._id_parameters(unique_id))

    @classmethod
    @cache
    def _lock_for_deletion_statement(cls, *, restricted: bool) -> Select[str]:
        return cls._visible_id_statement(restricted=restricted).with_for_update()

    async def lock_for_deletion(self, unique_id: str) -> None:
        """Lock one record so that none can refer to it until the transaction ends.

        Raises:
            NotFoundError: there is none of this id.
        """
        locked = await self.connection.execute(
            self._lock_for_deletion_statement(restricted=self.restricted), self._id_parameters(unique_id)
        )
        if locked.one_or_none() is None or not await self._is_still_visible(unique_id):
            raise NotFoundError(self.name)

    @classmethod
    @cache
    def _count_patients_statement(cls, reference: Column[Any]) -> Select[int]:
        return select(func.count()).where(reference == _ID_PARAMETER)

    async def ensure_not_in_use(self, unique_id: str) -> None:
        """Refuse to go on where patients refer to a record, which is locked for deletion.

        Raises:
            InUseError: patients refer to it.
        """
        if self.patient_reference_column is not None:
            count = await self.connection.execute(
                self._count_patients_statement(self.patient_reference_column), {"id": unique_id}
            )
            if patient_count := count.scalar_one():
                raise InUseError(self.name, None if self.restricted else patient_count)

    @classmethod
    @cache
    def _delete_statement(cls) -> Executable:
        deleted = (
            delete(cls.table)
            .where(cls._id_condition())
            .returning(cls.table.c.unique_id, cls.table.c.version)
            .cte("gone")
        )
        return select(insert_deletion_entry(cls.table, deleted))

    async def delete(self, unique_id: str) -> None:
        """Delete one record, which is locked; the journal's entry keeps its id from being used again.

        Raises:
            ConflictError: the entry could not be written.
        """
        deleted = await self.connection.execute(
            self._delete_statement(), {"id": unique_id, **author_parameters(self.principal)}
        )
        if deleted.one_or_none() is None:
            raise self.conflict_error()

    @classmethod
    @cache
    def _erase_statement(cls) -> Executable:
        return delete(cls.table).where(cls._id_condition())

    async def erase(self, unique_id: str, reason: str) -> int:
        """Remove one record, if it is there, and all that is stored of it; the number of journal entries removed."""
        await self.connection.execute(self._erase_statement(), {"id": unique_id})
        return await erase_traces(self.connection, self.table.name, unique_id, reason, self.principal)


def _link_result(requested_ids: Mapping[str, list[str]], row: Row[Any]) -> LinkResult:
    return LinkResult(requested_ids, {name: frozenset(getattr(row, name)) for name in requested_ids})
