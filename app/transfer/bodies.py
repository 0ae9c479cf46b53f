"""What a line of a file has to be: the body of a request, checked by the API's own schemas in their own words."""

from typing import Any, NamedTuple

from pydantic import ValidationError, create_model

from app.errors import FieldError
from app.http.problems import field_errors
from app.resource.schemas import RequestBody
from app.resource.values import Identifier, Recorded
from app.transfer.reading import Line
from app.transfer.resources import Transferred

MOMENTS = ("date_created", "last_updated")


class Body(NamedTuple):
    """A line that is right as far as it can be told without the database."""

    line: int
    values: dict[str, Any]
    """The fields that it gives, and no others."""


class Bodies:
    """Checks lines of one resource.

    With `update`, what has to be there of a new record may be missing: the record may be there already.
    """

    def __init__(self, transferred: Transferred, *, update: bool) -> None:
        base: type[RequestBody] = transferred.update if update else transferred.create
        moment: Any = (Recorded, None)
        self._schema = create_model(
            base.__name__, __base__=base, unique_id=(Identifier, ""), date_created=moment, last_updated=moment
        )

    def check(self, line: Line) -> Body | list[FieldError]:
        """The body of a line, or all that is wrong with it."""
        if line.record is None:
            return list(line.errors)
        try:
            values = self._schema.model_validate(line.record, from_attributes=True).given()  # as FastAPI does
        except ValidationError as error:
            return field_errors(error)
        created, updated = (values.get(name) for name in MOMENTS)
        if created and updated and updated < created:
            return [FieldError(("last_updated",), "Must not be before date_created", "moment_order")]
        return Body(line.number, values)
