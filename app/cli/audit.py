"""`patients-api audit prune`: remove each month of the audit in which all rows are older than `PATIENTS_AUDIT_DAYS`."""

import argparse

from app.audit.retention import drop_expired_months
from app.cli.database import DATABASE_ERRORS, run_in_transaction
from app.counts import counted
from app.db.errors import LockNotAvailableError
from app.db.schema_version import LockTimeoutError
from app.settings import Settings

USER_ERRORS = (*DATABASE_ERRORS, LockTimeoutError)


def run(_: argparse.Namespace) -> int:
    """Remove the expired months of the audit, print how many months and about how many entries they had, and return 0.

    Raises:
        LockTimeoutError: other transactions used the audit for too long, so that it could not be locked.
    """
    days = Settings.load().audit_days
    try:
        months, rows = run_in_transaction(lambda connection: drop_expired_months(connection, days))
    except LockNotAvailableError:
        raise LockTimeoutError(
            "Nothing was removed: the audit is in use by a long transaction, such as a dump, and waiting for it would "
            "block all reads and writes of the audit. Run this again when the transaction has ended."
        ) from None
    removed = f"{counted(months, 'month')} with about {counted(rows, 'entry', 'entries')}"
    print(f"Removed {removed} older than {days} days.")
    return 0
