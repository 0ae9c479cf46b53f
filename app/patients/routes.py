"""The routes of patients, with two features that only patients have: break glass and access lists."""

from app.api.audit import add_access_route
from app.api.crud import add_crud_routes
from app.api.documentation import BREAK_GLASS, SEARCH_HEADERS
from app.api.history import add_history_routes
from app.api.resource import ResourceApi
from app.api.routing import make_router
from app.audit.break_glass import break_glass
from app.auth.scopes import Scope
from app.duplicates.matching import DUPLICATE_CHECK, add_match_route, duplicate_check
from app.merging.routes import add_merge_routes
from app.paths import router_prefix
from app.patient_identifiers.schemas import StoredIdentifier
from app.patients.schemas import (
    MatchCandidate,
    Patient,
    PatientCreate,
    PatientMatch,
    PatientParameters,
    PatientSearch,
    PatientUpdate,
)
from app.patients.service import PatientService, PatientWithIdentifiersService
from app.search.listing import PatientListing

router = make_router(router_prefix("patients"), tag="patients", audited=True)

_PROFILE_SCOPES = (
    " Linking a different profile also needs the scope `profiles:read`. Changing a profile needs `profiles:write`."
)
_LIST_DESCRIPTION = """\
List all patients in the order of their `unique_id`, or those that match the parameters. With `limit`, the response is
one page of the list.

To look for a person, use `POST /patients/patients/search/`, which takes the parameters in its body: servers and proxies
may log URLs."""
_UPDATE_DESCRIPTION = (
    "Update a patient with the fields that the body contains. Absent fields are left unchanged, and `null` clears a "
    "field. `hospital_ids` and `doctor_ids` each replace the whole set of links, and `patient_identifiers` replaces "
    "all identifiers."
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
    search_body=PatientSearch,
    search_errors=[{"loc": ["body", "search"], "msg": "Must have at most 200 characters", "type": "string_too_long"}],
    listing_class=PatientListing,
    list_headers=SEARCH_HEADERS,
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
    creation_check=duplicate_check,
    creation_headers=[DUPLICATE_CHECK],
    updates_can_conflict=True,
    variants={"identifiers": PatientWithIdentifiersService},
    snapshot_types={"patient_identifiers": list[StoredIdentifier]},
    descriptions={
        "list": _LIST_DESCRIPTION,
        "create": "Create a patient, with its profile and its links to hospitals and doctors.",
        "update": _UPDATE_DESCRIPTION,
        "search": "Find patients by parts of names, a date of birth, a mobile number, an e-mail address, an id or a "
        "town, or by the filters of `GET /patients/patients/`. The parameters are in the body, so that URLs and the "
        "logs of proxies do not contain them.",
        "delete": "Delete a patient and all of its links. The profile of the patient is not deleted.",
    },
    write_scopes_sentence=_PROFILE_SCOPES,
)

# before the routes of records: its path is also that of a record with the id `match`
add_match_route(router, resource, PatientMatch, MatchCandidate)
add_crud_routes(router, resource)
add_history_routes(router, resource)
add_access_route(router, resource)
add_merge_routes(
    router,
    resource,
    {"from": "pat456", "choose": {"patient_mobile_number": "loser", "patient_town": "survivor"}, "dry_run": False},
)
