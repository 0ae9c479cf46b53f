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
from app.profiles.repository import ProfileRepository
from app.profiles.schemas import Profile, ProfileCreate, ProfileUpdate
from app.profiles.service import ProfileService

router = make_router("/profiles/profiles", tag="profiles", audited=True)


@router.get(
    "/",
    response_model=list[Profile],
    openapi_extra=requires(Scope.PROFILES_READ) | openapi_query_parameters(ListParameters),
    responses=problem_responses(422),
)
async def list_profiles(request: Request) -> Response:
    """List all profiles in the order of their `unique_id`, or a page of them with `limit` and `cursor`."""
    return await list_records(request, ProfileRepository, parse_query(request, ListParameters))


@router.post(
    "/",
    status_code=201,
    response_model=Profile,
    openapi_extra=requires(Scope.PROFILES_WRITE),
    responses=problem_responses(*CREATE_PROBLEMS),
)
async def create_profile(request: Request, body: ProfileCreate) -> Response:
    """Create a profile."""
    return await create_record(request, ProfileService, body)


@router.get(
    "/{unique_id}/",
    response_model=Profile,
    openapi_extra=requires(Scope.PROFILES_READ),
    responses=problem_responses(404),
)
async def get_profile(request: Request, unique_id: PathId) -> Response:
    """Get one profile."""
    return await get_record(request, ProfileRepository, unique_id)


@router.patch(
    "/{unique_id}/",
    name="patch_profile",
    response_model=Profile,
    openapi_extra=requires(Scope.PROFILES_WRITE),
    responses=problem_responses(*UPDATE_PROBLEMS),
)
@router.put(
    "/{unique_id}/",
    response_model=Profile,
    openapi_extra=requires(Scope.PROFILES_WRITE),
    responses=problem_responses(*UPDATE_PROBLEMS),
)
async def update_profile(request: Request, unique_id: PathId, body: ProfileUpdate) -> Response:
    """Change what is given of a profile; what is absent stays as it is."""
    return await update_record(request, ProfileService, unique_id, body)


@router.delete(
    "/{unique_id}/",
    status_code=204,
    openapi_extra=requires(Scope.PROFILES_WRITE),
    responses=problem_responses(*DELETE_PROBLEMS, 409),
)
async def delete_profile(request: Request, unique_id: PathId) -> Response:
    """Delete a profile that no patient is linked to."""
    return await delete_record(request, ProfileService, unique_id)


add_history_routes(router, ProfileService, Profile, Scope.PROFILES_WRITE)
