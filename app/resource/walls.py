"""The walls between hospitals: what a principal that is limited to hospitals may know of."""

from typing import Any

from sqlalchemy import ARRAY, Column, ColumnElement, Text, any_, bindparam, cast, exists
from sqlalchemy.dialects.postgresql import JSONB

from app.auth.principal import Principal
from app.db.base import ID
from app.models import patient_hospitals

HOSPITALS = bindparam("hospitals", type_=ARRAY(ID))
"""The hospitals that the principal is limited to. Statements on behalf of who is not limited do without."""


def parameters(principal: Principal) -> dict[str, Any]:
    """The parameters of statements on behalf of a principal."""
    return {} if principal.hospitals is None else {"hospitals": sorted(principal.hospitals)}


def is_own(hospital_id: ColumnElement[str]) -> ColumnElement[bool]:
    """Whether a hospital is one of the principal's."""
    return hospital_id == any_(HOSPITALS)


def has_own(patient_id: Column[Any]) -> ColumnElement[bool]:
    """Whether a patient is linked to one of the principal's hospitals."""
    link = patient_hospitals.c
    return exists().where(link.patient_id == patient_id, is_own(link.hospital_id))


def had_own(record: ColumnElement[Any]) -> ColumnElement[bool]:
    """Whether a patient was linked to one of the principal's hospitals, by the record of a journal entry."""
    overlaps: ColumnElement[bool] = cast(record, JSONB)["hospital_ids"].has_any(cast(HOSPITALS, ARRAY(Text)))
    return overlaps
