"""Demo data: the example patient of the API contract, and a few dozen fictitious patients."""

from collections.abc import Iterator
from datetime import date, datetime
from typing import Any

from sqlalchemy import exists, func, or_, select

from app import contract
from app.auth.principal import Principal
from app.db.connection import Connection
from app.doctors.schemas import DoctorCreate
from app.doctors.service import DoctorService
from app.hospitals.schemas import HospitalCreate
from app.hospitals.service import HospitalService
from app.models import Doctor, Hospital, Patient, Profile, journal
from app.patients.schemas import PatientCreate
from app.patients.service import PatientService

DEMO_DATA_LOCK_KEY = 0x64656D6F
"""Key of the advisory lock under which demo data is inserted. The number is arbitrary (the word "demo" in ASCII), but
all versions of the service must use the same number."""
HOSPITAL_NAMES = {
    "hos123": "General Hospital",
    "hos456": "St. Mary's Hospital",
    "hos789": "New Hospital",
    "hos-groote": "Tafelberg Clinic",
    "hos-limpopo": "Limpopo Valley Hospital",
}
DOCTOR_NAMES = {
    "doc123": ("Dr. Smith", None),
    "doc456": ("Dr. Adams", None),
    "doc-naidoo": ("Priya", "Naidoo"),
    "doc-mokoena": ("Thabo", "Mokoena"),
}
_NAMES_AND_GENDERS = (
    ("Nomvula Dlamini", "Female"),
    ("Sipho Nkosi", "Male"),
    ("Lerato Mokoena", "Female"),
    ("Thandiwe Zulu", "Female"),
    ("Johan van der Merwe", "Male"),
    ("Anika Botha", "Female"),
    ("Pieter Pretorius", "Male"),
    ("Zoë du Plessis", "Female"),
    ("Priya Naidoo", "Female"),
    ("Rajesh Pillay", "Male"),
    ("Fatima Abrahams", "Female"),
    ("Yusuf Adams", "Male"),
    ("Łukasz Kowalski", "Male"),
    ("Søren Ærø", "Male"),
    ("Jürgen Müller", "Male"),
    ("Chloé Lefèvre", "Female"),
    ("Oluwaseun Adeyemi", "Male"),
    ("Chidinma Okafor", "Female"),
    ("Kwame Mensah", "Male"),
    ("Amina Hassan", "Other"),
    ("María José García", "Female"),
    ("João da Silva", "Male"),
    ("Nguyễn Văn An", "Male"),
    ("王 小明", "Male"),
    ("佐藤 花子", "Female"),
    ("Иван Петров", "Male"),
    ("محمد علي", "Male"),
    ("Siobhán O'Brien", "Female"),
    ("Tariro Moyo", "Female"),
    ("Blessing Chikwanha", "Other"),
    ("Katlego Molefe", "Unknown"),
    ("Refilwe Phiri", "Female"),
    ("Ayanda Khumalo", "Other"),
    ("Bongani Mthembu", "Male"),
    ("Elize Joubert", "Female"),
    ("Kabelo Tau", "Male"),
)
_TOWNS = (
    ("Cape Town", "Western Cape", "8001", "-33.924870", "18.424055"),
    ("Durban", "KwaZulu-Natal", "4001", "-29.858680", "31.021840"),
    ("Polokwane", "Limpopo", "0699", "-23.904490", "29.468850"),
    ("Bloemfontein", "Free State", "9301", "-29.085210", "26.159610"),
)


def _fictitious_patients() -> Iterator[dict[str, Any]]:
    hospitals, doctors = list(HOSPITAL_NAMES), list(DOCTOR_NAMES)
    for number, (name, gender) in enumerate(_NAMES_AND_GENDERS):
        first, last = name.split(" ", 1)
        town, province, postal_code, latitude, longitude = _TOWNS[number % len(_TOWNS)]
        yield {
            "patient_first_name": first,
            "patient_last_name": last,
            "patient_gender": gender,
            "patient_date_of_birth": date(1940 + number * 2, 1 + number % 12, 1 + number % 28).isoformat(),
            "patient_mobile_number": f"+27 82 555 {number:04d}",
            "patient_email_address": f"patient{number}@example.com" if number % 3 else None,
            "patient_town": town,
            "patient_province": province,
            "patient_country": "South Africa",
            "patient_postal_code": postal_code,
            "patient_latitude": latitude,
            "patient_longitude": longitude,
            "patient_access_medical_care": "Private" if number % 4 == 0 else "Public",
            "hospital_ids": [hospitals[number % len(hospitals)], hospitals[(number + number % 2) % len(hospitals)]],
            "doctor_ids": [doctors[number % len(doctors)]],
        }


DEMO_PRINCIPAL = Principal("demo")


async def insert_demo_data(connection: Connection) -> bool:
    """Insert the demo data and return True, unless the database has ever contained a record. Otherwise return False."""
    # two services that start on the same database must not both insert the demo data
    await connection.execute(select(func.pg_advisory_xact_lock(DEMO_DATA_LOCK_KEY)))
    tables = (Patient.__table__, Profile.__table__, Hospital.__table__, Doctor.__table__, journal)
    if (await connection.execute(select(or_(*(exists(select(table)) for table in tables))))).scalar_one():
        return False
    for unique_id, name in HOSPITAL_NAMES.items():
        await HospitalService(connection, DEMO_PRINCIPAL).create(
            HospitalCreate(unique_id=unique_id, hospital_name=name)
        )
    for unique_id, (first, last) in DOCTOR_NAMES.items():
        doctor = DoctorCreate(unique_id=unique_id, doctor_first_name=first, doctor_last_name=last)
        await DoctorService(connection, DEMO_PRINCIPAL).create(doctor)
    patients = PatientService(connection, DEMO_PRINCIPAL)
    example = {**contract.CREATE_BODY, "unique_id": contract.PATIENT["unique_id"], "hospital_ids": ["hos123"]}
    timestamps = {name: datetime.fromisoformat(timestamp) for name, timestamp in contract.TIMESTAMPS.items()}
    await patients.create(PatientCreate.model_validate(example), timestamps=timestamps)
    for patient in _fictitious_patients():
        await patients.create(PatientCreate.model_validate(patient))
    return True
