"""What is on record, read: all of it, and what concerns one patient."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    DateTime,
    FromClause,
    Integer,
    Select,
    Text,
    and_,
    bindparam,
    cast,
    func,
    literal_column,
    null,
    select,
    tuple_,
    union_all,
)
from sqlalchemy.dialects.postgresql import array
from sqlalchemy.ext.asyncio import AsyncConnection

from app.audit.schemas import AuditEntry, AuditParameters
from app.audit.trail import REFUSED
from app.db.base import ID
from app.models import Patient, Profile, audit, journal
from app.models.audit import MANY, ONE
from app.resource.document import rendered
from app.resource.wanted import Item

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Place(NamedTuple):
    """Where something stands in a list by time, newest first."""

    time: datetime = datetime(9999, 1, 1, tzinfo=UTC)
    source: int = 0
    """Where it comes from: the order of what happened in the same microsecond."""
    number: int = 0

    @classmethod
    def of(cls, text: str | None) -> "Place":
        """The place that a text stands for; none is before all others."""
        if not text:
            return cls()
        time, source, number = (int(part) for part in text.split("."))
        return cls(_EPOCH + time * _MICROSECOND, source, number)

    def __str__(self) -> str:
        """As a text."""
        return f"{(self.time - _EPOCH) // _MICROSECOND}.{self.source}.{self.number}"


_TIME, _SOURCE, _NUMBER = (
    bindparam("time", type_=DateTime(timezone=True)),
    bindparam("source", type_=Integer),
    bindparam("number", type_=BigInteger),
)
_ID = bindparam("id", type_=ID)
_LIMIT = bindparam("limit", type_=Integer, literal_execute=True)
_ZERO, _ONE, _TWO = (literal_column(text, Integer) for text in ("0", "1", "2"))


def _is(unique_id: ColumnElement[str]) -> ColumnElement[bool]:
    """Of one record, by an index in the order of time."""
    return and_(ONE, audit.c.ids[_ONE] == unique_id)


def _has(unique_id: ColumnElement[str]) -> ColumnElement[bool]:
    """Of several records, and this among them, by an index of the ids."""
    return and_(MANY, audit.c.ids.contains(cast(array([unique_id]), ARRAY(Text))))


def _conditions(wanted: AuditParameters) -> Iterator[ColumnElement[bool]]:
    yield tuple_(audit.c.time, audit.c.id) < tuple_(_TIME, _NUMBER)
    if wanted.principal is not None:
        yield audit.c.principal == wanted.principal
    if wanted.time__gte is not None:
        yield audit.c.time >= wanted.time__gte


def _newest(rows: Select[Any]) -> Select[Any]:
    columns = rows.selected_columns
    return rows.order_by(columns.time.desc(), columns.id.desc()).limit(_LIMIT)


async def page(connection: AsyncConnection, wanted: AuditParameters, before: Place, limit: int) -> list[Item]:
    """Read up to `limit` entries from before a place, newest first."""
    if wanted.time__lt is not None:
        before = min(before, Place(wanted.time__lt))
    rows = select(audit).where(*_conditions(wanted))
    if wanted.patient is not None:
        rows = rows.where(audit.c.resource == Patient.__tablename__)
        alone = _newest(rows.where(_is(_ID))).subquery()
        # apart: else all of the audit is walked by time, in the hope that a list with the patient soon comes
        in_lists = rows.where(_has(_ID)).cte("in_lists").prefix_with("MATERIALIZED")
        rows = select(union_all(select(alone), select(in_lists)).subquery())
    found = _newest(rows).subquery("found")
    fields = [rendered(found.c[name]).label(name) for name in AuditEntry.model_fields]
    entry = select(*fields).correlate(found).subquery("entry")
    document = select(cast(func.row_to_json(entry.table_valued()), Text)).correlate(found).scalar_subquery()
    statement = select(found.c.time, found.c.id, document).order_by(found.c.time.desc(), found.c.id.desc())
    parameters = {"time": before.time, "number": before.number, "id": wanted.patient, "limit": limit}
    return [
        Item(str(number), text, str(Place(time, 0, number)))
        for time, number, text in await connection.execute(statement, parameters)
    ]


class Access(NamedTuple):
    """A look at a patient, or a change."""

    time: datetime
    source: int
    number: int
    principal: str
    resource: str
    """The patient itself, or its profile."""
    method: str | None
    """Of a look; of a change there is only what the journal has."""
    route: str | None
    action: str | None
    """Of a change."""
    reason: str | None
    request_id: str | None

    @property
    def place(self) -> Place:
        """Where it stands."""
        return Place(self.time, self.source, self.number)


def _profiles() -> FromClause:
    """The profiles that the patient has had, each `since` and `until` when."""
    profile_id = journal.c.record.op("->>")("profile_id")
    of_patient = and_(journal.c.resource == Patient.__tablename__, journal.c.unique_id == _ID)
    until = func.lead(journal.c.time).over(order_by=journal.c.version)
    spans = select(profile_id.label("profile_id"), journal.c.time.label("since"), until.label("until"))
    return spans.where(of_patient).cte("profiles")


def _looks(
    source: ColumnElement[int], concern: ColumnElement[bool], resource: str, profiles: FromClause | None = None
) -> Select[Any]:
    columns = audit.c
    looks = select(
        columns.time,
        source.label("source"),
        columns.id.label("number"),
        columns.principal,
        columns.resource,
        columns.method,
        columns.route,
        null().label("action"),
        columns.reason,
        columns.request_id,
    ).where(
        concern,
        columns.resource == resource,
        columns.status < REFUSED,
        columns.version.is_(None),
    )
    return looks if profiles is None else looks.where(_while_linked(columns.time, profiles))


def _while_linked(time: ColumnElement[datetime], profiles: FromClause) -> ColumnElement[bool]:
    until = func.coalesce(profiles.c.until, literal_column("'infinity'::timestamptz"))
    return and_(time >= profiles.c.since, time < until)


def _changes(source: ColumnElement[int], *concern: ColumnElement[bool]) -> Select[Any]:
    columns = journal.c
    return select(
        columns.time,
        source.label("source"),
        columns.version.label("number"),
        columns.actor.label("principal"),
        columns.resource,
        null().label("method"),
        null().label("route"),
        columns.action,
        null().label("reason"),
        columns.request_id,
    ).where(*concern)


@cache
def _accesses() -> Select[Any]:
    """Each part by an index, in the order of time and no further than the limit, however much there is of it."""
    patients, profiles = Patient.__tablename__, Profile.__tablename__
    had = _profiles()
    parts = [
        _looks(_ZERO, _is(_ID), patients),
        _looks(_ZERO, _has(_ID), patients),
        _looks(_ZERO, _is(had.c.profile_id), profiles, had),
        _looks(_ZERO, _has(had.c.profile_id), profiles, had),
        _changes(_ONE, journal.c.resource == patients, journal.c.unique_id == _ID),
        _changes(
            _TWO,
            journal.c.resource == profiles,
            journal.c.unique_id == had.c.profile_id,
            _while_linked(journal.c.time, had),
        ),
    ]
    limited = []
    for part in parts:
        named = part.selected_columns
        place = tuple_(named.time, named.source, named.number) < tuple_(_TIME, _SOURCE, _NUMBER)
        newest = (named.time.desc(), named.source.desc(), named.number.desc())
        # the time by itself too: an index has it, and not the source
        nearest = part.where(named.time <= _TIME, place).order_by(*newest).limit(_LIMIT)
        limited.append(select(nearest.subquery()))
    every = union_all(*limited).subquery("access")
    newest = (every.c.time.desc(), every.c.source.desc(), every.c.number.desc())
    return select(every).order_by(*newest).limit(_LIMIT)


async def accesses(connection: AsyncConnection, patient_id: str, before: Place, limit: int) -> list[Access]:
    """Read up to `limit` looks at a patient or its profile, and changes of them, from before a place, newest first."""
    parameters = {"id": patient_id, "limit": limit, **before._asdict()}
    return [Access._make(row) for row in await connection.execute(_accesses(), parameters)]
