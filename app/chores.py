"""What each process of the service does when it starts, and once an hour."""

import asyncio

from app.audit.retention import add_months
from app.db.session import Database
from app.resource.idempotency import prune

PERIOD_SECONDS = 3600
CHORES = (prune, add_months)
"""Each logs what it could not do, and does it the next time."""


async def do_chores(database: Database) -> None:
    """Do all that is to be done."""
    for chore in CHORES:
        await chore(database)


async def keep_chores_done(database: Database) -> None:
    """Do all of it from time to time, until cancelled."""
    while True:
        await asyncio.sleep(PERIOD_SECONDS)
        await do_chores(database)
