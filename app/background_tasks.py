"""What each process of the service does when it starts, and once an hour."""

import asyncio

from app.api.idempotency import delete_expired_keys
from app.audit.retention import add_months
from app.db.database import Database

BACKGROUND_TASK_INTERVAL_SECONDS = 3600
BACKGROUND_TASKS = (delete_expired_keys, add_months)
"""Each logs what it could not do, and does it the next time."""


async def run_background_tasks(database: Database) -> None:
    """Do all that is to be done."""
    for task in BACKGROUND_TASKS:
        await task(database)


async def run_background_tasks_periodically(database: Database) -> None:
    """Do all of it from time to time, until cancelled."""
    while True:
        await asyncio.sleep(BACKGROUND_TASK_INTERVAL_SECONDS)
        await run_background_tasks(database)
