from app.api.crud import add_crud_routes
from app.api.history import add_history_routes
from app.api.resource import ResourceApi
from app.api.routing import make_router
from app.auth.scopes import Scope
from app.paths import router_prefix
from app.profiles.schemas import Profile, ProfileCreate, ProfileParameters, ProfileSearch, ProfileUpdate
from app.profiles.service import ProfileService

router = make_router(router_prefix("profiles"), tag="profiles", audited=True)

resource = ResourceApi(
    service_class=ProfileService,
    representation=Profile,
    create_body=ProfileCreate,
    update_body=ProfileUpdate,
    read_scope=Scope.PROFILES_READ,
    write_scope=Scope.PROFILES_WRITE,
    delete_scope=Scope.PROFILES_WRITE,
    example_id="prof123",
    body_errors=[
        {"loc": ["body", "email"], "msg": "Must be an e-mail address such as name@example.com", "type": "email"}
    ],
    list_parameters=ProfileParameters,
    search_body=ProfileSearch,
    search_errors=[
        {
            "loc": ["body", "emial"],
            "msg": "There is no such field or parameter; did you mean email?",
            "type": "extra_forbidden",
        }
    ],
    descriptions={
        "list": "List all profiles in the order of their `unique_id`, or the profiles that match the parameters. With "
        "`limit`, the response is one page of the list.\n\nServers and proxies may log URLs. To look for a person, use "
        "`POST /profiles/profiles/search/`, which takes the parameters in its body."
    },
)
add_crud_routes(router, resource)
add_history_routes(router, resource)
