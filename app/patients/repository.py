from collections.abc import Collection, Mapping
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import ARRAY, ColumnElement, Select, all_, any_, bindparam, delete, exists, func, or_, select
from sqlalchemy.dialects.postgresql import insert

from app.db.base import ID
from app.models import Doctor, Hospital, Profile, patient_doctors, patient_hospitals
from app.models import Patient as Row
from app.patients.schemas import Patient, PatientDoctor, PatientHospital, PatientProfile
from app.resource.document import Document, ToMany, ToOne
from app.resource.repository import Repository

HOSPITALS = ToMany(PatientHospital, Hospital.__table__, patient_hospitals)
DOCTORS = ToMany(PatientDoctor, Doctor.__table__, patient_doctors)
RELATIONS = {"hospital_ids": HOSPITALS, "doctor_ids": DOCTORS}
"""The sets of links, under the names by which requests replace them."""


class Linking(NamedTuple):
    """What replacing sets of links came to."""

    known: Mapping[str, frozenset[str]]
    """Of each set, the wanted ids that exist; only these are linked."""
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

    async def link(self, unique_id: str, wanted: Mapping[str, Collection[str]]) -> Linking:
        """Make each set of links of a patient exactly what is `wanted`: one statement, however many links.

        The patient must be locked, or new in this transaction.
        """
        if not wanted:
            return Linking({}, changed=False)
        parameters = {name: sorted(set(ids)) for name, ids in wanted.items()}
        result = await self.connection.execute(_replace(frozenset(wanted)), {"patient_id": unique_id, **parameters})
        row = result.mappings().one()
        return Linking({name: frozenset(row[name]) for name in wanted}, row["changed"])


@cache
def _replace(names: frozenset[str]) -> Select[Any]:
    """Remove what is not wanted, add what is wanted, exists and is not there; for each of the named sets.

    Added in the order of the ids, in which every transaction then locks the targets (by the foreign key's check).
    """
    patient = bindparam("patient_id", type_=ID)
    columns: list[ColumnElement[Any]] = []
    changes: list[ColumnElement[bool]] = []
    for name in sorted(names):
        relation = RELATIONS[name]
        wanted = bindparam(name, type_=ARRAY(ID))
        target, key = relation.target.c.unique_id, relation.key
        known = select(target).where(target == any_(wanted)).cte(f"known_{name}")
        unwanted = delete(relation.link).where(relation.owner == patient, key != all_(wanted))
        rows = select(patient, known.c.unique_id).order_by(known.c.unique_id)
        missing = insert(relation.link).from_select([relation.owner, key], rows).on_conflict_do_nothing()
        columns.append(func.array(select(known.c.unique_id).scalar_subquery(), type_=ARRAY(ID)).label(name))
        changes += [
            exists(select(unwanted.returning(key).cte(f"removed_{name}"))),
            exists(select(missing.returning(key).cte(f"added_{name}"))),
        ]
    return select(*columns, or_(*changes).label("changed"))
