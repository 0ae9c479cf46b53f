from app.hospitals.repository import HospitalRepository
from app.hospitals.schemas import HospitalCreate, HospitalUpdate
from app.records.service import Service


class HospitalService(Service[HospitalCreate, HospitalUpdate]):
    repository_class = HospitalRepository
