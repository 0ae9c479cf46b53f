"""`patients-api erase`: remove a person's data everywhere, for good."""

import argparse
import sys
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from app.auth.principal import Principal
from app.cli.database import OUT_OF_REACH, on_database
from app.cli.wording import noun
from app.db.session import Database
from app.errors import ConflictError, NotFoundError
from app.journal.erasure import renew_statistics
from app.patients.service import PatientService
from app.profiles.service import ProfileService
from app.resource.service import Erased, Former, Service

EXPECTED = (*OUT_OF_REACH, NotFoundError, ConflictError)
SERVICES: dict[str, type[Service[Any, Any]]] = {"patient": PatientService, "profile": ProfileService}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare its options."""
    parser.add_argument("what", choices=SERVICES, help="a patient, or a profile that no patient has")
    parser.add_argument("unique_id", help="whose data to remove; of a deleted record too")
    parser.add_argument("--reason", required=True, help="kept in the journal, so without personal data")
    parser.add_argument(
        "--former-profiles",
        choices=[former.value for former in Former],
        help="of a patient that had other profiles earlier, which no patient has now: whether these go too; "
        "its history tells whose they are",
    )
    parser.add_argument("--yes", action="store_true", help="do not ask")


def run(arguments: argparse.Namespace) -> int:
    """Erase, after asking; 0, or 1 where it was not wanted."""
    if not arguments.yes:
        profile = ", its profile unless other patients have it," if arguments.what == "patient" else ""
        print(f"This removes the {arguments.what}{profile} and all history of it. Nothing can bring it back.")
        if not sys.stdin.isatty():
            print("Nobody is there to confirm: say --yes.", file=sys.stderr)
            return 1
        if input("Type the unique_id once more to confirm: ").strip() != arguments.unique_id:
            print("Nothing was removed.", file=sys.stderr)
            return 1

    former = arguments.former_profiles and Former(arguments.former_profiles)

    async def erase(connection: AsyncConnection) -> Erased:
        service = SERVICES[arguments.what](connection, Principal("erase"))
        return await service.erase(arguments.unique_id, arguments.reason, former)

    async def work(database: Database) -> None:
        _say(await database.transaction(erase))
        await database.transaction(renew_statistics)

    on_database(work)
    print("Backups made before still hold the data: let them expire, or erase again after a restore.")
    return 0


def _say(erased: Erased) -> None:
    """Say what was removed, without an id: it may be an e-mail address."""
    for what, entries in erased.records:
        print(f"Removed the {what} and its history of {entries} {noun(entries, 'version')}.")
    if erased.kept:
        print(f"Kept {erased.kept} {noun(erased.kept, 'profile')} that the patient had earlier.")
