"""`patients-api access-report`: print who has read or changed a patient's record, as an HTML page."""

import argparse

from app.audit.disclosures import iter_disclosures
from app.audit.recorder import command_row, insert_audit_row
from app.audit.report import render_report
from app.audit.schemas import AccessEntry
from app.auth.principal import Principal
from app.cli.database import DATABASE_ERRORS, run_in_transaction
from app.db.connection import Connection
from app.errors import NotFoundError
from app.patients.service import PatientService
from app.settings import Settings

USER_ERRORS = (*DATABASE_ERRORS, NotFoundError)


def run(arguments: argparse.Namespace) -> int:
    """Record in the audit that the report is read, print the report as an HTML document, and return 0."""
    settings = Settings.load()
    unique_id: str = arguments.unique_id

    async def work(connection: Connection) -> list[AccessEntry]:
        principal = Principal("access-report")
        patients = PatientService(connection, principal)
        await patients.history.newest_version(unique_id)  # raises NotFoundError if no patient ever had this id
        await insert_audit_row(connection, command_row(principal, patients.repository.table.name, [unique_id]))
        return [access async for access in iter_disclosures(connection, unique_id)]

    entries = run_in_transaction(work)
    # `serve` turns authentication off for such settings, and with it the audit of reads
    is_off_by_default = settings.audit_reads is None and settings.database_url is None and settings.is_local_only
    reads_audited = settings.reads_audited and not is_off_by_default
    print(render_report(unique_id, entries, settings.audit_days, reads_audited=reads_audited))
    return 0
