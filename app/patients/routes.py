from fastapi import Request, Response

from app.api.audit import add_access_route
from app.api.break_glass import break_glass
from app.api.endpoints import (
    CREATE_PROBLEMS,
    DELETE_PROBLEMS,
    UPDATE_PROBLEMS,
    PathId,
    create_record,
    delete_record,
    get_record,
    list_records,
    update_record,
)
from app.api.history import add_history_routes
from app.api.query_parameters import openapi_query_parameters, parse_query
from app.api.routing import make_router, problem_responses
from app.auth.scopes import Scope, requires
from app.patients.repository import PatientRepository
from app.patients.schemas import Patient, PatientCreate, PatientParameters, PatientSearch, PatientUpdate
from app.patients.service import PatientService
from app.search.listing import PatientListing

router = make_router("/patients/patients", tag="patients", audited=True)


@router.get(
    "/",
    response_model=list[Patient],
    openapi_extra=requires(Scope.PATIENTS_READ) | openapi_query_parameters(PatientParameters),
    responses=problem_responses(422),
)
async def list_patients(request: Request) -> Response:
    """List all patients in the order of their `unique_id`, or those that are wanted; a page of them with `limit`.

    What is in a URL may be logged on its way: to ask for persons, use `search_patients`.
    """
    return await list_records(request, PatientRepository, parse_query(request, PatientParameters), PatientListing)


@router.post(
    "/search/",
    response_model=list[Patient],
    openapi_extra=requires(Scope.PATIENTS_READ),
    responses=problem_responses(400, 413, 415, 422),
)
async def search_patients(request: Request, body: PatientSearch) -> Response:
    """List the patients that are wanted, as `list_patients` does, without a trace of them in the URL."""
    return await list_records(request, PatientRepository, body, PatientListing)


@router.post(
    "/",
    status_code=201,
    response_model=Patient,
    openapi_extra=requires(Scope.PATIENTS_WRITE),
    responses=problem_responses(*CREATE_PROBLEMS),
)
async def create_patient(request: Request, body: PatientCreate) -> Response:
    """Create a patient, with its profile and its links to hospitals and doctors."""
    return await create_record(request, PatientService, body)


@router.get(
    "/{unique_id}/",
    response_model=Patient,
    openapi_extra=requires(Scope.PATIENTS_READ),
    responses=problem_responses(404, 422),
)
async def get_patient(request: Request, unique_id: PathId) -> Response:
    """Get one patient."""
    return await get_record(request, PatientRepository, unique_id, break_glass(request))


@router.patch(
    "/{unique_id}/",
    name="patch_patient",
    response_model=Patient,
    openapi_extra=requires(Scope.PATIENTS_WRITE),
    responses=problem_responses(*UPDATE_PROBLEMS, 409),
)
@router.put(
    "/{unique_id}/",
    response_model=Patient,
    openapi_extra=requires(Scope.PATIENTS_WRITE),
    responses=problem_responses(*UPDATE_PROBLEMS, 409),
)
async def update_patient(request: Request, unique_id: PathId, body: PatientUpdate) -> Response:
    """Change what is given of a patient: absent stays, `null` clears, ids replace the whole set."""
    return await update_record(request, PatientService, unique_id, body)


@router.delete(
    "/{unique_id}/",
    status_code=204,
    openapi_extra=requires(Scope.PATIENTS_DELETE),
    responses=problem_responses(*DELETE_PROBLEMS),
)
async def delete_patient(request: Request, unique_id: PathId) -> Response:
    """Delete a patient for good, with all links; the profile stays."""
    return await delete_record(request, PatientService, unique_id)


add_history_routes(router, PatientService, Patient, Scope.PATIENTS_WRITE)
add_access_route(router, PatientRepository)
