"""The identifiers that are stored: who has them, and whether a patient can get others."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import ARRAY, Integer, TextClause, bindparam, text
from sqlalchemy.dialects.postgresql import JSONB

from app.db.base import ID_TEXT
from app.db.connection import Connection
from app.patient_identifiers.checkers import normalize
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
_IN_SCOPE = """
    AND EXISTS (
        SELECT FROM patient_hospitals
        WHERE patient_hospitals.patient_id = held.patient_id AND patient_hospitals.hospital_id = ANY (:hospitals)
    )
"""


def _patient_ids_statement(*, restricted: bool) -> TextClause:
    statement = text(
        f"""
        SELECT DISTINCT held.patient_id FROM patient_identifiers AS held
        WHERE held.value = :value AND held.type = coalesce(:type, held.type)
            AND held.country = coalesce(:country, held.country)
            AND coalesce(held.hospital_id, '') = coalesce(:hospital_id, held.hospital_id, '')
            {_IN_SCOPE if restricted else ""}
        ORDER BY held.patient_id LIMIT :most
        """  # noqa: S608  # contains only our own constants
    ).bindparams(
        bindparam("most", type_=Integer),
        *(bindparam(name, type_=ID_TEXT) for name in ("value", "type", "country", "hospital_id")),
    )
    return statement.bindparams(bindparam("hospitals", type_=ARRAY(ID_TEXT))) if restricted else statement


_SELECT_PATIENT_IDS = {restricted: _patient_ids_statement(restricted=restricted) for restricted in (False, True)}


class IdentifierQuery(NamedTuple):
    """An identifier to look for. What is None does not matter, and neither do case, spaces and punctuation."""

    value: str
    type: str | None = None
    country: str | None = None
    hospital_id: str | None = None


async def taken_keys(connection: Connection, own_id: str, identifiers: Sequence[Mapping[str, Any]]) -> set[Key]:
    """Return the keys of those identifiers that a patient other than `own_id` has and that only one patient can have.

    The patients may be outside the principal's hospital scope. `own_id` is empty for a patient that is created.
    """
    if not identifiers:
        return set()
    parameters = {"own_id": own_id, "identifiers": identifiers}
    return {Key(*record) for record in (await connection.execute(_SELECT_TAKEN, parameters)).records}


async def known_hospitals(connection: Connection, identifiers: Sequence[Mapping[str, Any]]) -> set[str]:
    """Return the ids of the hospitals of these identifiers that exist."""
    ids = sorted({each["hospital_id"] for each in identifiers if "hospital_id" in each})
    if not ids:
        return set()
    return {hospital_id for (hospital_id,) in (await connection.execute(_SELECT_HOSPITALS, {"ids": ids})).records}


async def patient_ids(
    connection: Connection, query: IdentifierQuery, hospitals: Collection[str] | None, most: int = 2
) -> list[str]:
    """Return the ids of the patients that have an identifier, in their order, at most `most`.

    Only patients in the hospital scope `hospitals` are found; None means an unrestricted principal.
    """
    parameters = {**query._asdict(), "value": normalize(query.value), "most": most}
    if hospitals is not None:
        parameters["hospitals"] = sorted(hospitals)
    records = (await connection.execute(_SELECT_PATIENT_IDS[hospitals is not None], parameters)).records
    return [unique_id for (unique_id,) in records]
