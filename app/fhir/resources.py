"""The resource types of the FHIR interface, each with its service, its scopes and its search parameters."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from app.auth.scopes import Scope
from app.fhir_resources.services import ORGANIZATION_SERVICE, PATIENT_SERVICE, PRACTITIONER_SERVICE
from app.fhir_search.parameters import SEARCH_PARAMETERS, SORT_COLUMNS, SearchParameter
from app.paths import FHIR_PREFIX
from app.records.repository import Repository
from app.records.service import Service


@dataclass(frozen=True, slots=True)
class ResourceType:
    """A resource type, with what its routes need."""

    name: str
    service_class: type[Service[Any, Any]]
    read_scope: Scope

    @property
    def repository_class(self) -> type[Repository]:
        """The repository whose documents are resources of this type."""
        return self.service_class.repository_class

    @property
    def path(self) -> str:
        """The path of the resources of this type."""
        return f"{FHIR_PREFIX}/{self.name}"

    @property
    def search_parameters(self) -> Mapping[str, SearchParameter]:
        """The definitions of the search parameters, by name."""
        return SEARCH_PARAMETERS[self.name]

    @property
    def sort_columns(self) -> Mapping[str, str]:
        """The columns by which a search can be sorted, by the name of the parameter."""
        return SORT_COLUMNS[self.name]


PATIENT = ResourceType("Patient", PATIENT_SERVICE, Scope.PATIENTS_READ)
PRACTITIONER = ResourceType("Practitioner", PRACTITIONER_SERVICE, Scope.DIRECTORY_READ)
ORGANIZATION = ResourceType("Organization", ORGANIZATION_SERVICE, Scope.DIRECTORY_READ)
