"""The services of the resources, with FHIR resources as their documents and versions as their entity tags."""

from typing import Any, TypeVar

from app.doctors.service import DoctorService
from app.fhir_resources.documents import ResourceDocument, version_tag
from app.fhir_resources.resources import ORGANIZATION_DOCUMENT, PATIENT_DOCUMENT, PRACTITIONER_DOCUMENT
from app.hospitals.service import HospitalService
from app.patients.service import PatientService
from app.records.service import Service

S = TypeVar("S", bound=Service[Any, Any])


def _represented_by(service_class: type[S], document: ResourceDocument) -> type[S]:
    """Return the service with `document` as the representation of its records.

    Everything else is that of `service_class`, so that its rules hold.
    """
    repository = service_class.repository_class
    represented = type(f"Fhir{repository.__name__}", (repository,), {"document": document})
    attributes = {"repository_class": represented, "entity_tag": staticmethod(version_tag)}
    return type(f"Fhir{service_class.__name__}", (service_class,), attributes)


PATIENT_SERVICE = _represented_by(PatientService, PATIENT_DOCUMENT)
PRACTITIONER_SERVICE = _represented_by(DoctorService, PRACTITIONER_DOCUMENT)
ORGANIZATION_SERVICE = _represented_by(HospitalService, ORGANIZATION_DOCUMENT)
