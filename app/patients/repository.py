from collections.abc import Collection
from typing import NamedTuple

from sqlalchemy import ARRAY, Select, all_, any_, bindparam, delete, exists, func, or_, select
from sqlalchemy.dialects.postgresql import insert

from app.db.base import ID
from app.models import Doctor, Hospital, Profile, patient_doctors, patient_hospitals
from app.models import Patient as Row
from app.patients.schemas import Patient, PatientDoctor, PatientHospital, PatientProfile
from app.resource.document import Document, ToMany, ToOne
from app.resource.repository import Repository

HOSPITALS = ToMany(PatientHospital, Hospital.__table__, patient_hospitals)
DOCTORS = ToMany(PatientDoctor, Doctor.__table__, patient_doctors)


class Linking(NamedTuple):
    """What replacing a set of links came to."""

    known: frozenset[str]
    """The wanted ids that exist; only these are linked."""
    changed: bool


class PatientRepository(Repository):
    name = "patient"
    prefix = "pat"
    table = Row.__table__
    document = Document(
        Patient,
        table,
        patient_profile=ToOne(PatientProfile, Profile.__table__, "profile_id"),
        patient_hospital=HOSPITALS,
        patient_doctor=DOCTORS,
    )

    async def link(self, unique_id: str, relation: ToMany, wanted: Collection[str]) -> Linking:
        """Make the links of a patient exactly `wanted`. The patient must be locked, or new in this transaction."""
        row = (
            await self.connection.execute(_REPLACE[relation], {"patient_id": unique_id, "wanted": sorted(set(wanted))})
        ).one()
        return Linking(frozenset(row.known), row.changed)


def _replace(relation: ToMany) -> Select[list[str], bool]:
    """One statement, however many links: remove what is not wanted, add what is wanted, exists and is not there.

    Added in the order of the ids, in which every transaction then locks the targets (by the foreign key's check).
    """
    patient = bindparam("patient_id", type_=ID)
    wanted = bindparam("wanted", type_=ARRAY(ID))
    link, target = relation.link, relation.target
    known = select(target.c.unique_id).where(target.c.unique_id == any_(wanted)).cte("known")
    removed = (
        delete(link)
        .where(relation.owner == patient, relation.key != all_(wanted))
        .returning(relation.key)
        .cte("removed")
    )
    rows = select(patient, known.c.unique_id).order_by(known.c.unique_id)
    added = (
        insert(link)
        .from_select([relation.owner, relation.key], rows)
        .on_conflict_do_nothing()
        .returning(relation.key)
        .cte("added")
    )
    return select(
        func.array(select(known.c.unique_id).scalar_subquery(), type_=ARRAY(ID)).label("known"),
        or_(exists(select(removed)), exists(select(added))).label("changed"),
    )


_REPLACE = {relation: _replace(relation) for relation in (HOSPITALS, DOCTORS)}
