"""Identifiers of staged patients: checks whether they can be stored, and writes rows that triggers would write."""

from collections.abc import AsyncIterator

from sqlalchemy import text

from app.db.connection import Connection
from app.errors import FieldError
from app.patient_identifiers.resolving import IDENTIFIERS
from app.staging.results import RowError, RowStatus

_GIVEN = f"""
    staged_patients CROSS JOIN LATERAL patient_identifier_rows(
        staged_patients.unique_id, staged_patients.patient_identifiers
    ) AS given WHERE staged_patients.patient_identifiers IS NOT NULL AND fate <> '{RowStatus.UNCHANGED}'
"""
_SELECT_ERRORS = text(
    f"""
    WITH given AS MATERIALIZED (SELECT line, hospital_ids, given.* FROM {_GIVEN})
    SELECT line, 'hospital', hospital_id FROM given
    -- those that the line links to are checked as links, and may be created just before the line is written
    WHERE hospital_id IS NOT NULL AND hospital_id <> ALL (coalesce(hospital_ids, '{{}}'))
        AND NOT EXISTS (SELECT FROM hospitals WHERE unique_id = hospital_id)
    UNION
    SELECT line, 'taken', type FROM given JOIN patient_identifiers AS held USING (value, type, country, scope)
    WHERE held.patient_id <> given.patient_id
    UNION
    SELECT later.line, 'taken', type FROM given AS earlier JOIN given AS later USING (value, type, country, scope)
    WHERE earlier.line < later.line
    ORDER BY 1, 2, 3
    """  # noqa: S608  # contains only our own constants
)
_DELETE_ROWS = text(
    f"""
    DELETE FROM patient_identifiers WHERE patient_id IN (
        SELECT unique_id FROM staged_patients WHERE fate = '{RowStatus.UPDATED}'
    )
    """  # noqa: S608  # as above
)
_INSERT_ROWS = text(f"INSERT INTO patient_identifiers SELECT given.* FROM {_GIVEN}")  # noqa: S608  # as above


async def identifier_errors(connection: Connection) -> AsyncIterator[RowError]:
    """Yield the errors of staged patients whose identifiers name unknown hospitals, or belong to other patients."""
    for line, kind, name in (await connection.execute(_SELECT_ERRORS)).records:
        if kind == "hospital":
            message = f"There is no hospital with the unique_id {name}"
            yield RowError(line, FieldError((IDENTIFIERS,), message, "unknown_hospital"))
        else:
            message = f"Is taken: another patient, or one in an earlier line, has this {name}"
            yield RowError(line, FieldError((IDENTIFIERS,), message, "patient_identifier_taken"))


async def index_identifiers(connection: Connection) -> None:
    """Write the rows of the staged patients' identifiers, as triggers do for tables that have triggers."""
    await connection.execute(_DELETE_ROWS)
    await connection.execute(_INSERT_ROWS)
