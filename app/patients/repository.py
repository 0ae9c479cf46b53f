from typing import Any, ClassVar

from sqlalchemy import ColumnElement, Select

from app.models import Doctor, Hospital, Profile, patient_doctors, patient_hospitals
from app.models import Patient as Row
from app.patients.schemas import Patient, PatientDoctor, PatientHospital, PatientProfile
from app.resource.document import Document, ToMany, ToOne
from app.resource.repository import Repository
from app.resource.walls import few_own, had_own, has_own, next_own
from app.search.dictionary import forget, words_of

_HOSPITALS = ToMany(PatientHospital, Hospital.__table__, patient_hospitals, walled=True)
_DOCTORS = ToMany(PatientDoctor, Doctor.__table__, patient_doctors)


class PatientRepository(Repository):
    name = "patient"
    prefix = "pat"
    table = Row.__table__
    document = Document(
        Patient,
        table,
        patient_profile=ToOne(PatientProfile, Profile.__table__, "profile_id"),
        patient_hospital=_HOSPITALS,
        patient_doctor=_DOCTORS,
    )
    moments = frozenset({"date_created", "last_updated"})
    links: ClassVar = {"hospital_ids": _HOSPITALS, "doctor_ids": _DOCTORS}

    @classmethod
    def visible(cls, *, limited: bool) -> ColumnElement[bool]:
        """Whoever is limited sees the patients of its own hospitals."""
        return has_own(cls.table.c.unique_id) if limited else super().visible(limited=limited)

    @classmethod
    def next_visible(cls, after: ColumnElement[str], limit: ColumnElement[int], *, limited: bool) -> Select[Any]:
        """Whoever is limited is led by its own hospitals' links."""
        if not limited:
            return super().next_visible(after, limit, limited=limited)
        return cls.document.rows().where(cls.table.c.unique_id.in_(next_own(after, limit)))

    async def few_visible(self) -> dict[str, Any] | None:
        """Whoever is limited to small hospitals sees few."""
        return await few_own(self.connection, self.principal) if self.limited else None

    @classmethod
    def was_visible(cls, record: ColumnElement[Any]) -> ColumnElement[bool]:
        """Whoever is limited saw what was linked to its own hospitals."""
        return had_own(record)

    async def erase(self, unique_id: str, reason: str) -> int:
        """Remove a patient, if it is there, and all that is stored of it: words of its names that nobody has, too."""
        words = await words_of(self.connection, unique_id)
        entries = await super().erase(unique_id, reason)
        await forget(self.connection, words)
        return entries
