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
from app.hospitals.repository import HospitalRepository
from app.hospitals.schemas import Hospital, HospitalCreate, HospitalUpdate
from app.hospitals.service import HospitalService

router = make_router("/hospitals/hospitals", tag="hospitals")


@router.get(
    "/",
    response_model=list[Hospital],
    openapi_extra=requires(Scope.DIRECTORY_READ) | openapi_query_parameters(ListParameters),
    responses=problem_responses(422),
)
async def list_hospitals(request: Request) -> Response:
    """List all hospitals in the order of their `unique_id`, or a page of them with `limit` and `cursor`."""
    return await list_records(request, HospitalRepository, parse_query(request, ListParameters))


@router.post(
    "/",
    status_code=201,
    response_model=Hospital,
    openapi_extra=requires(Scope.DIRECTORY_WRITE),
    responses=problem_responses(*CREATE_PROBLEMS),
)
async def create_hospital(request: Request, body: HospitalCreate) -> Response:
    """Create a hospital."""
    return await create_record(request, HospitalService, body)


@router.get(
    "/{unique_id}/",
    response_model=Hospital,
    openapi_extra=requires(Scope.DIRECTORY_READ),
    responses=problem_responses(404),
)
async def get_hospital(request: Request, unique_id: PathId) -> Response:
    """Get one hospital."""
    return await get_record(request, HospitalRepository, unique_id)


@router.patch(
    "/{unique_id}/",
    name="patch_hospital",
    response_model=Hospital,
    openapi_extra=requires(Scope.DIRECTORY_WRITE),
    responses=problem_responses(*UPDATE_PROBLEMS),
)
@router.put(
    "/{unique_id}/",
    response_model=Hospital,
    openapi_extra=requires(Scope.DIRECTORY_WRITE),
    responses=problem_responses(*UPDATE_PROBLEMS),
)
async def update_hospital(request: Request, unique_id: PathId, body: HospitalUpdate) -> Response:
    """Change what is given of a hospital; what is absent stays as it is."""
    return await update_record(request, HospitalService, unique_id, body)


@router.delete(
    "/{unique_id}/",
    status_code=204,
    openapi_extra=requires(Scope.DIRECTORY_WRITE),
    responses=problem_responses(*DELETE_PROBLEMS, 409),
)
async def delete_hospital(request: Request, unique_id: PathId) -> Response:
    """Delete a hospital that no patient is linked to."""
    return await delete_record(request, HospitalService, unique_id)


add_history_routes(router, HospitalService, Hospital, Scope.DIRECTORY_WRITE)
