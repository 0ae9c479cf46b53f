"""The base class of all repositories: reads, inserts, locks, updates, links, deletes and journals records.

Statements are built once per class, with bind parameters, because building a statement takes longer than executing it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any, ClassVar, Self, cast

from sqlalchemy import (
    ARRAY,
    Column,
    ColumnElement,
    Row,
    Select,
    Table,
    and_,
    any_,
    bindparam,
    column,
    delete,
    func,
    select,
    true,
)
from sqlalchemy.engine import RowMapping

from app.auth.principal import Principal
from app.db.base import ID_TEXT
from app.db.connection import Connection
from app.db.transaction_batching import execute_row, input_rows
from app.errors import ConflictError, IdentifierTakenError, InUseError, NotFoundError
from app.identifiers import is_identifier, new_identifier
from app.records.erasure import erase_traces
from app.records.missing import missing_error, retired_error
from app.records.results import Record, WriteResult
from app.statements import hospital_scope, write_statements
from app.statements.documents import Document, ToMany
from app.statements.journal_entries import CREATED, DELETED, MERGE_COLUMN, UPDATED, EntryKind, author_parameters
from app.statements.links import LinkResult, with_former_ids
from app.statements.write_statements import client_columns

_ID_PARAMETER = bindparam("id", type_=ID_TEXT)


class Repository:
    """Reads and writes the records of one resource, on one connection, on behalf of one principal."""

    name: ClassVar[str]
    """The singular name of the resource in messages, such as `patient`."""
    prefix: ClassVar[str]
    """The prefix of the ids that the service generates, such as `pat`."""
    table: ClassVar[Table]
    document: ClassVar[Document]
    patient_reference_column: ClassVar[Column[Any] | None] = None
    """The column in which patients refer to records of this resource, such as `patient_hospitals.hospital_id`.

    It is None if patients cannot refer to this resource.
    """
    month_indexed_columns: ClassVar[frozenset[str]] = frozenset()
    """Names of the timestamp columns that have an index on the month, which lists filtered by one of them use."""
    special_filters: ClassVar[Mapping[str, Callable[..., ColumnElement[bool]]]] = {}
    """Filters that are neither columns nor links: functions of a row's `unique_id` and the values of the filter."""
    link_relations: ClassVar[Mapping[str, ToMany]] = {}
    """The sets of links to other records, by the request field that replaces the set, such as `hospital_ids`."""

    mergeable: ClassVar[bool] = False
    """Whether two records of this resource can be merged."""

    def __init__(self, connection: Connection, principal: Principal) -> None:
        self.connection = connection
        self.principal = principal
        self.restricted = principal.hospitals is not None

    @property
    def unrestricted(self) -> Self:
        """The same repository for an unrestricted principal.

        Use it for operations that are permitted although the principal cannot see the record.
        """
        return type(self)(self.connection, replace(self.principal, hospitals=None))

    @classmethod
    def visibility_condition(cls, *, restricted: bool) -> ColumnElement[bool]:  # noqa: ARG003  # for overrides with a scope
        """Return the condition that a row is visible to the principal.

        By default, all rows are visible. Resources with a hospital scope override this method for `restricted`
        principals. The first statement of every request on existing records has this condition, whether it reads a
        record by id, locks it, lists records or reads the history.
        """
        return true()

    @classmethod
    def was_visible(cls, record: ColumnElement[Any]) -> ColumnElement[bool]:  # noqa: ARG003  # as above
        """Return the condition that a deleted record, with the last snapshot `record`, was visible to the principal.

        The condition applies only to restricted principals. By default, it is always true.
        """
        return true()

    @classmethod
    def _id_condition(cls) -> ColumnElement[bool]:
        return cls.table.c.unique_id == _ID_PARAMETER

    @classmethod
    def _visible_id_condition(cls, *, restricted: bool) -> ColumnElement[bool]:
        return and_(cls._id_condition(), cls.visibility_condition(restricted=restricted))

    def _id_parameters(self, unique_id: str) -> dict[str, Any]:
        """Return the bind parameters of a statement about one record: its id and the principal's hospital scope.

        Raises:
            NotFoundError: `unique_id` does not have the form of an id.
        """
        if not is_identifier(unique_id):
            raise NotFoundError(self.name)  # PostgreSQL would reject text that contains NUL
        return {"id": unique_id, **hospital_scope.scope_parameters(self.principal)}

    @classmethod
    @cache
    def _get_statement(cls, *, restricted: bool) -> Select[str, str]:
        requested = cls.table.c.unique_id == any_(bindparam("ids", type_=ARRAY(ID_TEXT)))
        return cls.document.select_documents(
            cls.document.select_rows().where(requested, cls.visibility_condition(restricted=restricted))
        )

    async def get_many(self, ids: Sequence[str]) -> dict[str, Record]:
        """Return the records with these `ids` that are visible to the principal, keyed by id."""
        parameters = {"ids": ids, **hospital_scope.scope_parameters(self.principal)}
        result = await self.connection.execute(self._get_statement(restricted=self.restricted), parameters)
        return {unique_id: Record(unique_id, document) for unique_id, document in result.records}

    async def get(self, unique_id: str) -> Record:
        """Return the record with this id.

        Raises:
            NotFoundError: no visible record has this id.
        """
        records = await self.get_many([self._id_parameters(unique_id)["id"]])
        if unique_id not in records:
            raise await missing_error(self, unique_id)
        return records[unique_id]

    async def visible_ids_if_few(self) -> dict[str, Any] | None:
        """Return the ids of all visible records, as the bind parameter for `hospital_scope.is_in_few_ids`.

        Return None if there are more than `hospital_scope.MAX_ID_LOOKUPS` ids, if the principal is unrestricted, or if
        the resource has no hospital scope.
        """
        return None

    @classmethod
    def next_visible_rows(
        cls, after: ColumnElement[str], limit: ColumnElement[int], *, restricted: bool
    ) -> Select[Any]:
        """Return a statement that selects visible rows in the order of `unique_id`.

        It selects the first `limit` rows after the id `after`.
        """
        key = cls.table.c.unique_id
        return (
            cls.document.select_rows()
            .where(cls.visibility_condition(restricted=restricted), key > after)
            .order_by(key)
            .limit(limit)
        )

    @classmethod
    @cache
    def _insert_statement(
        cls, action: str, extra_columns: frozenset[str], *, restricted: bool, is_merge: bool
    ) -> Select[Any]:
        other_inputs = (MERGE_COLUMN,) if is_merge else ()
        parts = write_statements.insert_parts(
            cls.table, cls.link_relations, extra_columns, other_inputs, restricted=restricted
        )
        return write_statements.returning_document(cls.document, cls.link_relations, action, parts)

    async def create(
        self,
        unique_id: str | None,
        values: Mapping[str, Any],
        links: Mapping[str, list[str]],
        kind: EntryKind = CREATED,
    ) -> WriteResult:
        """Insert a record with its links and its journal entry.

        If `unique_id` is None, a new id is generated. `links` contains the ids to link, grouped by the name of the
        set of links. `kind` is the kind of the journal entry.

        Raises:
            IdentifierTakenError: another record has the id.
        """
        statement = self._insert_statement(
            kind.action,
            frozenset(values).difference(client_columns(self.table)),
            restricted=self.restricted,
            is_merge=kind.is_merge,
        )
        row = {"unique_id": unique_id or new_identifier(self.prefix), **values, "merge": kind.merge}
        result = await self._write(statement, row, {name: links.get(name, []) for name in self.link_relations})
        if result is None:
            raise IdentifierTakenError(self.name)
        return result

    async def _execute_row(self, statement: Select[Any], row: Mapping[str, Any]) -> Row[Any] | None:
        return await execute_row(self.connection, statement, row, hospital_scope.scope_parameters(self.principal))

    async def _write(
        self, statement: Select[Any], row: Mapping[str, Any], links: Mapping[str, list[str]], *former_links: str
    ) -> WriteResult | None:
        result_row = await self._execute_row(statement, write_statements.input_row(row, links, self.principal))
        if result_row is None:
            return None
        record = Record(result_row.unique_id, result_row.document)
        return WriteResult(record, LinkResult.from_row(links, result_row, former_links), result_row.entered)

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
        # FOR UPDATE would deadlock with the foreign-key checks of other transactions
        return rows.with_for_update(key_share=True, of=cls.table)

    async def lock_or_none(self, unique_id: str) -> RowMapping | None:
        """Lock a record against other changes and return its columns, or None if the record is not visible.

        The columns have the values that are current once the record is locked.

        Raises:
            NotFoundError: `unique_id` does not have the form of an id.
        """
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
        """Return whether a record with this id exists and is visible to the principal."""
        result = await self.connection.execute(
            self._visible_id_statement(restricted=self.restricted), self._id_parameters(unique_id)
        )
        return result.one_or_none() is not None

    async def _is_still_visible(self, unique_id: str) -> bool:
        """Return whether a record that is now locked is still visible to the principal.

        Visibility depends on links, and the statement that locks a record reads the links before it waits for the lock.
        Other transactions may change the links during the wait.
        """
        return not self.restricted or await self.is_visible(unique_id)

    async def lock(self, unique_id: str) -> RowMapping:
        """Lock a record against other changes and return its columns.

        The columns have the values that are current once the record is locked.

        Raises:
            NotFoundError: no visible record has this id.
        """
        row = await self.lock_or_none(unique_id)
        if row is None:
            raise await missing_error(self, unique_id)
        return row

    @classmethod
    @cache
    def _update_statement(
        cls,
        action: str,
        replaced_links: frozenset[str],
        former_links: frozenset[str],
        *,
        restricted: bool,
        is_merge: bool,
    ) -> Select[Any]:
        links, other_inputs = cls.link_relations, (MERGE_COLUMN,) if is_merge else ()
        replaced = {name: links[name] for name in replaced_links}
        parts = write_statements.update_parts(cls.table, replaced, other_inputs, restricted=restricted)
        statement = write_statements.returning_document(cls.document, links, action, parts)
        return with_former_ids(statement, {name: links[name] for name in former_links})

    async def update(
        self,
        locked: RowMapping,
        values: Mapping[str, Any],
        links: Mapping[str, list[str]],
        kind: EntryKind = UPDATED,
        former_links: frozenset[str] = frozenset(),
    ) -> WriteResult:
        """Write the `values` that differ from the `locked` row, and replace the sets of links in `links`.

        Only links that the principal may change are replaced. If nothing differs, nothing is written, except for a step
        of a merge. `kind` is the kind of the journal entry. The result contains the former ids of the sets of links
        that are named in `former_links`.
        """
        new_values = {name: values[name] for name in client_columns(self.table) if name in values}
        statement = self._update_statement(
            kind.action, frozenset(links), former_links, restricted=self.restricted, is_merge=kind.is_merge
        )
        row = {"unique_id": locked["unique_id"], "sent": list(new_values), **new_values, "merge": kind.merge}
        result = await self._write(statement, row, links, *former_links)
        assert result is not None, "the row is locked"  # noqa: S101
        return result

    async def ensure_journaled(self, result: WriteResult, action: str) -> None:
        """Raise an error if the journal did not accept the entry for a write.

        Raises:
            IdentifierRetiredError: the record was created with the id of a deleted record.
            ConflictError: a concurrent request changed the record first.
        """
        if not result.journaled:
            retired = action == "created"
            raise await retired_error(self, result.record.unique_id) if retired else self.conflict_error()

    def conflict_error(self) -> ConflictError:
        """Return the error for a change that failed because a concurrent request changed the record first."""
        return ConflictError(f"This {self.name} was changed by a concurrent request. Read it again.")

    async def advisory_lock(self, unique_id: str) -> None:
        """Lock an id until the transaction ends, so that only one transaction at a time restores or erases the record.

        Unlike a row lock, this lock also works if the record is deleted.
        """
        await self.connection.execute(write_statements.advisory_lock(self.table), self._id_parameters(unique_id))

    @classmethod
    @cache
    def _lock_for_deletion_statement(cls, *, restricted: bool) -> Select[str]:
        return cls._visible_id_statement(restricted=restricted).with_for_update()

    async def lock_for_deletion(self, unique_id: str) -> None:
        """Lock a record until the transaction ends, so that no other record can start to refer to it.

        Raises:
            NotFoundError: no visible record has this id.
        """
        locked = await self.connection.execute(
            self._lock_for_deletion_statement(restricted=self.restricted), self._id_parameters(unique_id)
        )
        if locked.one_or_none() is None or not await self._is_still_visible(unique_id):
            raise await missing_error(self, unique_id)

    @classmethod
    @cache
    def _patient_count_statement(cls) -> Select[int]:
        return select(func.count()).where(cast("Any", cls.patient_reference_column) == _ID_PARAMETER)

    async def ensure_not_in_use(self, unique_id: str) -> None:
        """Raise an error if patients refer to the record. The caller must already have locked it for deletion.

        Raises:
            InUseError: patients refer to the record.
        """
        if self.patient_reference_column is not None:
            result = await self.connection.execute(self._patient_count_statement(), {"id": unique_id})
            if patient_count := result.scalar_one():
                raise InUseError(self.name, None if self.restricted else patient_count)

    async def delete(self, unique_id: str, kind: EntryKind = DELETED) -> None:
        """Delete a record, which the caller must have locked, and insert a journal entry of this kind.

        The journal entries of the record prevent its id from being used again.

        Raises:
            ConflictError: the journal did not accept the entry for the deletion.
        """
        statement = write_statements.delete_record(self.table, kind.action, is_merge=kind.is_merge)
        parameters = {"id": unique_id, **author_parameters(self.principal)}
        deleted = await self.connection.execute(
            statement, {**parameters, "merge": kind.merge} if kind.is_merge else parameters
        )
        if deleted.one_or_none() is None:
            raise self.conflict_error()

    async def erase(self, unique_id: str, reason: str) -> int:
        """Remove a record, if it still exists, and all data stored about it.

        Return the number of removed journal entries.
        """
        await self.connection.execute(delete(self.table).where(self._id_condition()), {"id": unique_id})
        return await erase_traces(self.connection, self.table.name, unique_id, reason, self.principal)
