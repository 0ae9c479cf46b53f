"""Finds the records with the same name as a written one, about which the response warns."""

from collections.abc import Sequence

from app.auth.principal import Principal
from app.db.database import Database
from app.fields.schemas import CreateBody, UpdateBody
from app.listing.listing import Listing
from app.listing.query import ListQuery
from app.records.repository import Repository

MAX_NAMESAKES = 10
"""Maximum number of records with the same name that a response to a write lists."""


async def find_namesakes(
    database: Database,
    principal: Principal,
    repository_class: type[Repository],
    name_field: str | None,
    body: CreateBody | UpdateBody,
) -> Sequence[str]:
    """Return the ids of records that have the name in the body, apart from case and accents.

    Call this before the write, because a failure after it would hide that the write succeeded. If `name_field` is None,
    records of this resource may share names, and the result is empty.
    """
    name = body.sent_fields().get(name_field) if name_field else None
    if name_field is None or name is None:
        return []
    async with database.read() as connection:
        listing = Listing(repository_class(connection, principal))
        return (await listing.page(ListQuery({name_field: [name]}), None, MAX_NAMESAKES + 1)).ids


def name_warning(namesakes: Sequence[str], unique_id: str) -> dict[str, str]:
    """Return the header that warns of other records than `unique_id` with the same name, if there are any."""
    others = [other for other in namesakes if other != unique_id]
    return {"Same-Name-As": ", ".join(others[:MAX_NAMESAKES])} if others else {}
