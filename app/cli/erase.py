"""`patients-api erase`: remove a person's data everywhere, for good."""

import argparse
import sys
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from app.auth.principal import Principal
from app.cli.database import DATABASE_ERRORS, run_on_database
from app.cli.text import pluralize
from app.db.database import Database
from app.errors import ConflictError, NotFoundError
from app.patients.service import PatientService
from app.profiles.service import ProfileService
from app.records.erasure import renew_statistics
from app.records.service import ErasureResult, FormerProfilePolicy, Service

USER_ERRORS = (*DATABASE_ERRORS, NotFoundError, ConflictError)
ERASABLE_SERVICES: dict[str, type[Service[Any, Any]]] = {"patient": PatientService, "profile": ProfileService}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare its options."""
    parser.add_argument("what", choices=ERASABLE_SERVICES, help="a patient, or a profile that no patient has")
    parser.add_argument("unique_id", help="whose data to remove; of a deleted record too")
    parser.add_argument("--reason", required=True, help="kept in the journal, so without personal data")
    parser.add_argument(
        "--former-profiles",
        choices=[former.value for former in FormerProfilePolicy],
        help="of a patient that had other profiles earlier, which no patient has now: whether these go too; "
        "its history tells whose they are",
    )
    parser.add_argument("--yes", action="store_true", help="do not ask")


def run(arguments: argparse.Namespace) -> int:
    """Erase, after asking; 0, or 1 where it was not wanted."""
    if not arguments.yes:
        profile_clause = ", its profile unless other patients have it," if arguments.what == "patient" else ""
        print(f"This removes the {arguments.what}{profile_clause} and all history of it. Nothing can bring it back.")
        if not sys.stdin.isatty():
            print("Nobody is there to confirm: say --yes.", file=sys.stderr)
            return 1
        if input("Type the unique_id once more to confirm: ").strip() != arguments.unique_id:
            print("Nothing was removed.", file=sys.stderr)
            return 1

    former_profiles = arguments.former_profiles and FormerProfilePolicy(arguments.former_profiles)

    async def erase(connection: AsyncConnection) -> ErasureResult:
        service = ERASABLE_SERVICES[arguments.what](connection, Principal("erase"))
        return await service.erase(arguments.unique_id, arguments.reason, former_profiles)

    async def work(database: Database) -> None:
        _print_result(await database.transaction(erase))
        await database.transaction(renew_statistics)

    run_on_database(work)
    print("Backups made before still hold the data: let them expire, or erase again after a restore.")
    return 0


def _print_result(result: ErasureResult) -> None:
    """Say what was removed, without an id: it may be an e-mail address."""
    for kind, entry_count in result.records:
        print(f"Removed the {kind} and its history of {entry_count} {pluralize(entry_count, 'version')}.")
    if result.kept_former_profiles:
        profiles = pluralize(result.kept_former_profiles, "profile")
        print(f"Kept {result.kept_former_profiles} {profiles} that the patient had earlier.")
