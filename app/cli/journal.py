"""`patients-api journal`: verify the records and the journal (`verify`), or print the journal head (`head`)."""

import argparse
from typing import NamedTuple

from app.cli.database import DATABASE_ERRORS, run_on_database
from app.counts import counted
from app.db.database import Database
from app.doctors.service import DoctorService
from app.hospitals.service import HospitalService
from app.journal.chain import (
    ErasureCounts,
    JournalHead,
    MalformedJournalHeadError,
    count_erasures,
    read_journal_head,
    read_journal_head_at,
)
from app.journal.verification import VerificationResult, verify_journal
from app.patients.service import PatientService
from app.profiles.service import ProfileService

USER_ERRORS = (*DATABASE_ERRORS, MalformedJournalHeadError)
JOURNALED_SERVICES = (PatientService, ProfileService, HospitalService, DoctorService)


def run(arguments: argparse.Namespace) -> int:
    """Run the action `head` or `verify`.

    `head` prints the journal head and returns 0. `verify` prints the result of the verification, and returns 0, or 1 if
    the verification failed.
    """
    if arguments.what == "head":
        print(run_on_database(_read_head))
        return 0
    head = arguments.head and JournalHead.parse(arguments.head)
    return 0 if print_report(run_on_database(lambda database: verify(database, head))) else 1


def print_report(report: "VerificationReport") -> bool:
    """Print the result of a verification, and return whether it succeeded."""
    for resource, result in report.results.items():
        records, entries = result.record_count, result.entry_count
        print(f"{resource}: {counted(records, 'record')}, {counted(entries, 'entry', 'entries')}")
        for unique_id, discrepancy in result.discrepancies:
            print(f"  {unique_id} {discrepancy}")
        if more := result.discrepancy_count - len(result.discrepancies):
            print(f"  … and {more:,} more")
    records, removed, redacted = report.erasures
    print(f"erased: {counted(records, 'record')}, {counted(removed, 'entry', 'entries')} removed, {redacted} redacted")
    has_discrepancies = any(result.discrepancy_count for result in report.results.values())
    if has_discrepancies:
        print("The journal does not match the records, or is inconsistent.")
    else:
        print("Every record matches its newest entry. No entry was changed, added or removed in between.")
    return not (_report_head_mismatch(report.head_comparison) or has_discrepancies)


class _HeadComparison(NamedTuple):
    expected: JournalHead
    actual: JournalHead
    erased_entries: int
    """Number of entries that the journal contained at `expected.time` and that erasures have removed since then."""


class VerificationReport(NamedTuple):
    """The result of a verification of the journal of all resources."""

    results: dict[str, VerificationResult]
    erasures: ErasureCounts
    head_comparison: _HeadComparison | None


async def _read_head(database: Database) -> JournalHead:
    async with database.read() as connection:
        return await read_journal_head(connection)


async def verify(database: Database, expected_head: JournalHead | None = None) -> VerificationReport:
    """Verify the journal of all resources, and compare it with `expected_head` if that is given."""
    repositories = [service.repository_class for service in JOURNALED_SERVICES]
    async with database.read() as connection:
        return VerificationReport(
            {repository.table.name: await verify_journal(connection, repository) for repository in repositories},
            await count_erasures(connection),
            _HeadComparison(expected_head, *await read_journal_head_at(connection, expected_head.time))
            if expected_head
            else None,
        )


def _report_head_mismatch(comparison: _HeadComparison | None) -> bool:
    """Print whether the journal still matches the expected head, and return True if it does not.

    If no head is expected (`comparison` is None), print nothing and return False.
    """
    if comparison is None:
        return False
    timestamp = comparison.expected.time.isoformat()
    if comparison.actual == comparison.expected:
        erasure_note = (
            f", except {comparison.erased_entries} removed by erasures since" if comparison.erased_entries else ""
        )
        print(f"The journal contains all {comparison.expected.entry_count} entries up to {timestamp}{erasure_note}.")
        return False
    print(
        f"The journal does not match the head of {timestamp}: it had {comparison.expected.entry_count} entries then, "
        f"and now has {comparison.actual.entry_count} entries up to that time. "
        "Entries up to that time were removed, added or rewritten."
    )
    return True
