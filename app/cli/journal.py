"""`patients-api journal`: prove that it tells the truth (`verify`), or print a line to keep elsewhere (`head`)."""

import argparse
from typing import NamedTuple

from app.cli.database import OUT_OF_REACH, on_database
from app.cli.wording import noun
from app.db.session import Database
from app.doctors.service import DoctorService
from app.hospitals.service import HospitalService
from app.journal.chain import Erasures, Head, MalformedHeadError, erasures, head, head_at
from app.journal.verification import Verdict, verify
from app.patients.service import PatientService
from app.profiles.service import ProfileService

EXPECTED = (*OUT_OF_REACH, MalformedHeadError)
SERVICES = (PatientService, ProfileService, HospitalService, DoctorService)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare its options."""
    parser.add_argument(
        "what",
        choices=["verify", "head"],
        help="verify: prove that each record is what its newest entry says, and that no entry was changed, added or "
        "removed; head: print a line that tells what the journal holds, to keep where nobody can change it",
    )
    parser.add_argument("--head", metavar="LINE", help="verify that the journal still holds what this line tells")


def run(arguments: argparse.Namespace) -> int:
    """Print the line; or for each resource one, and what is wrong: 0 if all is well, else 1."""
    if arguments.what == "head":
        print(on_database(_head))
        return 0
    findings = on_database(lambda database: _verify(database, arguments.head and Head.read(arguments.head)))
    for resource, verdict in findings.verdicts.items():
        records, entries = verdict.records, verdict.entries
        print(f"{resource}: {records} {noun(records, 'record')}, {entries} {noun(entries, 'entry', 'entries')}")
        for unique_id, what in verdict.flaws:
            print(f"  {unique_id} {what}")
        if more := verdict.flawed - len(verdict.flaws):
            print(f"  … and {more:,} more")
    records, removed, redacted = findings.erasures
    print(
        f"erased: {records} {noun(records, 'record')}, {removed} {noun(removed, 'entry', 'entries')} removed,"
        f" {redacted} redacted"
    )
    flawed = any(verdict.flawed for verdict in findings.verdicts.values())
    if flawed:
        print("The journal does not agree with the records or with itself.")
    else:
        print("Every record is what its newest entry says. No entry was changed, added or removed in between.")
    return 1 if _compare(findings.then) or flawed else 0


class _Then(NamedTuple):
    told: Head
    found: Head
    removed: int
    """Entries, by erasures since."""


class _Findings(NamedTuple):
    verdicts: dict[str, Verdict]
    erasures: Erasures
    then: _Then | None


async def _head(database: Database) -> Head:
    async with database.read() as connection:
        return await head(connection)


async def _verify(database: Database, told: Head | None) -> _Findings:
    repositories = [service.repository_class for service in SERVICES]
    async with database.read() as connection:
        return _Findings(
            {repository.table.name: await verify(connection, repository) for repository in repositories},
            await erasures(connection),
            _Then(told, *await head_at(connection, told.time)) if told else None,
        )


def _compare(then: _Then | None) -> bool:
    """Say whether the journal still holds what a line tells, if there is one; whether it does not."""
    if then is None:
        return False
    moment = then.told.time.isoformat()
    if then.found == then.told:
        gone = f", but for {then.removed} removed by erasures since" if then.removed else ""
        print(f"The journal holds all {then.told.entries} entries of {moment}{gone}.")
        return False
    print(
        f"The journal is not that of {moment}: it had {then.told.entries} entries then, and has {then.found.entries}"
        " of that time now. Entries of then were removed, added or written anew."
    )
    return True
