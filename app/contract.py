"""The examples from the API contract, word for word. Existing frontends were written against this contract."""

from typing import Any

_PATIENT_FIELDS: dict[str, Any] = {
    "patient_profile": {
        "unique_id": "prof123",
        "email": "user@example.com",
        "first_name": "John",
        "last_name": "Doe",
    },
    "patient_email_address": "patient@example.com",
    "patient_mobile_number": "+123456789",
    "patient_title": "Mr.",
    "patient_first_name": "John",
    "patient_initials": "J",
    "patient_last_name": "Doe",
    "patient_date_of_birth": "1980-01-01",
    "patient_gender": "Male",
    "patient_race": "Caucasian",
    "patient_physical_address": "123 Street Name",
    "patient_address_line_1": "Apt 101",
    "patient_town": "Sample Town",
    "patient_region": "Sample Region",
    "patient_province": "Sample Province",
    "patient_country": "Sample Country",
    "patient_postal_code": "12345",
    "patient_latitude": "12.345678",
    "patient_longitude": "-12.345678",
    "patient_access_medical_care": "Public",
}
TIMESTAMPS = {"date_created": "2023-01-01T12:00:00Z", "last_updated": "2023-01-01T12:00:00Z"}

CREATE_BODY = {**_PATIENT_FIELDS, "hospital_ids": ["hos123", "hos456"], "doctor_ids": ["doc123"]}
"""The contract's example for the body of a POST request, which creates a patient."""

UPDATE_BODY = {
    "patient_mobile_number": "+987654321",
    "patient_race": "African",
    "patient_province": "New Province",
    "hospital_ids": ["hos789"],
    "doctor_ids": ["doc456"],
}
"""The contract's example for the body of a PUT request, which updates a patient."""

PATIENT = {
    "unique_id": "pat123",
    **_PATIENT_FIELDS,
    "patient_hospital": [{"unique_id": "hos123", "hospital_name": "General Hospital"}],
    "patient_doctor": [{"unique_id": "doc123", "doctor_first_name": "Dr. Smith"}],
    **TIMESTAMPS,
}
"""The contract's example for the body of a GET response with one patient."""

PROFILE_FIELDS = {"email": "user@example.com", "first_name": "John", "last_name": "Doe"}
HOSPITAL_FIELDS = {"hospital_name": "General Hospital"}
DOCTOR_FIELDS = {"doctor_first_name": "Thabo", "doctor_last_name": "Mokoena"}

PROFILE = {"unique_id": "prof123", **PROFILE_FIELDS, **TIMESTAMPS}
HOSPITAL = {"unique_id": "hos123", **HOSPITAL_FIELDS, **TIMESTAMPS}
DOCTOR = {"unique_id": "doc-mokoena", **DOCTOR_FIELDS, **TIMESTAMPS}
