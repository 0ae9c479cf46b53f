from fastapi import Request, Response

from app.api.audit import add_access_route
from app.api.break_glass import break_glass
from app.api.crud import add_crud_routes, list_resource
from app.api.documentation import BREAK_GLASS, NEXT_CURSOR_HEADER, TOTAL_COUNT_HEADER, problem_responses
from app.api.history import add_history_routes
from app.api.resource import ResourceApi
from app.api.routing import make_router
from app.auth.scopes import Scope, requires
from app.paths import SEARCH_SUFFIX, router_prefix
from app.patients.schemas import Patient, PatientCreate, PatientParameters, PatientSearch, PatientUpdate
from app.patients.service import PatientService
from app.search.listing import PatientListing

router = make_router(router_prefix("patients"), tag="patients", audited=True)

_PROFILE_SCOPES = (
    " Linking another profile needs the scope `profiles:read` as well, changing one needs `profiles:write`."
)
_LIST_DESCRIPTION = """\
List all patients in the order of their `unique_id`, or those that match the parameters; a page of them with `limit`.

URLs may be logged on their way: use `search_patients` to ask for people."""
_UPDATE_DESCRIPTION = (
    "Change the given fields of a patient: absent ones stay, `null` clears, ids replace the whole set."
)

resource = ResourceApi(
    service_class=PatientService,
    representation=Patient,
    create_body=PatientCreate,
    update_body=PatientUpdate,
    read_scope=Scope.PATIENTS_READ,
    write_scope=Scope.PATIENTS_WRITE,
    delete_scope=Scope.PATIENTS_DELETE,
    example_id="pat123",
    body_errors=[
        {"loc": ["body", "patient_date_of_birth"], "msg": "Must be a date written YYYY-MM-DD", "type": "date"},
        {
            "loc": ["body", "patient_email_address"],
            "msg": "Must be an e-mail address such as name@example.com",
            "type": "email",
        },
    ],
    list_parameters=PatientParameters,
    listing_class=PatientListing,
    reading_principal=break_glass,
    get_headers=[BREAK_GLASS],
    get_errors=[
        {
            "loc": ["header", "X-Break-Glass"],
            "msg": "Must have at most 500 characters",
            "type": "break_glass_reason",
        }
    ],
    patients_link_to_it=False,
    updates_can_conflict=True,
    descriptions={
        "list": _LIST_DESCRIPTION,
        "create": "Create a patient, with its profile and its links to hospitals and doctors." + _PROFILE_SCOPES,
        "update": _UPDATE_DESCRIPTION + _PROFILE_SCOPES,
        "delete": "Delete a patient for good, with all links; the profile stays.",
    },
    write_scopes_sentence=_PROFILE_SCOPES,
)


@router.post(
    f"/{SEARCH_SUFFIX}",
    name="search_patients",
    summary="Search for patients",
    description="List the patients that match the parameters, as `list_patients` does, without any trace of the "
    "parameters in the URL.",
    response_description="The matching patients, or a page of them.",
    response_model=list[Patient],
    openapi_extra=requires(Scope.PATIENTS_READ),
    responses=problem_responses(
        *(400, 413, 415, 422),
        errors=[{"loc": ["body", "search"], "msg": "Must have at most 8 words", "type": "search_words"}],
    )
    | {200: {"headers": {**NEXT_CURSOR_HEADER, **TOTAL_COUNT_HEADER}}},
)
async def search_patients(request: Request, body: PatientSearch) -> Response:
    """Return the patients that match the body."""
    return await list_resource(request, resource, body)


add_crud_routes(router, resource)
add_history_routes(router, resource)
add_access_route(router, resource)
