from fastapi import Request, Response

from app.auth.scopes import Scope, needs
from app.hospitals.repository import HospitalRepository
from app.hospitals.schemas import Hospital, HospitalCreate, HospitalUpdate
from app.hospitals.service import HospitalService
from app.http.query import read_query, takes
from app.http.routing import make_router, problems
from app.journal.routes import add_history_routes
from app.resource.pages import ListParameters
from app.resource.routes import (
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

router = make_router("/hospitals/hospitals", tag="hospitals")


@router.get(
    "/",
    response_model=list[Hospital],
    openapi_extra=needs(Scope.DIRECTORY_READ) | takes(ListParameters),
    responses=problems(422),
)
async def list_hospitals(request: Request) -> Response:
    """List all hospitals in the order of their `unique_id`, or a page of them with `limit` and `cursor`."""
    return await list_records(request, HospitalRepository, read_query(request, ListParameters))


@router.post(
    "/",
    status_code=201,
    response_model=Hospital,
    openapi_extra=needs(Scope.DIRECTORY_WRITE),
    responses=problems(*CREATE_PROBLEMS),
)
async def create_hospital(request: Request, body: HospitalCreate) -> Response:
    """Create a hospital."""
    return await create_record(request, HospitalService, body)


@router.get(
    "/{unique_id}/", response_model=Hospital, openapi_extra=needs(Scope.DIRECTORY_READ), responses=problems(404)
)
async def get_hospital(request: Request, unique_id: PathId) -> Response:
    """Get one hospital."""
    return await get_record(request, HospitalRepository, unique_id)


@router.patch(
    "/{unique_id}/",
    name="patch_hospital",
    response_model=Hospital,
    openapi_extra=needs(Scope.DIRECTORY_WRITE),
    responses=problems(*UPDATE_PROBLEMS),
)
@router.put(
    "/{unique_id}/",
    response_model=Hospital,
    openapi_extra=needs(Scope.DIRECTORY_WRITE),
    responses=problems(*UPDATE_PROBLEMS),
)
async def update_hospital(request: Request, unique_id: PathId, body: HospitalUpdate) -> Response:
    """Change what is given of a hospital; what is absent stays as it is."""
    return await update_record(request, HospitalService, unique_id, body)


@router.delete(
    "/{unique_id}/",
    status_code=204,
    openapi_extra=needs(Scope.DIRECTORY_WRITE),
    responses=problems(*DELETE_PROBLEMS, 409),
)
async def delete_hospital(request: Request, unique_id: PathId) -> Response:
    """Delete a hospital that no patient is linked to."""
    return await delete_record(request, HospitalService, unique_id)


add_history_routes(router, HospitalService, Hospital, Scope.DIRECTORY_WRITE)
