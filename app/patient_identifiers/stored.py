"""The identifiers that are stored: whether a patient can get others, and what contradicts them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date
from typing import Any

from sqlalchemy import ARRAY, bindparam, literal_column, text
from sqlalchemy.dialects.postgresql import JSON, JSONB

from app.db.base import ID_TEXT
from app.db.connection import Connection
from app.patient_identifiers.checkers import disagreements
from app.patient_identifiers.resolving import IDENTIFIERS, IdentifierKey

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

DESCRIBED_FIELDS = ("patient_date_of_birth", "patient_gender")
"""The fields of a patient that its identifiers may contradict."""
CHECKED_IDENTIFIERS = literal_column(
    f"""
    (
        SELECT json_agg(json_build_array(ordinal - 1, checker, each ->> 'normalized', {", ".join(DESCRIBED_FIELDS)}))
        FROM page CROSS JOIN LATERAL jsonb_array_elements({IDENTIFIERS}) WITH ORDINALITY AS elements(each, ordinal)
        JOIN identifier_types ON name = each ->> 'type'
        WHERE page.unique_id = given.unique_id AND checker IS NOT NULL
            AND sent && ARRAY['{"', '".join(DESCRIBED_FIELDS)}']
    )
    """,  # noqa: S608  # contains only our own constants
    JSON,
).label("checked_identifiers")
"""Column of a statement that updates patients (`update_alone`): what `stored_warnings` compares.

It is null unless the request sends one of the `DESCRIBED_FIELDS` of a patient with identifiers.
"""


def stored_warnings(checked: Iterable[Sequence[Any]] | None) -> list[str]:
    """Return the warnings for the values of `CHECKED_IDENTIFIERS`."""
    return [
        warning
        for index, checker, value, born, gender in checked or ()
        for warning in identifier_warnings(index, checker, value, born and date.fromisoformat(born), gender)
    ]


def identifier_warnings(
    index: int, checker: str | None, value: str, date_of_birth: date | None, gender: str | None
) -> Iterator[str]:
    """Yield a warning for each field of a patient that its identifier at this index contradicts. It has no values."""
    for field in disagreements(checker, value, date_of_birth, gender):
        yield f"{IDENTIFIERS}.{index}.value disagrees with {field}"


async def taken_keys(
    connection: Connection, own_id: str, identifiers: Sequence[Mapping[str, Any]]
) -> set[IdentifierKey]:
    """Return the keys of those identifiers that a patient other than `own_id` has and that only one patient can have.

    The patients may be outside the principal's hospital scope. `own_id` is empty for a patient that is created.
    """
    if not identifiers:
        return set()
    parameters = {"own_id": own_id, "identifiers": identifiers}
    return {IdentifierKey(*record) for record in (await connection.execute(_SELECT_TAKEN, parameters)).records}


async def select_existing_hospitals(connection: Connection, identifiers: Sequence[Mapping[str, Any]]) -> set[str]:
    """Return the ids of those hospitals in the identifiers that exist."""
    ids = sorted({each["hospital_id"] for each in identifiers if "hospital_id" in each})
    if not ids:
        return set()
    return {hospital_id for (hospital_id,) in (await connection.execute(_SELECT_HOSPITALS, {"ids": ids})).records}
