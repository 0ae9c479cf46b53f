from app.api.crud import add_crud_routes
from app.api.history import add_history_routes
from app.api.resource import ResourceApi
from app.api.routing import make_router
from app.auth.scopes import Scope
from app.doctors.schemas import Doctor, DoctorCreate, DoctorParameters, DoctorUpdate
from app.doctors.service import DoctorService
from app.paths import router_prefix

router = make_router(router_prefix("doctors"), tag="doctors")

resource = ResourceApi(
    service_class=DoctorService,
    representation=Doctor,
    create_body=DoctorCreate,
    update_body=DoctorUpdate,
    read_scope=Scope.DIRECTORY_READ,
    write_scope=Scope.DIRECTORY_WRITE,
    delete_scope=Scope.DIRECTORY_WRITE,
    example_id="doc123",
    body_errors=[{"loc": ["body", "doctor_first_name"], "msg": "Must not be blank", "type": "string_blank"}],
    list_parameters=DoctorParameters,
)
add_crud_routes(router, resource)
add_history_routes(router, resource)
