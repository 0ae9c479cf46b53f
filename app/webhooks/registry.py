"""What operators do with endpoints: add, list, pause, resume, replay, rotate, test and remove them."""

import asyncio
import re
from collections.abc import Collection, Sequence
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import ColumnElement, delete, func, insert, select, update

from app.changes.numbering import FeedPosition
from app.db.connection import Connection
from app.db.database import Database
from app.identifiers import new_identifier
from app.models import changes, webhooks
from app.webhooks.endpoints import ENDPOINT_COLUMNS, Endpoint
from app.webhooks.messages import is_event_pattern, new_secret

ROTATION_PERIOD = timedelta(hours=24)
"""Time for which the previous secret signs messages too, so that the operator can configure the receiver."""
STOP_POLL_SECONDS = 0.1
_HIDDEN_COLUMNS = frozenset({"secret", "previous_secret", "position", "batch", "leased_by", "leased_until"})


class WebhookError(Exception):
    """A command cannot be carried out. The message says what to change."""


def check_url(url: str, *, allow_http: bool) -> None:
    """Check the URL of an endpoint.

    Raises:
        WebhookError: it is not an https URL, or it contains credentials, which lists of endpoints would show.
    """
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise WebhookError("This is not a URL.") from None
    if parts.scheme not in {"https", "http"} or not parts.hostname or not url.isascii() or not url.isprintable():
        raise WebhookError("The URL must begin with https:// and contain only ASCII characters.")
    if " " in url:
        raise WebhookError("The URL must contain no spaces: write %20.")
    if parts.username is not None or parts.fragment:
        raise WebhookError("The URL must contain no user name, password or fragment: messages are signed.")
    if parts.scheme == "http" and not allow_http:
        raise WebhookError(
            "The URL must begin with https://. For an endpoint in a network you trust, add --allow-http."
        )


def check_events(patterns: Collection[str], *, restricted: bool) -> None:
    """Check the patterns of event types of an endpoint, which may be restricted to hospitals.

    Raises:
        WebhookError: a pattern matches no event that the endpoint can get.
    """
    for pattern in patterns:
        if not is_event_pattern(pattern):
            raise WebhookError(f"No event matches {pattern}: use *, patient.*, or a type such as patient.created.")
        if restricted and pattern != "*" and not pattern.startswith("patient."):
            raise WebhookError(
                f"With --hospital, an endpoint gets changes of patients only, so it never matches {pattern}: use * or "
                "patient.*, or leave out --hospital."
            )


async def add(
    connection: Connection, url: str, events: Sequence[str], hospitals: Sequence[str] | None, position: FeedPosition
) -> tuple[str, bytes]:
    """Add an endpoint that gets the changes after a position in the feed, and return its id and its secret."""
    unique_id, secret = new_identifier("hook"), new_secret()
    values = {"unique_id": unique_id, "url": url, "events": list(events), "hospitals": hospitals, "secret": secret}
    await connection.execute(insert(webhooks).values(**values, **position._asdict()))
    return unique_id, secret


async def list_endpoints(connection: Connection) -> list[dict[str, Any]]:
    """Return the endpoints in the order of their creation, and with the number of changes behind.

    They are without secrets, and the queries of URLs, which may contain tokens, are replaced by an ellipsis.
    """
    columns = [column for column in webhooks.columns if column.name not in _HIDDEN_COLUMNS]
    behind = (select(func.max(changes.c.position)).scalar_subquery() - webhooks.c.position).label("behind")
    statement = select(*columns, behind).order_by(webhooks.c.created, webhooks.c.unique_id)
    rows = (await connection.execute(statement)).mappings()
    return [{**row, "url": re.sub(r"\?.+", "?…", row["url"])} for row in rows]


def _is_endpoint(unique_id: str) -> ColumnElement[bool]:
    return webhooks.c.unique_id == unique_id


async def _update(connection: Connection, unique_id: str, values: dict[str, Any]) -> None:
    statement = update(webhooks).where(_is_endpoint(unique_id)).values(values)
    if not (await connection.execute(statement)).rowcount:
        raise WebhookError("There is no webhook with this id: `patients-api webhooks list` shows all.")


async def read(connection: Connection, unique_id: str) -> Endpoint:
    """Return an endpoint.

    Raises:
        WebhookError: there is none with this id.
    """
    row = (await connection.execute(select(*ENDPOINT_COLUMNS).where(_is_endpoint(unique_id)))).one_or_none()
    if row is None:
        raise WebhookError("There is no webhook with this id: `patients-api webhooks list` shows all.")
    return Endpoint.from_row(row)


async def pause(database: Database, unique_id: str) -> None:
    """Pause an endpoint, and return when the attempt that is being made, if any, has ended.

    Raises:
        WebhookError: there is no endpoint with this id.
    """
    await database.transaction(lambda connection: _update(connection, unique_id, {"state": "paused"}))
    is_held = select(func.coalesce(webhooks.c.leased_until > func.clock_timestamp(), False)).where(
        _is_endpoint(unique_id)
    )
    while True:
        async with database.read() as connection:
            if not (await connection.execute(is_held)).scalar_one_or_none():
                return
        await asyncio.sleep(STOP_POLL_SECONDS)


async def resume(connection: Connection, unique_id: str, position: FeedPosition | None = None) -> None:
    """Deliver again, after `position` or where delivery has stopped, beginning at once.

    Raises:
        WebhookError: there is no endpoint with this id.
    """
    progress = {} if position is None else position._asdict()
    start = {"state": "active", "failures": 0, "last_error": None, "next_attempt": func.statement_timestamp()}
    await _update(connection, unique_id, {**start, **progress})


async def rotate(connection: Connection, unique_id: str, *, drop_previous: bool) -> bytes:
    """Replace the secret of an endpoint and return the new one. The previous secret signs too, for `ROTATION_PERIOD`.

    If a secret from an earlier rotation still signs as well, it is dropped, provided that `drop_previous` is true.

    Raises:
        WebhookError: there is no endpoint with this id, or a secret from an earlier rotation must not be dropped.
    """
    endpoint = await read(connection, unique_id)
    if len(endpoint.secrets) > 1 and not drop_previous:
        raise WebhookError(
            "The secret was rotated in the last 24 hours, and the one before is still valid. If the receiver no longer "
            "uses that one, add --drop-previous."
        )
    secret = new_secret()
    kept = {
        "previous_secret": endpoint.secrets[0],
        "previous_secret_until": func.statement_timestamp() + ROTATION_PERIOD,
    }
    await _update(connection, unique_id, {"secret": secret, **kept})
    return secret


async def remove(connection: Connection, unique_id: str) -> None:
    """Remove an endpoint.

    Raises:
        WebhookError: there is no endpoint with this id.
    """
    await read(connection, unique_id)
    await connection.execute(delete(webhooks).where(_is_endpoint(unique_id)))
