"""`patients-api duplicates scan`: find the patients that may be registered twice."""

import argparse

from app.cli.database import DATABASE_ERRORS, run_on_database
from app.counts import counted
from app.matching.scan import SCAN_POOL_SIZE, scan
from app.terminal.progress import progress_bar

USER_ERRORS = DATABASE_ERRORS


def run(_: argparse.Namespace) -> int:
    """Compare all patients with each other, print how many were compared, and return 0."""
    with progress_bar() as display:
        task = display.add_task("duplicates", total=None, records=0)

        def report_progress(compared: int) -> None:
            display.update(task, completed=compared, records=compared)

        compared = run_on_database(lambda database: scan(database, report_progress), pool_size=SCAN_POOL_SIZE)
    print(f"Compared {counted(compared, 'patient')}. `GET /patients/duplicates/` lists the pairs found.")
    return 0
