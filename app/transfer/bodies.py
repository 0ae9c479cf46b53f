"""What a line of a file has to be: the body of a request, checked by the API's own schemas in their own words."""

from typing import Any, NamedTuple

from pydantic import ValidationError, create_model

from app.errors import FieldError
from app.fields.schemas import RequestBody
from app.fields.types import Identifier, PastTimestamp
from app.http.problems import field_errors
from app.transfer.reading import ParsedLine
from app.transfer.resources import TransferableResource

TIMESTAMP_FIELDS = ("date_created", "last_updated")


class ValidLine(NamedTuple):
    """A line that is right as far as it can be told without the database."""

    line_number: int
    values: dict[str, Any]
    """The fields that it gives, and no others."""


class LineValidator:
    """Checks lines of one resource.

    With `update`, what has to be there of a new record may be missing: the record may be there already.
    """

    def __init__(self, resource: TransferableResource, *, overwrite: bool) -> None:
        base: type[RequestBody] = resource.update_schema if overwrite else resource.create_schema
        timestamp_field: Any = (PastTimestamp, None)
        self._schema = create_model(
            base.__name__,
            __base__=base,
            unique_id=(Identifier, ""),
            date_created=timestamp_field,
            last_updated=timestamp_field,
        )

    def validate(self, line: ParsedLine) -> ValidLine | list[FieldError]:
        """The body of a line, or all that is wrong with it."""
        if line.record is None:
            return list(line.errors)
        try:
            values = self._schema.model_validate(line.record, from_attributes=True).sent_fields()  # as FastAPI does
        except ValidationError as error:
            return field_errors(error)
        created, updated = (values.get(name) for name in TIMESTAMP_FIELDS)
        if created and updated and updated < created:
            return [FieldError(("last_updated",), "Must not be before date_created", "moment_order")]
        return ValidLine(line.line_number, values)
