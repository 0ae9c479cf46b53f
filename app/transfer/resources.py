"""What can be imported and exported."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from app.doctors.schemas import DoctorCreate, DoctorUpdate
from app.doctors.service import DoctorService
from app.hospitals.schemas import HospitalCreate, HospitalUpdate
from app.hospitals.service import HospitalService
from app.patients.schemas import PatientCreate, PatientParameters, PatientUpdate
from app.patients.service import PatientService
from app.profiles.schemas import ProfileCreate, ProfileUpdate
from app.profiles.service import ProfileService
from app.resource.pages import ListParameters
from app.resource.schemas import CreateBody, UpdateBody
from app.resource.service import Service


class Transferred(NamedTuple):
    """A resource, with what the API takes of it."""

    service: type[Service[Any, Any]]
    create: type[CreateBody]
    update: type[UpdateBody]
    parameters: type[ListParameters] = ListParameters


RESOURCES: Mapping[str, Transferred] = {
    "hospitals": Transferred(HospitalService, HospitalCreate, HospitalUpdate),
    "doctors": Transferred(DoctorService, DoctorCreate, DoctorUpdate),
    "profiles": Transferred(ProfileService, ProfileCreate, ProfileUpdate),
    "patients": Transferred(PatientService, PatientCreate, PatientUpdate, PatientParameters),
}
"""By their names, what others refer to first."""
