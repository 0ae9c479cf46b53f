from typing import ClassVar

from app.models import Doctor, Hospital, Profile, patient_doctors, patient_hospitals
from app.models import Patient as Row
from app.patients.schemas import Patient, PatientDoctor, PatientHospital, PatientProfile
from app.resource.document import Document, ToMany, ToOne
from app.resource.repository import Repository

_HOSPITALS = ToMany(PatientHospital, Hospital.__table__, patient_hospitals)
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
    links: ClassVar = {"hospital_ids": _HOSPITALS, "doctor_ids": _DOCTORS}
