from app.api.crud import add_crud_routes
from app.api.history import add_history_routes
from app.api.resource import ResourceApi
from app.api.routing import make_router
from app.auth.scopes import Scope
from app.hospitals.schemas import Hospital, HospitalCreate, HospitalParameters, HospitalUpdate
from app.hospitals.service import HospitalService
from app.paths import router_prefix

router = make_router(router_prefix("hospitals"), tag="hospitals")

resource = ResourceApi(
    service_class=HospitalService,
    representation=Hospital,
    create_body=HospitalCreate,
    update_body=HospitalUpdate,
    read_scope=Scope.DIRECTORY_READ,
    write_scope=Scope.DIRECTORY_WRITE,
    delete_scope=Scope.DIRECTORY_WRITE,
    example_id="hos123",
    body_errors=[{"loc": ["body", "hospital_name"], "msg": "Must not be blank", "type": "string_blank"}],
    list_parameters=HospitalParameters,
    name_field="hospital_name",
)
add_crud_routes(router, resource)
add_history_routes(router, resource)
