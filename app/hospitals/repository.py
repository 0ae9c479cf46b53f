from app.hospitals.schemas import Hospital
from app.models import Hospital as HospitalRow
from app.models import patient_hospitals
from app.records.repository import Repository
from app.statements.documents import Document


class HospitalRepository(Repository):
    name = "hospital"
    prefix = "hos"
    table = HospitalRow.__table__
    document = Document(Hospital, table)
    patient_reference_column = patient_hospitals.c.hospital_id
