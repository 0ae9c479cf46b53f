"""`patients-api audit prune`: remove from the audit the months that are older than `PATIENTS_AUDIT_DAYS`."""

import argparse

from app.audit.retention import prune
from app.cli.database import OUT_OF_REACH, in_transaction
from app.cli.wording import noun
from app.db.schema import LockTimeoutError
from app.db.session import InTheWayError
from app.settings import Settings

EXPECTED = (*OUT_OF_REACH, LockTimeoutError)


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
        months, rows = in_transaction(lambda connection: prune(connection, days))
    except InTheWayError:
        raise LockTimeoutError(
            "Nothing was removed: the audit is in use by a long transaction, such as a dump, and whoever comes to look "
            "or to write would have to wait. Run this again when that has ended."
        ) from None
    what = f"{months} {noun(months, 'month', 'months')} with {rows:,} {noun(rows, 'entry', 'entries')}"
    print(f"Removed {what} of more than {days} days ago.")
    return 0
