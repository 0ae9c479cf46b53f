"""`patients-api journal`: prove that it tells the truth (`verify`), or print a line to keep elsewhere (`head`)."""

import argparse
from typing import NamedTuple

from app.cli.database import DATABASE_ERRORS, run_on_database
from app.cli.text import pluralize
from app.db.database import Database
from app.doctors.service import DoctorService
from app.hospitals.service import HospitalService
from app.patients.service import PatientService
from app.profiles.service import ProfileService
from app.records.chain import (
    ErasureCounts,
    JournalHead,
    MalformedJournalHeadError,
    count_erasures,
    read_journal_head,
    read_journal_head_at,
)
from app.records.verification import VerificationResult, verify_journal

USER_ERRORS = (*DATABASE_ERRORS, MalformedJournalHeadError)
JOURNALED_SERVICES = (PatientService, ProfileService, HospitalService, DoctorService)


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
        print(run_on_database(_read_head))
        return 0
    report = run_on_database(
        lambda database: _verify_journal(database, arguments.head and JournalHead.parse(arguments.head))
    )
    for resource, result in report.results.items():
        records, entries = result.record_count, result.entry_count
        print(
            f"{resource}: {records} {pluralize(records, 'record')}, {entries} {pluralize(entries, 'entry', 'entries')}"
        )
        for unique_id, discrepancy in result.discrepancies:
            print(f"  {unique_id} {discrepancy}")
        if more := result.discrepancy_count - len(result.discrepancies):
            print(f"  … and {more:,} more")
    records, removed, redacted = report.erasures
    print(
        f"erased: {records} {pluralize(records, 'record')}, {removed} {pluralize(removed, 'entry', 'entries')} removed,"
        f" {redacted} redacted"
    )
    has_discrepancies = any(verdict.discrepancy_count for verdict in report.results.values())
    if has_discrepancies:
        print("The journal does not agree with the records or with itself.")
    else:
        print("Every record is what its newest entry says. No entry was changed, added or removed in between.")
    return 1 if _report_head_mismatch(report.head_comparison) or has_discrepancies else 0


class _HeadComparison(NamedTuple):
    expected: JournalHead
    actual: JournalHead
    erased_entries: int
    """Entries, by erasures since."""


class _VerificationReport(NamedTuple):
    results: dict[str, VerificationResult]
    erasures: ErasureCounts
    head_comparison: _HeadComparison | None


async def _read_head(database: Database) -> JournalHead:
    async with database.read() as connection:
        return await read_journal_head(connection)


async def _verify_journal(database: Database, expected_head: JournalHead | None) -> _VerificationReport:
    repositories = [service.repository_class for service in JOURNALED_SERVICES]
    async with database.read() as connection:
        return _VerificationReport(
            {repository.table.name: await verify_journal(connection, repository) for repository in repositories},
            await count_erasures(connection),
            _HeadComparison(expected_head, *await read_journal_head_at(connection, expected_head.time))
            if expected_head
            else None,
        )


def _report_head_mismatch(comparison: _HeadComparison | None) -> bool:
    """Say whether the journal still holds what a line tells, if there is one; whether it does not."""
    if comparison is None:
        return False
    timestamp = comparison.expected.time.isoformat()
    if comparison.actual == comparison.expected:
        erasure_note = (
            f", but for {comparison.erased_entries} removed by erasures since" if comparison.erased_entries else ""
        )
        print(f"The journal holds all {comparison.expected.entry_count} entries of {timestamp}{erasure_note}.")
        return False
    print(
        f"The journal is not that of {timestamp}: it had {comparison.expected.entry_count} entries then, "
        f"and has {comparison.actual.entry_count} of that time now. "
        "Entries of then were removed, added or written anew."
    )
    return True
