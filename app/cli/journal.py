"""`patients-api journal verify`: prove that each record is what its newest entry in the journal says."""

import argparse

from sqlalchemy.ext.asyncio import AsyncConnection

from app.cli.database import OUT_OF_REACH, in_transaction
from app.cli.wording import noun
from app.doctors.service import DoctorService
from app.hospitals.service import HospitalService
from app.journal.verification import Verdict, verify
from app.patients.service import PatientService
from app.profiles.service import ProfileService

EXPECTED = OUT_OF_REACH
SERVICES = (PatientService, ProfileService, HospitalService, DoctorService)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare its options."""
    parser.add_argument("what", choices=["verify"], help="prove that each record is what its newest entry says")


def run(_: argparse.Namespace) -> int:
    """Print a line for each resource; 0 if all is well, else 1."""
    verdicts = in_transaction(_verify)
    for resource, verdict in verdicts.items():
        records, entries = noun(verdict.records, "record"), noun(verdict.entries, "entry", "entries")
        print(f"{resource}: {verdict.records} {records}, {verdict.entries} {entries}")
        for unique_id, what in verdict.flaws:
            print(f"  {unique_id} {what}")
        if more := verdict.flawed - len(verdict.flaws):
            print(f"  … and {more:,} more")
    flawed = any(verdict.flawed for verdict in verdicts.values())
    print("The journal does not agree with the records." if flawed else "Every record is what its newest entry says.")
    return 1 if flawed else 0


async def _verify(connection: AsyncConnection) -> dict[str, Verdict]:
    repositories = [service.repository_class for service in SERVICES]
    return {repository.table.name: await verify(connection, repository) for repository in repositories}
