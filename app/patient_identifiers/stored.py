"""The identifiers that are stored: whether a patient can get others."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ARRAY, bindparam, text
from sqlalchemy.dialects.postgresql import JSONB

from app.db.base import ID_TEXT
from app.db.connection import Connection
from app.patient_identifiers.resolving import Key

_SELECT_TAKEN = text(
    """
    SELECT given.type, given.country, given.value, coalesce(given.hospital_id, '')
    FROM patient_identifier_rows(:own_id, :identifiers) AS given
    JOIN patient_identifiers AS held USING (value, type, country, scope)
    WHERE held.patient_id <> :own_id
    """
).bindparams(bindparam("own_id", type_=ID_TEXT), bindparam("identifiers", type_=JSONB))
_SELECT_HOSPITALS = text("SELECT unique_id FROM hospitals WHERE unique_id = ANY (:ids)").bindparams(
    bindparam("ids", type_=ARRAY(ID_TEXT))
)


async def taken_keys(connection: Connection, own_id: str, identifiers: Sequence[Mapping[str, Any]]) -> set[Key]:
    """Return the keys of those identifiers that a patient other than `own_id` has and that only one patient can have.

    The patients may be outside the principal's hospital scope. `own_id` is empty for a patient that is created.
    """
    if not identifiers:
        return set()
    parameters = {"own_id": own_id, "identifiers": identifiers}
    return {Key(*record) for record in (await connection.execute(_SELECT_TAKEN, parameters)).records}


async def known_hospitals(connection: Connection, identifiers: Sequence[Mapping[str, Any]]) -> set[str]:
    """Return the ids of those hospitals in the identifiers that exist."""
    ids = sorted({each["hospital_id"] for each in identifiers if "hospital_id" in each})
    if not ids:
        return set()
    return {hospital_id for (hospital_id,) in (await connection.execute(_SELECT_HOSPITALS, {"ids": ids})).records}
