"""The routes of the FHIR interface."""

from functools import partial

from fastapi import APIRouter, Request, Response

from app.auth.scopes import Scope
from app.fhir.bundles import run_bundle
from app.fhir.capabilities import read_capabilities
from app.fhir.match import match_patient
from app.fhir.reads import read_history, read_resource_of, read_version
from app.fhir.resources import ORGANIZATION, PATIENT, PRACTITIONER, ResourceType
from app.fhir.routing import Interaction, add_route, fhir_router
from app.fhir.search import CURSOR_PARAMETER, search_response
from app.fhir.writes import create_patient, delete_patient, update_matching_patient, update_patient

patient_router = fhir_router("patients", audited=True)
directory_router = fhir_router("fhir")
FHIR_ROUTERS = (patient_router, directory_router)


def _add_read_and_search(router: APIRouter, resource_type: ResourceType) -> None:
    """Add the routes that every type has: read, and search by GET and POST."""
    name, scope = resource_type.name, resource_type.read_scope

    async def read(request: Request, unique_id: str) -> Response:
        return await read_resource_of(request, resource_type, unique_id)

    async def search(request: Request) -> Response:
        return await search_response(request, resource_type)

    search_type = Interaction("search-type", name, checks_parameters=False)
    add_route(router, "GET", f"/{name}/{{unique_id}}", read, Interaction("read", name), scope=scope)
    add_route(router, "GET", f"/{name}", search, search_type, scope=scope)
    add_route(router, "POST", f"/{name}/_search", search, search_type, scope=scope)


add_route(directory_router, "GET", "/metadata", read_capabilities, Interaction("capabilities"), scope=None)
_add_read_and_search(patient_router, PATIENT)
_add_read_and_search(directory_router, PRACTITIONER)
_add_read_and_search(directory_router, ORGANIZATION)
_add_patient_route = partial(add_route, patient_router)
_add_patient_route(
    "GET",
    "/Patient/{unique_id}/_history",
    read_history,
    Interaction("history-instance", "Patient", frozenset({"_format", "_count", CURSOR_PARAMETER})),
    scope=Scope.HISTORY_READ,
)
_add_patient_route(
    "GET",
    "/Patient/{unique_id}/_history/{version}",
    read_version,
    Interaction("vread", "Patient"),
    scope=Scope.HISTORY_READ,
)
_add_patient_route(
    "POST", "/Patient", create_patient, Interaction("create", "Patient"), scope=Scope.PATIENTS_WRITE, status=201
)
_add_patient_route(
    "PUT", "/Patient/{unique_id}", update_patient, Interaction("update", "Patient"), scope=Scope.PATIENTS_WRITE
)
_add_patient_route(
    "PUT",
    "/Patient",
    update_matching_patient,
    Interaction("update-conditional", "Patient", checks_parameters=False),
    scope=Scope.PATIENTS_WRITE,
)
_add_patient_route(
    "DELETE",
    "/Patient/{unique_id}",
    delete_patient,
    Interaction("delete", "Patient"),
    scope=Scope.PATIENTS_DELETE,
    status=204,
)
_add_patient_route(
    "POST", "/Patient/$match", match_patient, Interaction("$match", "Patient"), scope=Scope.PATIENTS_READ
)
_add_patient_route("POST", "", run_bundle, Interaction("batch transaction"), scope=Scope.PATIENTS_WRITE)
