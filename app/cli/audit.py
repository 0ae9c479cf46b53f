"""`patients-api audit prune`: remove from the audit what is older than `PATIENTS_AUDIT_DAYS`."""

import argparse

from app.audit.retention import prune
from app.cli.database import OUT_OF_REACH, in_transaction
from app.cli.wording import noun
from app.settings import Settings

EXPECTED = OUT_OF_REACH


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare its options."""
    parser.add_argument("what", choices=["prune"], help="remove what is older than PATIENTS_AUDIT_DAYS")


def run(_: argparse.Namespace) -> int:
    """Remove, and say how much; 0."""
    days = Settings.load().audit_days
    removed = in_transaction(lambda connection: prune(connection, days))
    print(f"Removed {removed} {noun(removed, 'entry', 'entries')} of more than {days} days ago.")
    return 0
