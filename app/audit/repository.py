"""Queries of the audit: the list of all entries, and the list of accesses to one patient."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache
from http import HTTPStatus
from typing import Any, NamedTuple

from sqlalchemy import (
    ARRAY,
    CTE,
    BigInteger,
    ColumnElement,
    DateTime,
    Integer,
    Select,
    SmallInteger,
    Text,
    and_,
    bindparam,
    cast,
    func,
    literal_column,
    null,
    or_,
    select,
    true,
    tuple_,
    union,
    union_all,
)
from sqlalchemy.dialects.postgresql import array

from app.audit.merged_patients import SHOWN_IN
from app.audit.recorder import FIRST_ERROR_STATUS
from app.audit.schemas import AuditEntry, AuditParameters
from app.db.base import ID_TEXT
from app.db.connection import Connection
from app.listing.page import ListItem
from app.models import Patient, Profile, audit, journal
from app.models.audit import HAS_MANY_RECORDS, IS_SINGLE_RECORD
from app.paths import list_path
from app.statements.documents import as_contract_json

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class AuditPosition(NamedTuple):
    """A position in a list of audit entries or access events. Such a list is ordered by time, newest first."""

    time: datetime = datetime(9999, 1, 1, tzinfo=UTC)
    source: int = 0
    """The source of the event: 0 for a read, 1 for a change to the patient, 2 for a change to a profile.

    It determines the order of events with the same timestamp.
    """
    number: int = 0

    @classmethod
    def from_text(cls, text: str | None) -> "AuditPosition":
        """Parse a position from `text`, which is the result of `str(position)`.

        If `text` is None or empty, return the position before all entries.
        """
        if not text:
            return cls()
        time, source, number = (int(part) for part in text.split("."))
        return cls(_EPOCH + time * _MICROSECOND, source, number)

    def __str__(self) -> str:
        """Return the time (in microseconds since 1970), the source and the number, joined by dots."""
        return f"{(self.time - _EPOCH) // _MICROSECOND}.{self.source}.{self.number}"


_TIME_PARAMETER, _SOURCE_PARAMETER, _NUMBER_PARAMETER = (
    bindparam("time", type_=DateTime(timezone=True)),
    bindparam("source", type_=Integer),
    bindparam("number", type_=BigInteger),
)
_ID_PARAMETER = bindparam("id", type_=ID_TEXT)
_PATIENT_PARAMETER = bindparam("patient", type_=ID_TEXT)
_LIMIT_PARAMETER = bindparam("limit", type_=Integer, literal_execute=True)
_ZERO_LITERAL, _ONE_LITERAL, _TWO_LITERAL = (literal_column(text, Integer) for text in ("0", "1", "2"))


def _about_one(unique_id: ColumnElement[str]) -> ColumnElement[bool]:
    """Return the condition for audit entries that are about this record and about no other record.

    For these entries PostgreSQL can use an index that is ordered by time.
    """
    return and_(IS_SINGLE_RECORD, audit.c.ids[_ONE_LITERAL] == unique_id)


def _about_many(unique_id: ColumnElement[str]) -> ColumnElement[bool]:
    """Return the condition for audit entries about several records, including this one.

    For these entries PostgreSQL can use an index on the ids, which is not ordered by time.
    """
    return and_(HAS_MANY_RECORDS, audit.c.ids.contains(cast(array([unique_id]), ARRAY(Text))))


def _newest_first(rows: Select[Any]) -> Select[Any]:
    columns = rows.selected_columns
    return rows.order_by(columns.time.desc(), columns.id.desc()).limit(_LIMIT_PARAMETER)


async def list_entries(
    connection: Connection, query: AuditParameters, before: AuditPosition, limit: int
) -> list[ListItem]:
    """Return up to `limit` audit entries that match the query and are older than `before`, newest first."""
    if query.time__lt is not None:
        before = min(before, AuditPosition(query.time__lt))
    filters = {"principal": query.principal, "time__gte": query.time__gte, "patient": query.patient}
    statement = _entries_statement(frozenset(name for name, value in filters.items() if value is not None))
    parameters = {"time": before.time, "number": before.number, "limit": limit, **filters}
    return [
        ListItem(str(number), text, str(AuditPosition(time, 0, number)))
        for time, number, text in await connection.execute(statement, parameters)
    ]


@cache
def _entries_statement(filters: frozenset[str]) -> Select[Any]:
    """Return the statement for a page of entries that match the `filters`, which are names of bind parameters."""
    rows = select(audit).where(tuple_(audit.c.time, audit.c.id) < tuple_(_TIME_PARAMETER, _NUMBER_PARAMETER))
    if "principal" in filters:
        rows = rows.where(audit.c.principal == bindparam("principal", type_=ID_TEXT))
    if "time__gte" in filters:
        rows = rows.where(audit.c.time >= bindparam("time__gte", type_=DateTime(timezone=True)))
    if "patient" in filters:
        rows = rows.where(audit.c.resource == Patient.__tablename__)
        single_record_rows = _newest_first(rows.where(_about_one(_PATIENT_PARAMETER))).subquery()
        # materialized, because PostgreSQL would otherwise expect to find the patient soon and scan the audit by time
        many_records_rows = rows.where(_about_many(_PATIENT_PARAMETER)).cte("in_lists").prefix_with("MATERIALIZED")
        rows = select(union_all(select(single_record_rows), select(many_records_rows)).subquery())
    page_rows = _newest_first(rows).subquery("found")
    fields = [as_contract_json(page_rows.c[name]).label(name) for name in AuditEntry.model_fields]
    entry = select(*fields).correlate(page_rows).subquery("entry")
    document = select(cast(func.row_to_json(entry.table_valued()), Text)).correlate(page_rows).scalar_subquery()
    return select(page_rows.c.time, page_rows.c.id, document).order_by(page_rows.c.time.desc(), page_rows.c.id.desc())


class AccessEvent(NamedTuple):
    """A read of a patient or its profile, or a change to one of them."""

    time: datetime
    source: int
    number: int
    principal: str
    resource: str
    """The resource that was accessed: `patients` for the patient itself, `profiles` for its profile."""
    method: str | None
    """The method of a read. None for a change, because the journal does not store methods."""
    route: str | None
    status: int | None
    action: str | None
    """The action of a change, such as `updated`. None for a read."""
    reason: str | None
    request_id: str | None

    @property
    def position(self) -> AuditPosition:
        """The position of the event in the list of accesses."""
        return AuditPosition(self.time, self.source, self.number)


def _linked_profile_spans() -> CTE:
    """Return a CTE with the profiles that the patients of `SHOWN_IN` have been linked to, according to the journal.

    Each row is the time for which a version of a patient was current, within the time in `SHOWN_IN`. The columns are
    `unique_id`, the id of the profile, `since` and `until`.
    """
    profile_id, shown = journal.c.record.op("->>", return_type=ID_TEXT)("profile_id"), SHOWN_IN.c
    is_of_patient = and_(journal.c.resource == Patient.__tablename__, journal.c.unique_id == shown.unique_id)
    replaced = func.lead(journal.c.time).over(partition_by=journal.c.unique_id, order_by=journal.c.version)
    until = func.least(shown.until, replaced, type_=DateTime(timezone=True)).label("until")
    since = func.greatest(shown.since, journal.c.time, type_=DateTime(timezone=True)).label("since")
    spans = select(profile_id.label("unique_id"), since, until).join_from(journal, SHOWN_IN, is_of_patient)
    return spans.cte("profiles")


_LISTS_DUPLICATES = and_(
    audit.c.status == HTTPStatus.CONFLICT, audit.c.method == "POST", audit.c.route == list_path(Patient.__tablename__)
)
"""Whether a request to create a patient was refused with the patients who may be the same person."""


def _read_events(
    source: ColumnElement[int], about: Callable[[ColumnElement[str]], ColumnElement[bool]], resource: str, spans: CTE
) -> Select[Any]:
    columns = audit.c
    return select(
        columns.time,
        source.label("source"),
        columns.id.label("number"),
        columns.principal,
        columns.resource,
        columns.method,
        columns.route,
        columns.status,
        null().label("action"),
        columns.reason,
        columns.request_id,
    ).where(
        about(spans.c.unique_id),
        columns.resource == resource,
        or_(columns.status < FIRST_ERROR_STATUS, _LISTS_DUPLICATES),
        columns.version.is_(None),
    )


def _change_events(source: ColumnElement[int], resource: str, spans: CTE) -> Select[Any]:
    columns = journal.c
    return select(
        columns.time,
        source.label("source"),
        columns.version.label("number"),
        columns.actor.label("principal"),
        columns.resource,
        null().label("method"),
        null().label("route"),
        cast(null(), SmallInteger).label("status"),
        columns.action,
        null().label("reason"),
        columns.request_id,
    ).where(columns.resource == resource, columns.unique_id == spans.c.unique_id)


@cache
def _access_events_statement() -> Select[Any]:
    """Return the statement for a page of access events.

    Each subquery uses an index and returns only the newest rows of each record, up to the limit, however many events
    there are. Two records of a person may have had the same profile at the same time, so equal rows are merged.
    """
    patients, profiles = Patient.__tablename__, Profile.__tablename__
    profile_spans = _linked_profile_spans()
    event_queries = [
        (SHOWN_IN, _read_events(_ZERO_LITERAL, _about_one, patients, SHOWN_IN)),
        (SHOWN_IN, _read_events(_ZERO_LITERAL, _about_many, patients, SHOWN_IN)),
        (profile_spans, _read_events(_ZERO_LITERAL, _about_one, profiles, profile_spans)),
        (profile_spans, _read_events(_ZERO_LITERAL, _about_many, profiles, profile_spans)),
        (SHOWN_IN, _change_events(_ONE_LITERAL, patients, SHOWN_IN)),
        (profile_spans, _change_events(_TWO_LITERAL, profiles, profile_spans)),
    ]
    newest_per_query = []
    for spans, event_query in event_queries:
        columns = event_query.selected_columns
        is_before_position = tuple_(columns.time, columns.source, columns.number) < tuple_(
            _TIME_PARAMETER, _SOURCE_PARAMETER, _NUMBER_PARAMETER
        )
        newest_first = (columns.time.desc(), columns.source.desc(), columns.number.desc())
        # the time is also compared on its own, because the index contains the time but not the source
        nearest_rows = (
            event_query.where(columns.time <= _TIME_PARAMETER, is_before_position)
            .where(columns.time >= spans.c.since, columns.time < spans.c.until)
            .order_by(*newest_first)
            .limit(_LIMIT_PARAMETER)
            .correlate(spans)
            .lateral()
        )
        newest_per_query.append(select(nearest_rows).select_from(spans.join(nearest_rows, true())))
    events = union(*newest_per_query).subquery("access")
    newest_first = (events.c.time.desc(), events.c.source.desc(), events.c.number.desc())
    return select(events).order_by(*newest_first).limit(_LIMIT_PARAMETER)


async def list_access_events(
    connection: Connection, patient_id: str, before: AuditPosition, limit: int
) -> list[AccessEvent]:
    """Return up to `limit` events in which a patient or its profile was read or changed, newest first.

    This includes events of the patients in which its data were at that time (see `SHOWN_IN`). All returned events are
    older than the position `before`.
    """
    parameters = {"id": patient_id, "limit": limit, **before._asdict()}
    return [AccessEvent._make(row) for row in await connection.execute(_access_events_statement(), parameters)]
