from fastapi import Request, Response

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
from app.api.pages import ListParameters
from app.api.query_parameters import openapi_query_parameters, parse_query
from app.api.routing import make_router, problem_responses
from app.auth.scopes import Scope, requires
from app.doctors.repository import DoctorRepository
from app.doctors.schemas import Doctor, DoctorCreate, DoctorUpdate
from app.doctors.service import DoctorService

router = make_router("/doctors/doctors", tag="doctors")


@router.get(
    "/",
    response_model=list[Doctor],
    openapi_extra=requires(Scope.DIRECTORY_READ) | openapi_query_parameters(ListParameters),
    responses=problem_responses(422),
)
async def list_doctors(request: Request) -> Response:
    """List all doctors in the order of their `unique_id`, or a page of them with `limit` and `cursor`."""
    return await list_records(request, DoctorRepository, parse_query(request, ListParameters))


@router.post(
    "/",
    status_code=201,
    response_model=Doctor,
    openapi_extra=requires(Scope.DIRECTORY_WRITE),
    responses=problem_responses(*CREATE_PROBLEMS),
)
async def create_doctor(request: Request, body: DoctorCreate) -> Response:
    """Create a doctor."""
    return await create_record(request, DoctorService, body)


@router.get(
    "/{unique_id}/",
    response_model=Doctor,
    openapi_extra=requires(Scope.DIRECTORY_READ),
    responses=problem_responses(404),
)
async def get_doctor(request: Request, unique_id: PathId) -> Response:
    """Get one doctor."""
    return await get_record(request, DoctorRepository, unique_id)


@router.patch(
    "/{unique_id}/",
    name="patch_doctor",
    response_model=Doctor,
    openapi_extra=requires(Scope.DIRECTORY_WRITE),
    responses=problem_responses(*UPDATE_PROBLEMS),
)
@router.put(
    "/{unique_id}/",
    response_model=Doctor,
    openapi_extra=requires(Scope.DIRECTORY_WRITE),
    responses=problem_responses(*UPDATE_PROBLEMS),
)
async def update_doctor(request: Request, unique_id: PathId, body: DoctorUpdate) -> Response:
    """Change what is given of a doctor; what is absent stays as it is."""
    return await update_record(request, DoctorService, unique_id, body)


@router.delete(
    "/{unique_id}/",
    status_code=204,
    openapi_extra=requires(Scope.DIRECTORY_WRITE),
    responses=problem_responses(*DELETE_PROBLEMS, 409),
)
async def delete_doctor(request: Request, unique_id: PathId) -> Response:
    """Delete a doctor that no patient is linked to."""
    return await delete_record(request, DoctorService, unique_id)


add_history_routes(router, DoctorService, Doctor, Scope.DIRECTORY_WRITE)
