"""The stored endpoints: their leases, by which one process delivers at a time, and their progress."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, NamedTuple, Self

from sqlalchemy import (
    BigInteger,
    Executable,
    Interval,
    Row,
    Text,
    bindparam,
    case,
    extract,
    func,
    literal_column,
    null,
    or_,
    select,
    text,
    update,
)

from app.changes.numbering import FeedPosition
from app.db.base import ID_TEXT
from app.db.database import Database
from app.models import changes, webhooks

LEASE_SECONDS = 30
"""Seconds for which a process may deliver without renewing its lease.

This is longer than an attempt can take. If the process is killed, another one takes over after this time.
"""
_LEASE = text(f"interval '{LEASE_SECONDS} seconds'")
_NOW = func.clock_timestamp()
_HOLDER, _ID = bindparam("holder", type_=ID_TEXT), bindparam("id", type_=ID_TEXT)


@dataclass(frozen=True)
class Endpoint:
    """An endpoint, as it was when its holder last renewed the lease."""

    unique_id: str
    url: str
    events: Sequence[str]
    hospitals: frozenset[str] | None
    secrets: Sequence[bytes] = field(repr=False)
    state: str
    feed_position: FeedPosition
    failures: int
    renewed_at: float = field(default_factory=time.monotonic)
    """The time of the last renewal, on the monotonic clock."""

    @classmethod
    def from_row(cls, row: Row[Any]) -> Self:
        """Return the endpoint of a row with the columns in `ENDPOINT_COLUMNS`."""
        previous = [] if row.previous_secret is None else [row.previous_secret]
        hospitals = None if row.hospitals is None else frozenset(row.hospitals)
        position = FeedPosition(row.position, row.batch)
        secrets = [row.secret, *previous]
        return cls(row.unique_id, row.url, row.events, hospitals, secrets, row.state, position, row.failures)


ENDPOINT_COLUMNS = (
    *(webhooks.c[name] for name in ("unique_id", "url", "events", "hospitals", "secret", "state")),
    *(webhooks.c[name] for name in ("position", "batch", "failures")),
    case((webhooks.c.previous_secret_until > _NOW, webhooks.c.previous_secret)).label("previous_secret"),
)


class Progress(NamedTuple):
    """What a holder stores when it renews its lease."""

    feed_position: FeedPosition
    state: str = "active"
    failures: int = 0
    error: str | None = None
    delay_seconds: float = 0.0
    """Seconds until the next attempt."""
    is_delivered: bool = False


class EndpointState(NamedTuple):
    """How far an endpoint is behind the feed."""

    unique_id: str
    state: str
    lag_changes: int
    lag_seconds: float


_IS_ACTIVE = webhooks.c.state == literal_column("'active'")


def _claim_statement() -> Executable:
    is_free = or_(webhooks.c.leased_until.is_(None), webhooks.c.leased_until < _NOW)
    due = (
        select(webhooks.c.unique_id)
        .where(_IS_ACTIVE, webhooks.c.next_attempt <= _NOW, is_free)
        .order_by(webhooks.c.next_attempt)
        .limit(literal_column("1"))
        .with_for_update(skip_locked=True)
    )
    return (
        update(webhooks)
        .where(webhooks.c.unique_id == due.scalar_subquery())
        .values(leased_by=_HOLDER, leased_until=_NOW + _LEASE)
        .returning(*ENDPOINT_COLUMNS)
    )


_IS_HELD = (webhooks.c.unique_id == _ID, webhooks.c.leased_by == _HOLDER, webhooks.c.leased_until > _NOW)
_CLAIM = _claim_statement()
_RENEW = update(webhooks).where(*_IS_HELD).values(leased_until=_NOW + _LEASE).returning(*ENDPOINT_COLUMNS)
_RENEW_WITH_PROGRESS = _RENEW.values(
    position=bindparam("position", type_=BigInteger),
    batch=bindparam("batch", type_=BigInteger),
    # an operator may have paused the endpoint meanwhile
    state=case((_IS_ACTIVE, bindparam("state", type_=ID_TEXT)), else_=webhooks.c.state),
    failures=bindparam("failures", type_=BigInteger),
    last_error=bindparam("error", type_=Text),
    next_attempt=_NOW + bindparam("delay", type_=Interval),
    last_delivery=case((bindparam("is_delivered"), _NOW), else_=webhooks.c.last_delivery),
)
_RELEASE = update(webhooks).where(*_IS_HELD).values(leased_by=null(), leased_until=null())


def _states_statement() -> Executable:
    next_change = (
        select(changes.c.time)
        .where(changes.c.position > webhooks.c.position, changes.c.unique_id.is_not(None))
        .order_by(changes.c.position)
        .limit(literal_column("1"))
        .scalar_subquery()
    )
    newest = select(func.max(changes.c.position)).scalar_subquery()
    age = extract("epoch", _NOW - next_change)
    return select(
        webhooks.c.unique_id, webhooks.c.state, newest - webhooks.c.position, func.coalesce(age, literal_column("0"))
    )


_SELECT_STATES = _states_statement()


class Endpoints:
    """The endpoints in the database, on behalf of one process that may hold leases."""

    def __init__(self, database: Database, holder: str) -> None:
        """`holder` identifies the process."""
        self._database = database
        self._holder = holder

    async def claim(self) -> Endpoint | None:
        """Return an endpoint with something to do that no process holds, and hold it. Return None if there is none."""
        row = (await self._database.write(_CLAIM, {"holder": self._holder})).one_or_none()
        return None if row is None else Endpoint.from_row(row)

    async def renew(self, endpoint: Endpoint, progress: Progress | None = None) -> Endpoint | None:
        """Store progress, if there is any, renew the lease and return the endpoint as it is now.

        Return None if the endpoint is no longer held or was removed. Nothing is stored then.
        """
        parameters: dict[str, Any] = {"id": endpoint.unique_id, "holder": self._holder}
        if progress is not None:
            parameters |= {
                "position": progress.feed_position.position,
                "batch": progress.feed_position.batch,
                "state": progress.state,
                "failures": progress.failures,
                "error": progress.error,
                "delay": timedelta(seconds=progress.delay_seconds),
                "is_delivered": progress.is_delivered,
            }
        statement = _RENEW if progress is None else _RENEW_WITH_PROGRESS
        row = (await self._database.write(statement, parameters)).one_or_none()
        return None if row is None else Endpoint.from_row(row)

    async def release(self, endpoint: Endpoint) -> None:
        """End the lease, so that any process may deliver."""
        await self._database.write(_RELEASE, {"id": endpoint.unique_id, "holder": self._holder})

    async def states(self) -> list[EndpointState]:
        """Return how far each endpoint is behind."""
        async with self._database.read() as connection:
            rows = (await connection.execute(_SELECT_STATES)).all()
        return [EndpointState(unique_id, state, lag, float(age)) for unique_id, state, lag, age in rows]
