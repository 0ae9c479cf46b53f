"""The base class of all repositories: it reads, inserts, locks, updates, links, deletes and journals records.

Statements are built once per class, with bound parameters, because building a statement costs more than executing it.
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
from app.records import hospital_scope, write_statements
from app.records.documents import Document, ToMany
from app.records.erasure import erase_traces
from app.records.journal_entries import author_parameters, insert_deletion_entry
from app.records.links import LinkResult, linkable_ids_statement
from app.records.write_statements import client_columns

_ID_PARAMETER = bindparam("id", type_=ID_TEXT)


class Record(NamedTuple):
    """A record as responses contain it."""

    unique_id: str
    document: str
    """The JSON text."""


class WriteResult(NamedTuple):
    """The result of writing a record."""

    record: Record
    """The record after the write."""
    link_result: LinkResult
    journaled: bool
    """Whether the journal accepted the entry of the write; true if there was nothing to write."""


class Repository:
    """The queries of one resource, on one connection, on behalf of one principal."""

    name: ClassVar[str]
    """The name of one record in messages, such as `patient`."""
    prefix: ClassVar[str]
    """The prefix of the ids that the service generates."""
    table: ClassVar[Table]
    document: ClassVar[Document]
    patient_reference_column: ClassVar[Column[Any] | None] = None
    """The column through which patients refer to records of this resource, if there is one."""
    month_indexed_columns: ClassVar[frozenset[str]] = frozenset()
    """The columns whose months are indexed, for lists that are filtered by one of them."""
    link_relations: ClassVar[Mapping[str, ToMany]] = {}
    """The sets of links to other records, by the field name with which requests replace them."""

    def __init__(self, connection: AsyncConnection, principal: Principal) -> None:
        self.connection = connection
        self.principal = principal
        self.restricted = principal.hospitals is not None

    @property
    def unrestricted(self) -> Self:
        """The same repository for an unrestricted principal: for what is permitted although this one cannot see it."""
        return type(self)(self.connection, replace(self.principal, hospitals=None))

    @classmethod
    def visibility_condition(cls, *, restricted: bool) -> ColumnElement[bool]:  # noqa: ARG003  # for overrides with a scope
        """Return the condition for visible rows: all, unless the resource is scoped and the principal is restricted.

        Every request begins with a statement that has this condition: reads by id, locks, lists and the journal.
        """
        return true()

    @classmethod
    def was_visible(cls, record: ColumnElement[Any]) -> ColumnElement[bool]:  # noqa: ARG003  # as above
        """Return the condition that a restricted principal may know a deleted record, by its last snapshot `record`."""
        return true()

    @classmethod
    def _id_condition(cls) -> ColumnElement[bool]:
        return cls.table.c.unique_id == _ID_PARAMETER

    @classmethod
    def _visible_id_condition(cls, *, restricted: bool) -> ColumnElement[bool]:
        return and_(cls._id_condition(), cls.visibility_condition(restricted=restricted))

    def _id_parameters(self, unique_id: str) -> dict[str, Any]:
        """Return the parameters of a statement about one record.

        Raises:
            NotFoundError: the text does not have the form of an id.
        """
        if not is_identifier(unique_id):
            raise NotFoundError(self.name)  # no record has it, and PostgreSQL cannot store it if it has a NUL
        return {"id": unique_id, **hospital_scope.scope_parameters(self.principal)}

    @classmethod
    @cache
    def _get_statement(cls, *, restricted: bool) -> Select[str, str]:
        requested = cls.table.c.unique_id == any_(bindparam("ids", type_=ARRAY(ID_TEXT)))
        return cls.document.select_documents(
            cls.document.select_rows().where(requested, cls.visibility_condition(restricted=restricted))
        )

    async def get_many(self, ids: Sequence[str]) -> dict[str, Record]:
        """Return the visible records among `ids`, keyed by id."""
        parameters = {"ids": ids, **hospital_scope.scope_parameters(self.principal)}
        rows = await self.connection.execute(self._get_statement(restricted=self.restricted), parameters)
        return {record.unique_id: record for record in map(Record._make, rows)}

    async def get(self, unique_id: str) -> Record:
        """Return one record.

        Raises:
            NotFoundError: no visible record has this id.
        """
        records = await self.get_many([self._id_parameters(unique_id)["id"]])
        if unique_id not in records:
            raise NotFoundError(self.name)
        return records[unique_id]

    async def visible_ids_if_few(self) -> dict[str, Any] | None:
        """Return the ids of all records that the principal may see, as parameters for `hospital_scope.is_in_few_ids`.

        Return None if they are many, if the principal is unrestricted, or if the resource has no hospital scope.
        """
        return None

    @classmethod
    def next_visible_rows(
        cls, after: ColumnElement[str], limit: ColumnElement[int], *, restricted: bool
    ) -> Select[Any]:
        """Select the first `limit` visible rows after the id `after`, ordered by `unique_id`."""
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
        return write_statements.insert_records(
            cls.document, cls.link_relations, action, extra_columns, restricted=restricted
        )

    async def create(
        self, unique_id: str | None, values: Mapping[str, Any], links: Mapping[str, list[str]], action: str = "created"
    ) -> WriteResult:
        """Insert a record with the id `unique_id`, or with a new id if that is None.

        Raises:
            IdentifierTakenError: another record has the id.
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
        return await execute_row(self.connection, statement, row, hospital_scope.scope_parameters(self.principal))

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
        # not FOR UPDATE, which would deadlock with the foreign-key checks of other transactions
        return rows.with_for_update(key_share=True, of=cls.table)

    async def lock_or_none(self, unique_id: str) -> RowMapping | None:
        """Lock one record against other changes and return its columns as of the lock; None if it is not visible."""
        locked = await self._execute_row(
            self._lock_statement(restricted=self.restricted), {"unique_id": self._id_parameters(unique_id)["id"]}
        )
        if locked is None or not await self._is_still_visible(unique_id):
            return None
        return locked._mapping  # noqa: SLF001  # public; the underscore avoids clashes with column names

    @classmethod
    @cache
    def _visible_id_statement(cls, *, restricted: bool) -> Select[str]:
        return select(cls.table.c.unique_id).where(cls._visible_id_condition(restricted=restricted))

    async def is_visible(self, unique_id: str) -> bool:
        """Return whether there is a record with this id that the principal may see."""
        result = await self.connection.execute(
            self._visible_id_statement(restricted=self.restricted), self._id_parameters(unique_id)
        )
        return result.one_or_none() is not None

    async def _is_still_visible(self, unique_id: str) -> bool:
        """Return whether a record that is now locked is still visible to the principal.

        The statement that waited for the lock evaluated the links as they were before the wait.
        """
        return not self.restricted or await self.is_visible(unique_id)

    async def lock(self, unique_id: str) -> RowMapping:
        """Lock one record against other changes and return its columns as of the lock.

        Raises:
            NotFoundError: no visible record has this id.
        """
        row = await self.lock_or_none(unique_id)
        if row is None:
            raise NotFoundError(self.name)
        return row

    @classmethod
    @cache
    def _update_statement(cls, action: str, replaced_links: frozenset[str], *, restricted: bool) -> Select[Any]:
        return write_statements.update_records(
            cls.document, cls.link_relations, action, replaced_links, restricted=restricted
        )

    async def update(
        self, locked: RowMapping, values: Mapping[str, Any], links: Mapping[str, list[str]], action: str = "updated"
    ) -> WriteResult:
        """Write the values that differ from the `locked` row, and replace the given sets of links.

        Only links that the principal may change are replaced. If nothing differs, nothing is written.
        """
        new_values = {name: values.get(name, locked[name]) for name in client_columns(self.table)}
        differs = any(locked[name] != value for name, value in new_values.items())
        statement = self._update_statement(action, frozenset(links), restricted=self.restricted)
        row = {"unique_id": locked["unique_id"], "differs": differs, **new_values}
        result = await self._write(statement, row, links)
        assert result is not None, "the row is locked"  # noqa: S101
        return result

    @classmethod
    @cache
    def _linkable_ids_statement(cls, names: frozenset[str], *, restricted: bool) -> Select[Any]:
        inputs = input_rows(column("unique_id", ID_TEXT), *(column(name, ARRAY(ID_TEXT)) for name in sorted(names)))
        return linkable_ids_statement({name: cls.link_relations[name] for name in names}, inputs, restricted=restricted)

    async def linkable_ids(self, unique_id: str, links: Mapping[str, list[str]]) -> LinkResult:
        """Return which of the ids in `links` the principal may link the record to."""
        if not links:
            return LinkResult({}, {})
        statement = self._linkable_ids_statement(frozenset(links), restricted=self.restricted)
        result_row = await self._execute_row(statement, {"unique_id": unique_id, **links})
        assert result_row is not None, "the statement returns a row for each input row"  # noqa: S101
        return _link_result(links, result_row)

    async def ensure_journaled(self, result: WriteResult, action: str) -> None:
        """Raise an error if the journal did not accept the entry of a write.

        Raises:
            IdentifierRetiredError: the record was created with the id of a deleted record.
            ConflictError: a concurrent change was faster.
        """
        if not result.journaled:
            raise await self.retired_error(result.record.unique_id) if action == "created" else self.conflict_error()

    def conflict_error(self) -> ConflictError:
        """Return the error for a change that lost to a faster concurrent one."""
        return ConflictError(f"This {self.name} was changed by a concurrent request. Read it again.")

    @classmethod
    @cache
    def _last_version_statement(cls) -> Select[int | None]:
        same_record = and_(journal.c.resource == cls.table.name, journal.c.unique_id == _ID_PARAMETER)
        return select(func.max(journal.c.version)).where(same_record, journal.c.record.is_not(None))

    async def retired_error(self, unique_id: str) -> IdentifierRetiredError:
        """Return the error for reusing the id of a deleted record; its message says how to restore that record."""
        last_version = await self.connection.execute(self._last_version_statement(), {"id": unique_id})
        return IdentifierRetiredError(self.name, last_version.scalar_one())

    @classmethod
    @cache
    def _advisory_lock_statement(cls) -> Select[Any]:
        lock_name = literal_column(f"'{cls.table.name}/'").concat(_ID_PARAMETER)
        return select(func.pg_advisory_xact_lock(func.hashtextextended(lock_name, literal_column("0"))))

    async def advisory_lock(self, unique_id: str) -> None:
        """Lock an id against concurrent restores and erasures of its record, whether or not there is a row to lock."""
        await self.connection.execute(self._advisory_lock_statement(), self._id_parameters(unique_id))

    @classmethod
    @cache
    def _lock_for_deletion_statement(cls, *, restricted: bool) -> Select[str]:
        return cls._visible_id_statement(restricted=restricted).with_for_update()

    async def lock_for_deletion(self, unique_id: str) -> None:
        """Lock one record so that no other record can refer to it until the transaction ends.

        Raises:
            NotFoundError: no visible record has this id.
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
        """Raise an error if patients refer to a record, which must be locked for deletion.

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
        """Delete one record, which must be locked; its journal entry prevents its id from being used again.

        Raises:
            ConflictError: the journal did not accept the entry.
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
        """Remove one record, if it exists, and all data stored of it; return the number of removed journal entries."""
        await self.connection.execute(self._erase_statement(), {"id": unique_id})
        return await erase_traces(self.connection, self.table.name, unique_id, reason, self.principal)


def _link_result(requested_ids: Mapping[str, list[str]], row: Row[Any]) -> LinkResult:
    return LinkResult(requested_ids, {name: frozenset(getattr(row, name)) for name in requested_ids})
