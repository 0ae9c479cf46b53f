from app.doctors.schemas import Doctor
from app.models import Doctor as DoctorRow
from app.models import patient_doctors
from app.records.repository import Repository
from app.statements.documents import Document


class DoctorRepository(Repository):
    name = "doctor"
    prefix = "doc"
    table = DoctorRow.__table__
    document = Document(Doctor, table)
    patient_reference_column = patient_doctors.c.doctor_id
