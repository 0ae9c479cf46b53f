"""Background tasks that each process of the service runs at startup and then once an hour."""

import asyncio

from app.audit.retention import add_months
from app.db.database import Database
from app.records.idempotency import delete_expired_keys

BACKGROUND_TASK_INTERVAL_SECONDS = 3600
BACKGROUND_TASKS = (delete_expired_keys, add_months)
"""The background tasks. Each task logs its own failures. The next run does what a failed run left undone."""


async def run_background_tasks(database: Database) -> None:
    """Run all background tasks once, one after the other."""
    for task in BACKGROUND_TASKS:
        await task(database)


async def run_background_tasks_periodically(database: Database) -> None:
    """Run all background tasks every `BACKGROUND_TASK_INTERVAL_SECONDS`, until this coroutine is cancelled.

    The first run starts after one interval.
    """
    while True:
        await asyncio.sleep(BACKGROUND_TASK_INTERVAL_SECONDS)
        await run_background_tasks(database)
