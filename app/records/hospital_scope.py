"""The walls between hospitals: what a principal that is limited to hospitals may know of."""

from typing import Any

from sqlalchemy import (
    ARRAY,
    Column,
    ColumnElement,
    Select,
    Text,
    any_,
    bindparam,
    cast,
    exists,
    func,
    literal_column,
    select,
    true,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from app.auth.principal import Principal
from app.db.base import ID_TEXT
from app.models import patient_hospitals

HOSPITALS_PARAMETER = bindparam("hospitals", type_=ARRAY(ID_TEXT))
"""The hospitals that the principal is limited to. Statements on behalf of who is not limited do without."""


def scope_parameters(principal: Principal) -> dict[str, Any]:
    """The parameters of statements on behalf of a principal."""
    return {} if principal.hospitals is None else {"hospitals": sorted(principal.hospitals)}


def is_in_scope(hospital_id: ColumnElement[str]) -> ColumnElement[bool]:
    """Whether a hospital is one of the principal's."""
    return hospital_id == any_(HOSPITALS_PARAMETER)


def patient_in_scope(patient_id: Column[Any]) -> ColumnElement[bool]:
    """Whether a patient is linked to one of the principal's hospitals."""
    link = patient_hospitals.c
    return exists().where(link.patient_id == patient_id, is_in_scope(link.hospital_id))


MAX_ID_LOOKUPS = 2000
"""Patients that are looked up one by one: fewer pages of an index than any other way to them would read."""
_FEW_IDS_PARAMETER = bindparam("few", type_=ARRAY(ID_TEXT))
_SELECT_SCOPED_IDS = (
    select(patient_hospitals.c.patient_id)
    .where(is_in_scope(patient_hospitals.c.hospital_id))
    .distinct()
    .limit(literal_column(str(MAX_ID_LOOKUPS + 1)))
)


def is_in_few_ids(patient_id: ColumnElement[str]) -> ColumnElement[bool]:
    """Whether a patient is one of those that `few_own` has found."""
    return patient_id == any_(_FEW_IDS_PARAMETER)


async def scoped_ids_if_few(connection: AsyncConnection, principal: Principal) -> dict[str, Any] | None:
    """All patients of the principal's hospitals, as parameters of `is_one_of_few`; None where they are many.

    A small hospital's patients would be looked for among all patients otherwise.
    """
    scoped_ids = (await connection.execute(_SELECT_SCOPED_IDS, scope_parameters(principal))).scalars().all()
    return None if len(scoped_ids) > MAX_ID_LOOKUPS else {"few": scoped_ids}


def next_patients_in_scope(after: ColumnElement[str], limit: ColumnElement[int]) -> Select[str]:
    """The ids of the first patients after an id that `has_own` holds of, up to a number.

    So many are taken from each hospital's part of the index, however many patients others have in between: a small
    hospital in a register of a million would wait for all of these otherwise.
    """
    own_hospitals = func.unnest(HOSPITALS_PARAMETER).table_valued("hospital_id", name="own").render_derived()
    link = patient_hospitals.c
    of_hospital = select(link.patient_id).where(
        link.hospital_id == own_hospitals.c.hospital_id, link.patient_id > after
    )
    nearest = of_hospital.order_by(link.patient_id).limit(limit).lateral("nearest")
    ids = select(nearest.c.patient_id).select_from(own_hospitals.join(nearest, true())).distinct()
    return ids.order_by(nearest.c.patient_id).limit(limit)


def record_was_in_scope(record: ColumnElement[Any]) -> ColumnElement[bool]:
    """Whether a patient was linked to one of the principal's hospitals, by the record of a journal entry."""
    overlaps: ColumnElement[bool] = cast(record, JSONB)["hospital_ids"].has_any(cast(HOSPITALS_PARAMETER, ARRAY(Text)))
    return overlaps
