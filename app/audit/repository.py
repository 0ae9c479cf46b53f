"""What is on record, read: all of it, and what concerns one patient."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Integer,
    Select,
    Text,
    and_,
    cast,
    exists,
    func,
    literal,
    literal_column,
    null,
    select,
    tuple_,
    union_all,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from app.audit.schemas import AuditEntry, AuditParameters
from app.models import Patient, audit, journal
from app.resource.document import rendered
from app.resource.repository import Record

PATIENTS = Patient.__tablename__
_REFUSED = 400
"""Statuses from here on are refusals: nothing was seen or changed."""


def _about(patient_id: str) -> ColumnElement[bool]:
    return and_(audit.c.resource == PATIENTS, audit.c.ids.contains([patient_id]))


def _conditions(wanted: AuditParameters) -> Iterator[ColumnElement[bool]]:
    if wanted.patient is not None:
        yield _about(wanted.patient)
    if wanted.principal is not None:
        yield audit.c.principal == wanted.principal
    if wanted.time__gte is not None:
        yield audit.c.time >= wanted.time__gte
    if wanted.time__lt is not None:
        yield audit.c.time < wanted.time__lt


async def page(connection: AsyncConnection, wanted: AuditParameters, before: int, limit: int) -> list[Record]:
    """Read up to `limit` entries of numbers below `before`, newest first; each with its number as `unique_id`."""
    fields = [rendered(audit.c[name]).label(name) for name in AuditEntry.model_fields]
    rows = select(audit.c.id, *fields).where(audit.c.id < before, *_conditions(wanted)).order_by(audit.c.id.desc())
    found = rows.limit(limit).subquery("found")
    entry = select(*(found.c[name] for name in AuditEntry.model_fields)).correlate(found).subquery("entry")
    document = select(cast(func.row_to_json(entry.table_valued()), Text)).correlate(found).scalar_subquery()
    statement = select(cast(found.c.id, Text), document).order_by(found.c.id.desc())
    return [Record._make(row) for row in await connection.execute(statement)]


class Place(NamedTuple):
    """Where an access stands among all of a patient."""

    time: datetime
    source: int
    """0 for the audit, 1 for the journal."""
    number: int
    """Of the audit's row; the version."""


class AccessRow(NamedTuple):
    """A look at a patient, or a change."""

    time: datetime
    source: int
    number: int
    principal: str
    method: str
    """Or the journal's action."""
    route: str | None
    reason: str | None
    request_id: str | None

    @property
    def place(self) -> Place:
        """Where it stands."""
        return Place(self.time, self.source, self.number)


LAST = Place(datetime(9999, 1, 1, tzinfo=UTC), 0, 0)


def _accesses(patient_id: str) -> Select[Any]:
    columns = audit.c
    seen = (
        select(
            columns.time,
            literal_column("0", Integer).label("source"),
            cast(columns.id, BigInteger).label("number"),
            columns.principal,
            columns.method,
            columns.route,
            columns.reason,
            columns.request_id,
        )
        .where(_about(patient_id), columns.status < _REFUSED)
        .cte("seen")
    )
    # what came past the routes, by a command or a migration, or before there was an audit
    request = and_(seen.c.principal == journal.c.actor, seen.c.request_id == journal.c.request_id)
    other = select(
        journal.c.time,
        literal_column("1", Integer),
        journal.c.version,
        journal.c.actor,
        journal.c.action,
        null(),
        null(),
        journal.c.request_id,
    ).where(
        journal.c.resource == PATIENTS,
        journal.c.unique_id == patient_id,
        ~exists(select(seen.c.number).where(request, seen.c.method != "GET")),
    )
    return select(union_all(select(seen), other).subquery("access"))


async def accesses(connection: AsyncConnection, patient_id: str, before: Place, limit: int) -> list[AccessRow]:
    """Read up to `limit` looks at a patient, and changes of it, from before a place, newest first."""
    access = _accesses(patient_id).subquery()
    place = tuple_(access.c.time, access.c.source, access.c.number)
    rows = (
        select(access)
        .where(place < tuple_(*(literal(value) for value in before)))
        .order_by(access.c.time.desc(), access.c.source.desc(), access.c.number.desc())
        .limit(limit)
    )
    return [AccessRow._make(row) for row in await connection.execute(rows)]
