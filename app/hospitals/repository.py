from app.hospitals.schemas import Hospital
from app.models import Hospital as Row
from app.models import patient_hospitals
from app.resource.document import Document
from app.resource.repository import Repository


class HospitalRepository(Repository):
    name = "hospital"
    prefix = "hos"
    table = Row.__table__
    document = Document(Hospital, table)
    patient_reference = patient_hospitals.c.hospital_id
