"""The tables of the database. All foreign keys are between tables of this package."""

from app.models.api_key import api_keys
from app.models.audit import audit
from app.models.change import changes, changes_pending, hospital_changes
from app.models.doctor import Doctor
from app.models.duplicate import duplicate_scans, duplicates, pending_comparisons
from app.models.hospital import Hospital
from app.models.idempotency_key import idempotency_keys
from app.models.identifier import identifier_types, patient_identifiers
from app.models.journal import journal
from app.models.name_word import hospital_words, name_words, stale_words
from app.models.patient import Patient, patient_doctors, patient_hospitals
from app.models.profile import Profile
from app.models.secret import service_secrets
from app.models.webhook import webhooks

__all__ = [
    "Doctor",
    "Hospital",
    "Patient",
    "Profile",
    "api_keys",
    "audit",
    "changes",
    "changes_pending",
    "duplicate_scans",
    "duplicates",
    "hospital_changes",
    "hospital_words",
    "idempotency_keys",
    "identifier_types",
    "journal",
    "name_words",
    "patient_doctors",
    "patient_hospitals",
    "patient_identifiers",
    "pending_comparisons",
    "service_secrets",
    "stale_words",
    "webhooks",
]
