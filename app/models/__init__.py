"""The tables, one file each; all of the foreign-key graph in this one place."""

from app.models.doctor import Doctor
from app.models.hospital import Hospital
from app.models.patient import Patient, patient_doctors, patient_hospitals
from app.models.profile import Profile
from app.models.retired_id import retired_ids

__all__ = ["Doctor", "Hospital", "Patient", "Profile", "patient_doctors", "patient_hospitals", "retired_ids"]
