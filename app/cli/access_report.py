"""`patients-api access-report`: who has seen or changed a patient's record, as a page for printing."""

import argparse

from sqlalchemy.ext.asyncio import AsyncConnection

from app.audit import trail
from app.audit.accesses import every
from app.audit.report import page
from app.audit.schemas import AccessEntry
from app.auth.principal import Principal
from app.cli.database import OUT_OF_REACH, in_transaction
from app.errors import NotFoundError
from app.patients.service import PatientService
from app.settings import Settings

EXPECTED = (*OUT_OF_REACH, NotFoundError)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare its options."""
    parser.add_argument("unique_id", help="whose record; of a deleted one too")


def run(arguments: argparse.Namespace) -> int:
    """Print an HTML document; 0."""
    settings = Settings.load()
    unique_id: str = arguments.unique_id

    async def work(connection: AsyncConnection) -> list[AccessEntry]:
        principal = Principal("access-report")
        patients = PatientService(connection, principal)
        await patients.journal.newest_version(unique_id)  # is there such a patient at all?
        await trail.write(connection, trail.command_row(principal, patients.repository.table.name, [unique_id]))
        return [access async for access in every(connection, unique_id)]

    entries = in_transaction(work)
    print(page(unique_id, entries, settings.audit_days))
    return 0
