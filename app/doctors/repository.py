from app.doctors.schemas import Doctor
from app.models import Doctor as Row
from app.models import patient_doctors
from app.resource.document import Document
from app.resource.repository import Repository


class DoctorRepository(Repository):
    name = "doctor"
    prefix = "doc"
    table = Row.__table__
    document = Document(Doctor, table)
    patient_reference = patient_doctors.c.doctor_id
