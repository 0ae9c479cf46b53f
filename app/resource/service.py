"""What can be done to a record of any resource. Each call runs in a transaction that `Database.transaction` commits."""

from collections.abc import Iterator
from typing import ClassVar, Generic, TypeVar

from sqlalchemy.ext.asyncio import AsyncConnection

from app.auth.principal import Principal
from app.errors import FieldError, InvalidError
from app.resource.repository import Record, Repository
from app.resource.schemas import CreateBody, UpdateBody

C = TypeVar("C", bound=CreateBody)
U = TypeVar("U", bound=UpdateBody)


class Service(Generic[C, U]):
    """Create, update and delete records of one resource, on behalf of one principal."""

    repository_class: ClassVar[type[Repository]]

    def __init__(self, connection: AsyncConnection, principal: Principal) -> None:
        self.connection = connection
        self.principal = principal
        self.repository = self.repository_class(connection, principal)

    async def create(self, body: C) -> Record:
        """Create a record, under the client's id if there is one.

        Raises:
            IdentifierTakenError: a record has the id, or had it.
        """
        values = body.given()
        unique_id = await self.repository.insert(values.pop("unique_id", None), values)
        return await self.repository.get(unique_id)

    async def update(self, unique_id: str, body: U) -> Record:
        """Change what is given of a record. Where nothing differs nothing is written.

        Raises:
            NotFoundError: there is none of this id.
            InvalidError: the body has another `unique_id`.
        """
        locked = await self.repository.lock(unique_id)
        if errors := [*renaming(unique_id, body)]:
            raise InvalidError(errors)
        await self.repository.update(locked, body.given())
        return await self.repository.get(unique_id)

    async def delete(self, unique_id: str) -> None:
        """Delete a record for good; its id is never used again.

        Raises:
            NotFoundError: there is none of this id.
            InUseError: patients are linked to it.
        """
        await self.repository.refuse_in_use(unique_id)
        await self.repository.delete(unique_id)


def renaming(unique_id: str, body: UpdateBody) -> Iterator[FieldError]:
    """The error of a body whose `unique_id` is not that of the path."""
    if "unique_id" in body.model_fields_set and body.unique_id != unique_id:
        message = "Must be the unique_id of the path or left out: it never changes"
        yield FieldError(("body", "unique_id"), message, "unique_id_change")
