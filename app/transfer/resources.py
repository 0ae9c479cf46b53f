"""The resources that can be imported and exported."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from app.doctors.schemas import DoctorCreate, DoctorParameters, DoctorUpdate
from app.doctors.service import DoctorService
from app.fields.schemas import CreateBody, UpdateBody
from app.hospitals.schemas import HospitalCreate, HospitalParameters, HospitalUpdate
from app.hospitals.service import HospitalService
from app.listing.pagination import ListParameters
from app.patients.schemas import PatientCreate, PatientParameters, PatientUpdate
from app.patients.service import PatientService, PatientWithIdentifiersService
from app.profiles.schemas import ProfileCreate, ProfileParameters, ProfileUpdate
from app.profiles.service import ProfileService
from app.records.service import Service


class TransferableResource(NamedTuple):
    """An importable and exportable resource: its service, its request body schemas and its list parameters."""

    service_class: type[Service[Any, Any]]
    create_schema: type[CreateBody]
    update_schema: type[UpdateBody]
    parameters_model: type[ListParameters]


RESOURCES: Mapping[str, TransferableResource] = {
    "hospitals": TransferableResource(HospitalService, HospitalCreate, HospitalUpdate, HospitalParameters),
    "doctors": TransferableResource(DoctorService, DoctorCreate, DoctorUpdate, DoctorParameters),
    "profiles": TransferableResource(ProfileService, ProfileCreate, ProfileUpdate, ProfileParameters),
    "patients": TransferableResource(PatientService, PatientCreate, PatientUpdate, PatientParameters),
}
"""The resources by name. A resource comes after the resources that its records refer to.

If files are imported in this order, the records that a file refers to have therefore been imported before it.
"""
PATIENTS_WITH_IDENTIFIERS = RESOURCES["patients"]._replace(service_class=PatientWithIdentifiersService)
"""Patients with their identifiers, for exports that ask for them."""
