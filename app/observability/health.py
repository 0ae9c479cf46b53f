"""Whether the process lives, and whether it can serve."""

from fastapi import Request, Response

from app.auth.scopes import OPEN
from app.db.migrate import schema_is_current
from app.db.session import Database
from app.errors import UnavailableError
from app.http.routing import make_router, problems

router = make_router("", tag="health")


@router.get("/livez", status_code=204, openapi_extra=OPEN, responses=problems(database=False))
async def livez() -> Response:
    """Whether the process lives; asks nothing else. Restart it where this fails."""
    return Response(status_code=204)


@router.get("/readyz", status_code=204, openapi_extra=OPEN, responses=problems())
async def readyz(request: Request) -> Response:
    """Whether the database answers and has the schema that this version needs. Send no requests where this fails."""
    if request.app.state.stopping:
        raise UnavailableError("The service is stopping.")
    database: Database = request.app.state.database
    async with database.read() as connection:
        if not await schema_is_current(connection):
            raise UnavailableError("The database lacks migrations: run `patients-api migrate`.")
    return Response(status_code=204)
