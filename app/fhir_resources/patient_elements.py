"""The element of a Patient that represents each field of a patient."""

from collections.abc import Mapping
from typing import Any

from app.fhir_resources.systems import (
    GEOLOCATION_EXTENSION,
    HOSPITAL_EXTENSION,
    INITIALS_EXTENSION,
    PROFILE_EXTENSION,
    TEXT_EXTENSIONS,
    UNIQUE_ID_SYSTEM,
)
from app.patients.schemas import PatientFields

PATIENT_ELEMENTS = {
    "unique_id": f"Patient.identifier.where(system='{UNIQUE_ID_SYSTEM}').value",
    "patient_identifiers": "Patient.identifier",
    "patient_profile": f"Patient.extension('{PROFILE_EXTENSION}')",
    "patient_email_address": "Patient.telecom.where(system='email').value",
    "patient_mobile_number": "Patient.telecom.where(system='phone').value",
    "patient_title": "Patient.name.prefix",
    "patient_first_name": "Patient.name.given",
    "patient_initials": f"Patient.name.extension('{INITIALS_EXTENSION}').value",
    "patient_last_name": "Patient.name.family",
    "patient_date_of_birth": "Patient.birthDate",
    "patient_gender": "Patient.gender",
    "patient_physical_address": "Patient.address.line[0]",
    "patient_address_line_1": "Patient.address.line[1]",
    "patient_town": "Patient.address.city",
    "patient_region": "Patient.address.district",
    "patient_province": "Patient.address.state",
    "patient_country": "Patient.address.country",
    "patient_postal_code": "Patient.address.postalCode",
    "patient_latitude": f"Patient.address.extension('{GEOLOCATION_EXTENSION}').extension('latitude').value",
    "patient_longitude": f"Patient.address.extension('{GEOLOCATION_EXTENSION}').extension('longitude').value",
    **{field: f"Patient.extension('{url}').value" for url, field in TEXT_EXTENSIONS.items()},
    "hospital_ids": f"Patient.managingOrganization, Patient.extension('{HOSPITAL_EXTENSION}').value",
    "doctor_ids": "Patient.generalPractitioner",
}
"""The element that represents each field of a patient, as `docs/fhir.md` lists them.

`test_mapping` checks that every field is here. Errors about a field that has no element in a request name it.
"""
CLEARED_FIELDS: Mapping[str, Any] = {
    **dict.fromkeys(name for name in PatientFields.model_fields if name in PATIENT_ELEMENTS),
    "hospital_ids": [],
    "doctor_ids": [],
}
"""The values that an update gives to fields whose elements the Patient lacks, because it replaces the whole resource.
"""
