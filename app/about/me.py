"""The route that returns the name, the scopes and the hospitals of the caller."""

from fastapi import Request, Response

from app.api.documentation import problem_responses
from app.api.routing import make_router, passthrough
from app.auth.principal import Principal
from app.auth.schemas import CurrentPrincipal
from app.auth.scopes import ANY_CREDENTIALS

router = make_router("/me", tag="me")


@router.get(
    "/",
    name="get_current_principal",
    summary="Get your own permissions",
    description="Get the name, the scopes and the hospitals of your credentials, for instance to hide buttons for what "
    "they do not permit. Any valid credentials suffice. If the service does not require authentication, the name is "
    "`local`, and everything is permitted.",
    response_description="The principal of the request.",
    response_model=CurrentPrincipal,
    openapi_extra=ANY_CREDENTIALS,
    responses=problem_responses(),
)
@passthrough
async def get_current_principal(request: Request) -> Response:
    """Return the name, the effective scopes and the hospitals of the principal of the request."""
    principal = Principal.from_request(request)
    current = CurrentPrincipal(
        name=principal.name,
        scopes=principal.effective_scopes,
        hospitals=None if principal.hospitals is None else sorted(principal.hospitals),
    )
    return Response(current.model_dump_json(), media_type="application/json")
