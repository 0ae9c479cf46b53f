"""`patients-api audit prune`: remove from the audit the months that are older than `PATIENTS_AUDIT_DAYS`."""

import argparse

from app.audit.retention import drop_expired_months
from app.cli.database import DATABASE_ERRORS, run_in_transaction
from app.cli.text import pluralize
from app.db.database import LockNotAvailableError
from app.db.schema_version import LockTimeoutError
from app.settings import Settings

USER_ERRORS = (*DATABASE_ERRORS, LockTimeoutError)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare its options."""
    parser.add_argument("what", choices=["prune"], help="remove the months that are older than PATIENTS_AUDIT_DAYS")


def run(_: argparse.Namespace) -> int:
    """Remove, and say how much; 0.

    Raises:
        LockTimeoutError: others have used the audit for too long.
    """
    days = Settings.load().audit_days
    try:
        months, rows = run_in_transaction(lambda connection: drop_expired_months(connection, days))
    except LockNotAvailableError:
        raise LockTimeoutError(
            "Nothing was removed: the audit is in use by a long transaction, such as a dump, and whoever comes to look "
            "or to write would have to wait. Run this again when that has ended."
        ) from None
    removed = f"{months} {pluralize(months, 'month', 'months')} with {rows:,} {pluralize(rows, 'entry', 'entries')}"
    print(f"Removed {removed} of more than {days} days ago.")
    return 0
