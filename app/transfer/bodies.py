"""Validation of imported lines. The API's schemas validate each line like a request body, with the same messages."""

from typing import Any, NamedTuple

from pydantic import ValidationError, create_model

from app.errors import FieldError
from app.fields.schemas import RequestBody
from app.fields.types import Identifier, PastTimestamp
from app.http.field_errors import field_errors
from app.transfer.reading import ParsedLine
from app.transfer.resources import TransferableResource

TIMESTAMP_FIELDS = ("date_created", "last_updated")


class ValidLine(NamedTuple):
    """A line that has passed all checks that do not need the database."""

    line_number: int
    values: dict[str, Any]
    """The validated values by field name. Fields that the line does not set are absent."""


class LineValidator:
    """Validates lines that contain records of one resource.

    With `overwrite`, a line may lack fields that a new record requires, because the record may already exist.
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
        """Return the line with its validated values, or all errors in it."""
        if line.record is None:
            return list(line.errors)
        try:
            values = self._schema.model_validate(line.record, from_attributes=True).sent_fields()  # like FastAPI
        except ValidationError as error:
            return field_errors(error, self._schema)
        created, updated = (values.get(name) for name in TIMESTAMP_FIELDS)
        if created and updated and updated < created:
            return [FieldError(("last_updated",), "Must not be before date_created", "moment_order")]
        return ValidLine(line.line_number, values)
