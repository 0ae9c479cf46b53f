"""`patients-api erase`: permanently remove a person's data everywhere."""

import argparse
import sys
from typing import Any

from app.auth.principal import Principal
from app.cli.database import DATABASE_ERRORS, run_in_transaction, run_on_database
from app.counts import counted
from app.db.connection import Connection
from app.db.database import Database
from app.errors import ConflictError, NotFoundError
from app.patients.service import PatientService
from app.profiles.service import ProfileService
from app.records.erasure import renew_statistics
from app.records.service import ErasureResult, FormerProfilePolicy, Service

USER_ERRORS = (*DATABASE_ERRORS, NotFoundError, ConflictError)
ERASABLE_SERVICES: dict[str, type[Service[Any, Any]]] = {"patient": PatientService, "profile": ProfileService}


def run(arguments: argparse.Namespace) -> int:
    """Ask for confirmation, and erase the record. Return 0, or 1 if the erasure was not confirmed.

    Raises:
        NotFoundError: there never was a record with this id.
    """

    async def look(connection: Connection) -> None:
        service = ERASABLE_SERVICES[arguments.what](connection, Principal("erase"))
        if await service.history.latest_snapshot(arguments.unique_id) is None:
            raise NotFoundError(arguments.what)

    if not arguments.yes:
        run_in_transaction(look)  # before the question, so that nobody confirms a mistyped id
        profile_clause = ", its profile unless other patients have it," if arguments.what == "patient" else ""
        print(f"This removes the {arguments.what}{profile_clause} and its entire history. This cannot be undone.")
        if not sys.stdin.isatty():
            print("There is no terminal to confirm this on: pass --yes.", file=sys.stderr)
            return 1
        if input("Type the unique_id again to confirm: ").strip() != arguments.unique_id:
            print("Nothing was removed.", file=sys.stderr)
            return 1

    former_profiles = arguments.former_profiles and FormerProfilePolicy(arguments.former_profiles)

    async def erase(connection: Connection) -> ErasureResult:
        service = ERASABLE_SERVICES[arguments.what](connection, Principal("erase"))
        return await service.erase(arguments.unique_id, arguments.reason, former_profiles)

    async def work(database: Database) -> None:
        _print_result(await database.transaction(erase))
        await database.transaction(renew_statistics)

    run_on_database(work)
    print("Earlier backups still contain the data: let them expire, or erase the data again after a restore.")
    return 0


def _print_result(result: ErasureResult) -> None:
    """Print what was removed, but no ids, because an id may be an e-mail address."""
    for kind, entry_count in result.records:
        print(f"Removed the {kind} and its history of {counted(entry_count, 'version')}.")
    if result.kept_former_profiles:
        print(f"Kept {counted(result.kept_former_profiles, 'profile')} that the patient had earlier.")
