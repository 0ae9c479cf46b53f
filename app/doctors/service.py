from app.doctors.repository import DoctorRepository
from app.doctors.schemas import DoctorCreate, DoctorUpdate
from app.records.service import Service


class DoctorService(Service[DoctorCreate, DoctorUpdate]):
    repository_class = DoctorRepository
