"""Reading the feed: the changes after a position that concern a principal.

A principal that is restricted to hospitals reads `hospital_changes`, so that neither what it gets nor how long that
takes depends on the changes of other hospitals' patients.
"""

import asyncio
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    Integer,
    Row,
    Select,
    and_,
    bindparam,
    case,
    false,
    func,
    literal_column,
    select,
    true,
)

from app.changes.affected import AffectedPatients
from app.changes.numbering import BATCH, FeedPosition, FeedState, Numbering
from app.db.base import ID_TEXT
from app.db.database import Database
from app.errors import FeedExpiredError
from app.models import changes, hospital_changes, journal
from app.models.change import ANY_HOSPITAL
from app.statements.documents import as_contract_json
from app.statements.hospital_scope import HOSPITALS_PARAMETER

PATIENTS = "patients"
MAX_LISTED_BYTES = 500_000
"""Maximum size of the ids of affected patients in a page, in bytes. A page with more ids ends earlier."""
MAX_SKIPPED_ROWS = 1_000
"""Maximum number of rows per read, after all rows of the previous read had to be skipped for a restricted principal."""
_BYTES_AROUND_ID = 3  # quotes and a comma

_AFTER, _UNTIL = bindparam("after", type_=BigInteger), bindparam("until", type_=BigInteger)
_LIMIT, _RESOURCES = bindparam("limit", type_=Integer), bindparam("resources", type_=ARRAY(ID_TEXT))


class FeedQuery(NamedTuple):
    """The part of the feed that a principal reads."""

    hospitals: frozenset[str] | None = None
    """The hospitals that the principal is restricted to, or None if it is not restricted."""
    resources: frozenset[str] | None = None
    """The resources that the principal asks for, or None for all."""

    @property
    def is_empty(self) -> bool:
        """Whether nothing in the feed can match: restricted principals get changes of patients only."""
        return self.hospitals is not None and self.resources is not None and PATIENTS not in self.resources


class ChangeSource(NamedTuple):
    """The changed profile, hospital or doctor, which is part of the documents of the affected patients."""

    resource: str
    unique_id: str
    version: int


class Change(NamedTuple):
    """A change, without what the principal may not know."""

    feed_position: FeedPosition
    resource: str
    unique_id: str | None
    """The id of the changed record. None if the change affects several patients."""
    version: int | None
    action: str
    time: str
    source: ChangeSource | None = None
    """The changed record, if documents of patients contain it and the action is `affected`."""
    patients: Sequence[str] | None = None
    """The ids of the affected patients. None if they are too many, and for changes of a record."""
    into: str | None = None
    """The id of the record that this one was merged into. None for other changes."""


class FeedPage(NamedTuple):
    """Consecutive changes, and the position after which the next page begins."""

    changes: list[Change]
    end: FeedPosition


def _columns() -> list[ColumnElement[Any]]:
    columns, entry = changes.c, journal.c
    merged_into = (
        select(entry.merge.op("->>", return_type=ID_TEXT)(literal_column("'merged_into'")))
        .where(entry.resource == columns.resource, entry.unique_id == columns.unique_id)
        .where(entry.version == columns.version)
        .correlate(changes)
        .scalar_subquery()
    )
    return [
        case((columns.action == literal_column("'merged'"), merged_into)).label("into"),
        BATCH,
        *(columns[name] for name in ("position", "resource", "unique_id", "version", "source")),
        as_contract_json(columns.time).label("time"),
    ]


_IN_RANGE = and_(changes.c.position > _AFTER, changes.c.position <= _UNTIL)


@cache
def _select_changes(*, by_resource: bool) -> Select[Any]:
    """Return the statement that selects the first `:limit` changes after one position and until another."""
    rows = select(*_columns(), changes.c.action, false().label("is_wide")).where(
        _IN_RANGE, changes.c.unique_id.is_not(None)
    )
    if not by_resource:
        return rows.order_by(changes.c.position).limit(_LIMIT)
    requested = func.unnest(_RESOURCES).table_valued("resource", name="requested").render_derived()
    of_resource = rows.where(changes.c.resource == requested.c.resource).order_by(changes.c.position).limit(_LIMIT)
    found = of_resource.lateral("found")
    return select(*found.c).select_from(requested.join(found, true())).order_by(found.c.position).limit(_LIMIT)


@cache
def _select_changes_in_scope() -> Select[Any]:
    """Return the statement that selects the same for a principal that is restricted to `:hospitals`.

    A change that takes a patient into or out of the hospital scope has the action `entered` or `left`.
    """
    row = hospital_changes.c
    any_hospital: ColumnElement[str] = literal_column(f"'{ANY_HOSPITAL}'")
    hospital_ids = func.array_append(HOSPITALS_PARAMETER, any_hospital)
    own = func.unnest(hospital_ids).table_valued("hospital_id", name="own").render_derived()
    of_hospital = (
        select(
            row.position,
            row.before,
            row.after,
            (row.hospital_id == any_hospital).label("is_wide"),
        )
        .where(row.hospital_id == own.c.hospital_id, row.position > _AFTER, row.position <= _UNTIL)
        .order_by(row.position)
        .limit(_LIMIT)
        .lateral("of_hospital")
    )
    was_own, is_own = func.bool_or(of_hospital.c.before), func.bool_or(of_hospital.c.after)
    concerning = (
        select(
            of_hospital.c.position,
            was_own.label("before"),
            is_own.label("after"),
            func.bool_or(of_hospital.c.is_wide).label("is_wide"),
        )
        .select_from(own.join(of_hospital, true()))
        .group_by(of_hospital.c.position)
        .order_by(of_hospital.c.position)
        .limit(_LIMIT)
        .subquery("concerning")
    )
    action = case(
        (and_(concerning.c.before.is_(False), concerning.c.after), literal_column("'entered'")),
        (and_(concerning.c.before, concerning.c.after.is_(False)), literal_column("'left'")),
        else_=changes.c.action,
    )
    return (
        select(*_columns(), action.label("action"), concerning.c.is_wide)
        .join_from(concerning, changes, changes.c.position == concerning.c.position)
        .order_by(concerning.c.position)
    )


_SELECT_BATCH = select(BATCH).where(changes.c.position == _AFTER)


@cache
def _select_concerned() -> Select[Any]:
    """Return the statement that selects the resources and hospitals that the changes between two positions concern."""
    in_range = and_(hospital_changes.c.position > _AFTER, hospital_changes.c.position <= _UNTIL)
    resources = select(changes.c.resource).where(_IN_RANGE).distinct().scalar_subquery()
    hospitals = select(hospital_changes.c.hospital_id).where(in_range).distinct().scalar_subquery()
    return select(func.array(resources), func.array(hospitals))


class ChangeFeed:
    """Reads the feed. Concurrent equal reads, such as those of many waiting clients, are one read."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.numbering = Numbering(database)
        self._running: dict[Any, asyncio.Task[FeedPage]] = {}

    async def page(
        self, principal: str, query: FeedQuery, after: FeedPosition | None, limit: int, state: FeedState | None = None
    ) -> FeedPage:
        """Return up to `limit` changes after the position `after`, or the oldest ones that are stored if it is None.

        The page is empty only if there are no more changes, and shorter if its changes affect many patients. Expensive
        reads of the same `principal`, which is a name, run one after the other. `state` is the state of the feed, if
        the caller has read it.

        Raises:
            FeedExpiredError: the changes after that position are no longer stored.
        """
        if state is None or (after is not None and after.position > state.newest.position):
            state = await self.numbering.refresh()  # a known state may be older than the cursor
        key = (query, after, limit, state)
        task = self._running.get(key)
        if task is None:
            task = self._running[key] = asyncio.create_task(self._read_page(principal, *key))
            task.add_done_callback(lambda _: self._running.pop(key))
        return await asyncio.shield(task)  # a reader that is cancelled does not cancel the read of others

    async def concerned(self, after: int, until: int) -> tuple[frozenset[str], frozenset[str]]:
        """Return the resources and the hospitals that the changes after one position and until another concern."""
        async with self._database.read() as connection:
            row = (await connection.execute(_select_concerned(), {"after": after, "until": until})).one()
        resources, hospitals = row
        return frozenset(resources), frozenset(hospitals)

    async def _read_page(
        self, principal: str, query: FeedQuery, after: FeedPosition | None, limit: int, state: FeedState
    ) -> FeedPage:
        newest = state.newest
        if after is not None and after.position > newest.position and state.is_standby:
            return FeedPage([], after)  # the standby does not have this change yet
        if after == newest:
            return FeedPage([], after)
        first = -1 if after is None else after.position
        affected = AffectedPatients(self._database, principal, query.hospitals, first)
        found: list[Change] = []
        is_last, row_limit = False, limit
        while not found and not is_last:
            rows = await self._read_rows(query, after, row_limit, newest)
            found, last = await _list_changes(rows, affected, limit)
            is_last = len(rows) < row_limit and (not rows or last is rows[-1])
            after = newest if is_last or last is None else FeedPosition(last.position, last.batch)
            row_limit = max(limit, MAX_SKIPPED_ROWS)
        assert after is not None, "the first read has set it"  # noqa: S101
        return FeedPage(found, after)

    async def _read_rows(
        self, query: FeedQuery, after: FeedPosition | None, limit: int, newest: FeedPosition
    ) -> Sequence[Row[Any]]:
        parameters: dict[str, Any] = {"until": newest.position, "limit": limit}
        if query.resources is not None:
            parameters["resources"] = sorted(query.resources)
        if query.hospitals is not None:
            statement = _select_changes_in_scope()
            parameters["hospitals"] = sorted(query.hospitals)
        else:
            statement = _select_changes(by_resource=query.resources is not None)
        async with self._database.read() as connection:
            parameters["after"] = -1 if after is None else after.position
            rows = [] if query.is_empty else (await connection.execute(statement, parameters)).all()
            if after is not None:
                # read last: if this change is still there, the ones that follow it were there, too
                batch = (await connection.execute(_SELECT_BATCH, {"after": after.position})).scalar_one_or_none()
                if batch != after.batch:
                    raise FeedExpiredError
        return rows


async def _list_changes(
    rows: Sequence[Row[Any]], affected: AffectedPatients, limit: int
) -> tuple[list[Change], Row[Any] | None]:
    """Return the changes of a page, and the last row that was considered, after which the next page begins."""
    found: list[Change] = []
    last, listed_bytes = None, 0
    for row in rows:
        patients = None
        if row.source is not None:
            patients = await affected.of((row.source, row.unique_id), is_wide=row.is_wide)
            listed_bytes += sum(len(patient) + _BYTES_AROUND_ID for patient in patients or ())
        if not row.is_wide or patients != []:
            if found and (len(found) == limit or listed_bytes > MAX_LISTED_BYTES):
                break
            found.append(_to_change(row, patients))
        last = row
    return found, last


def _to_change(row: Row[Any], patients: Sequence[str] | None) -> Change:
    position = FeedPosition(row.position, row.batch)
    if row.source is None:
        return Change(position, row.resource, row.unique_id, row.version, row.action, row.time, into=row.into)
    source = ChangeSource(row.source, row.unique_id, row.version)
    return Change(position, row.resource, None, None, row.action, row.time, source, patients)
