"""`patients-api webhooks`: manage the endpoints to which the service sends changes."""

import argparse
import asyncio
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from app.changes.cursors import open_position
from app.changes.numbering import FeedPosition, FeedState, Numbering
from app.changes.reading import ChangeFeed, FeedQuery
from app.changes.retention import MAX_BATCHES_PER_RUN
from app.cli.database import DATABASE_ERRORS, run_in_transaction, run_on_database
from app.cli.keys import UnknownHospitalError, check_hospitals
from app.db.connection import Connection
from app.db.database import Database
from app.errors import FeedExpiredError, ValidationFailedError
from app.listing.cursors import Cursors
from app.webhooks import registry
from app.webhooks.messages import format_secret, test_message

USER_ERRORS = (*DATABASE_ERRORS, registry.WebhookError, UnknownHospitalError)
ROW_FORMAT = "{:<32}{:<9}{:<9}{:<14}{}"


def run(arguments: argparse.Namespace) -> int:
    """Carry out an action. Return 0, or 1 if an endpoint did not accept a test message."""
    return _ACTIONS[arguments.action](arguments)


def _add(arguments: argparse.Namespace) -> int:
    registry.check_url(arguments.url, allow_http=arguments.allow_http)
    registry.check_events(arguments.events, restricted=arguments.hospital is not None)

    async def work(database: Database) -> tuple[str, bytes]:
        position = (await _number_all(database)).newest

        async def add(connection: Connection) -> tuple[str, bytes]:
            await check_hospitals(connection, arguments.hospital or (), "so no webhook was added")
            return await registry.add(connection, arguments.url, arguments.events, arguments.hospital, position)

        return await database.transaction(add)

    unique_id, secret = run_on_database(work)
    print(f"id: {unique_id}\nsecret: {format_secret(secret)}")
    return 0


def _list(arguments: argparse.Namespace) -> int:
    async def work(database: Database) -> list[dict[str, Any]]:
        await _number_all(database)  # only numbered changes count, and readers may number none for long
        return await database.transaction(registry.list_endpoints)

    endpoints = run_on_database(work)
    if arguments.json:
        print(json.dumps(endpoints, default=datetime.isoformat, indent=2))
        return 0
    print(ROW_FORMAT.format("id", "state", "behind", "last error", "events, URL"))
    for endpoint in endpoints:
        scope = [] if endpoint["hospitals"] is None else [f"hospitals: {' '.join(endpoint['hospitals'])}"]
        notes = ", ".join([" ".join(endpoint["events"]), *scope, endpoint["url"]])
        state, behind, error = endpoint["state"], f"{endpoint['behind']:,}", endpoint["last_error"] or "-"
        print(ROW_FORMAT.format(endpoint["unique_id"], state, behind, error, notes))
    return 0


def _pause(arguments: argparse.Namespace) -> int:
    run_on_database(lambda database: registry.pause(database, arguments.id))
    print("Paused. The webhook keeps its position.")
    return 0


def _resume(arguments: argparse.Namespace) -> int:
    run_in_transaction(lambda connection: registry.resume(connection, arguments.id))
    print("Resumed.")
    return 0


def _replay(arguments: argparse.Namespace) -> int:
    async def work(database: Database) -> None:
        async with database.read() as connection:
            query = FeedQuery((await registry.read(connection, arguments.id)).hospitals)
        if arguments.after == "now":
            position = (await _number_all(database)).newest
        else:
            position = await _open_cursor(database, arguments.after, query)
        await registry.pause(database, arguments.id)  # so that what is being delivered does not change the position
        await database.transaction(lambda connection: registry.resume(connection, arguments.id, position))

    run_on_database(work)
    print("Replaying.")
    return 0


async def _number_all(database: Database) -> FeedState:
    """Number the changes that no reader has numbered yet, and return the state of the feed after that."""
    return await Numbering(database).refresh(MAX_BATCHES_PER_RUN)


async def _open_cursor(database: Database, cursor: str, query: FeedQuery) -> FeedPosition:
    try:
        position = await open_position(Cursors(database), cursor, query)
        await ChangeFeed(database).page("webhooks", query, position, 1)
    except ValidationFailedError:
        raise registry.WebhookError("This is not a cursor of the change feed.") from None
    except FeedExpiredError:
        raise registry.WebhookError(
            "The changes after this cursor are no longer known, or the webhook has other hospitals than the cursor."
        ) from None
    return position


def _rotate(arguments: argparse.Namespace) -> int:
    secret = run_in_transaction(
        lambda connection: registry.rotate(connection, arguments.id, drop_previous=arguments.drop_previous)
    )
    print(f"secret: {format_secret(secret)}")
    return 0


def _test(arguments: argparse.Namespace) -> int:
    from app.webhooks import sending  # noqa: PLC0415  # other actions do without the HTTP client

    endpoint = run_in_transaction(lambda connection: registry.read(connection, arguments.id))

    async def send() -> sending.Outcome:
        async with sending.create_client() as client:
            message = test_message(datetime.now(UTC).isoformat().replace("+00:00", "Z"))
            return await sending.send(client, endpoint.url, message, endpoint.secrets)

    outcome = asyncio.run(send())
    print(f"Failed: {outcome.error}" if outcome.error else "Delivered.")
    return 1 if outcome.error else 0


def _remove(arguments: argparse.Namespace) -> int:
    run_in_transaction(lambda connection: registry.remove(connection, arguments.id))
    print("Removed.")
    return 0


_ACTIONS: Mapping[str, Callable[[argparse.Namespace], int]] = {
    "add": _add,
    "list": _list,
    "pause": _pause,
    "resume": _resume,
    "replay": _replay,
    "rotate": _rotate,
    "test": _test,
    "remove": _remove,
}
