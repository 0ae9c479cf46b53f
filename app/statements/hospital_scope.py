"""The hospital scope: SQL conditions that limit a restricted principal to the patients of certain hospitals."""

from typing import Any

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Select,
    Text,
    any_,
    bindparam,
    cast,
    column,
    exists,
    func,
    literal_column,
    select,
    true,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.sql.selectable import TableValuedAlias

from app.auth.principal import Principal
from app.db.base import ID_TEXT
from app.db.connection import Connection
from app.models import patient_hospitals

HOSPITALS_PARAMETER = bindparam("hospitals", type_=ARRAY(ID_TEXT))
"""Bind parameter: the ids of the hospitals that the principal is restricted to. Statements for unrestricted principals
do not have this parameter."""


def scope_parameters(principal: Principal) -> dict[str, Any]:
    """Return the bind parameter that contains the principal's hospital scope.

    If the principal is unrestricted, the dictionary is empty.
    """
    return {} if principal.hospitals is None else {"hospitals": sorted(principal.hospitals)}


def is_in_scope(hospital_id: ColumnElement[str]) -> ColumnElement[bool]:
    """Return the condition that a hospital is in the principal's hospital scope."""
    return hospital_id == any_(HOSPITALS_PARAMETER)


def patient_in_scope(patient_id: ColumnElement[Any]) -> ColumnElement[bool]:
    """Return the condition that a patient is linked to at least one hospital in the principal's hospital scope."""
    link = patient_hospitals.c
    return exists().where(link.patient_id == patient_id, is_in_scope(link.hospital_id))


MAX_ID_LOOKUPS = 2000
"""Maximum number of patients that are looked up one by one. For so few patients, any other query plan would read more
index pages."""
_FEW_IDS_PARAMETER = bindparam("few", type_=ARRAY(ID_TEXT))
_SELECT_SCOPED_IDS = (
    select(patient_hospitals.c.patient_id)
    .where(is_in_scope(patient_hospitals.c.hospital_id))
    .distinct()
    .limit(literal_column(str(MAX_ID_LOOKUPS + 1)))
)


def is_in_few_ids(patient_id: ColumnElement[str]) -> ColumnElement[bool]:
    """Return the condition that a patient's id is among the ids that `scoped_ids_if_few` returned."""
    return patient_id == any_(_FEW_IDS_PARAMETER)


def few_ids() -> TableValuedAlias:
    """Return the relation of the ids that `scoped_ids_if_few` returned, in the column `unique_id`."""
    return func.unnest(_FEW_IDS_PARAMETER).table_valued(column("unique_id", ID_TEXT), name="few").render_derived()


async def scoped_ids_if_few(connection: Connection, principal: Principal) -> dict[str, Any] | None:
    """Return the ids of all patients in the principal's hospital scope, as the bind parameter for `is_in_few_ids`.

    Return None if there are more than `MAX_ID_LOOKUPS` ids. A query without these ids would search all patients to find
    the few patients of a small hospital.
    """
    scoped_ids = (await connection.execute(_SELECT_SCOPED_IDS, scope_parameters(principal))).scalars().all()
    return None if len(scoped_ids) > MAX_ID_LOOKUPS else {"few": scoped_ids}


def next_patients_in_scope(after: ColumnElement[str], limit: ColumnElement[int]) -> Select[str]:
    """Return a statement that selects the ids of patients in the principal's scope: the first `limit` after `after`.

    PostgreSQL reads up to `limit` ids from the index for each of the principal's hospitals, and skips the patients of
    other hospitals. Otherwise, it would read all patients in the order of their ids. Between two patients of a small
    hospital, there can be a million patients of other hospitals.
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
    """Return the condition that the patient in the `record` of a journal entry was linked to a hospital in scope."""
    overlaps: ColumnElement[bool] = cast(record, JSONB)["hospital_ids"].has_any(cast(HOSPITALS_PARAMETER, ARRAY(Text)))
    return overlaps
