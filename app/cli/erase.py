"""`patients-api erase`: remove a person's data everywhere, for good."""

import argparse
import sys
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from app.auth.principal import Principal
from app.cli.database import OUT_OF_REACH, in_transaction
from app.cli.wording import noun
from app.errors import ConflictError, NotFoundError
from app.patients.service import PatientService
from app.profiles.service import ProfileService
from app.resource.service import Erased, Service

EXPECTED = (*OUT_OF_REACH, NotFoundError, ConflictError)
SERVICES: dict[str, type[Service[Any, Any]]] = {"patient": PatientService, "profile": ProfileService}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare its options."""
    parser.add_argument("what", choices=SERVICES, help="a patient, or a profile that no patient has")
    parser.add_argument("unique_id", help="whose data to remove; of a deleted record too")
    parser.add_argument("--reason", required=True, help="kept in the journal, so without personal data")
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

    async def work(connection: AsyncConnection) -> Erased:
        service = SERVICES[arguments.what](connection, Principal("erase"))
        return await service.erase(arguments.unique_id, arguments.reason)

    erased = in_transaction(work)
    for what, entries in erased.records:
        print(f"Removed the {what} and its history of {entries} {noun(entries, 'version')}.")
    for profile_id in sorted(erased.left):
        print(f"The patient once had the profile {profile_id}, which no patient has now.")
        print(f"If it is the person's: patients-api erase profile {profile_id} --reason …")
    print("Backups made before still hold the data: let them expire, or erase again after a restore.")
    return 0
