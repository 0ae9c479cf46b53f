"""The hospital scope: what a principal that is restricted to certain hospitals may know."""

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
"""The hospitals that the principal is restricted to. Statements for unrestricted principals do not have it."""


def scope_parameters(principal: Principal) -> dict[str, Any]:
    """Return the parameters that statements on behalf of a principal need for its hospital scope."""
    return {} if principal.hospitals is None else {"hospitals": sorted(principal.hospitals)}


def is_in_scope(hospital_id: ColumnElement[str]) -> ColumnElement[bool]:
    """Return the condition that a hospital is in the principal's scope."""
    return hospital_id == any_(HOSPITALS_PARAMETER)


def patient_in_scope(patient_id: Column[Any]) -> ColumnElement[bool]:
    """Return the condition that a patient is linked to one of the principal's hospitals."""
    link = patient_hospitals.c
    return exists().where(link.patient_id == patient_id, is_in_scope(link.hospital_id))


MAX_ID_LOOKUPS = 2000
"""Maximum number of patients looked up one by one: any other plan would read more index pages for so few."""
_FEW_IDS_PARAMETER = bindparam("few", type_=ARRAY(ID_TEXT))
_SELECT_SCOPED_IDS = (
    select(patient_hospitals.c.patient_id)
    .where(is_in_scope(patient_hospitals.c.hospital_id))
    .distinct()
    .limit(literal_column(str(MAX_ID_LOOKUPS + 1)))
)


def is_in_few_ids(patient_id: ColumnElement[str]) -> ColumnElement[bool]:
    """Return the condition that a patient is one of those that `scoped_ids_if_few` returned."""
    return patient_id == any_(_FEW_IDS_PARAMETER)


async def scoped_ids_if_few(connection: AsyncConnection, principal: Principal) -> dict[str, Any] | None:
    """Return the ids of all patients in scope as parameters for `is_in_few_ids`; None if they exceed `MAX_ID_LOOKUPS`.

    Otherwise, the few patients of a small hospital would be searched for among all patients.
    """
    scoped_ids = (await connection.execute(_SELECT_SCOPED_IDS, scope_parameters(principal))).scalars().all()
    return None if len(scoped_ids) > MAX_ID_LOOKUPS else {"few": scoped_ids}


def next_patients_in_scope(after: ColumnElement[str], limit: ColumnElement[int]) -> Select[str]:
    """Select the ids of the first `limit` patients in scope after the id `after`.

    Up to `limit` ids are read from each hospital's part of the index, however many patients of other hospitals lie
    between them. Otherwise, a small hospital in a register of a million patients would wait for all of these.
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
    """Return the condition that, by the `record` of a journal entry, a patient was linked to a hospital in scope."""
    overlaps: ColumnElement[bool] = cast(record, JSONB)["hospital_ids"].has_any(cast(HOSPITALS_PARAMETER, ARRAY(Text)))
    return overlaps
