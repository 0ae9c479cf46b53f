from functools import cache

from sqlalchemy import Select, bindparam, func, select, union

from app.db.base import ID_TEXT
from app.hospitals.schemas import Hospital
from app.models import Hospital as HospitalRow
from app.models import patient_hospitals, patient_identifiers
from app.records.repository import Repository
from app.statements.documents import Document


class HospitalRepository(Repository):
    name = "hospital"
    prefix = "hos"
    table = HospitalRow.__table__
    document = Document(Hospital, table)
    patient_reference_column = patient_hospitals.c.hospital_id

    @classmethod
    @cache
    def _patient_count_statement(cls) -> Select[int]:
        """Return the statement that counts the patients of a hospital, and those with an identifier from it."""
        patients = (
            select(table.c.patient_id).where(table.c.hospital_id == bindparam("id", type_=ID_TEXT))
            for table in (patient_hospitals, patient_identifiers)
        )
        return select(func.count()).select_from(union(*patients).subquery())
