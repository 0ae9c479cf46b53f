"""Validation of imported lines. The API's schemas validate each line like a request body, with the same messages."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from pydantic import ValidationError

from app.errors import FieldError
from app.fields.schemas import RequestBody, derived_schema
from app.fields.types import TIMESTAMP_FIELDS, Identifier, PastTimestamp
from app.http.field_errors import field_errors
from app.patient_identifiers.resolving import IDENTIFIERS, resolve
from app.patient_identifiers.types import IdentifierType
from app.staging.batches import ValidLine
from app.transfer.reading import ParsedLine
from app.transfer.resources import TransferableResource

REQUIRED_LOCATIONS = {(), ("unique_id",)}
"""Locations of errors for which a value cannot be left out: the whole line, and the id of its record."""


@cache  # building a schema takes as long as storing tens of lines
def _line_schema(base: type[RequestBody]) -> type[RequestBody]:
    """Return the schema of a request with the fields that only lines of a file have."""
    timestamps = dict.fromkeys(TIMESTAMP_FIELDS, (PastTimestamp, None))
    return derived_schema(base.__name__, base, base.__doc__, {"unique_id": (Identifier, ""), **timestamps})


class LineValidator:
    """Validates lines that contain records of one resource.

    With `overwrite`, a line may lack fields that a new record requires, because the record may already exist. With
    `drop_bad_values`, values that are wrong are left out if the line is valid without them.
    """

    def __init__(
        self,
        resource: TransferableResource,
        *,
        overwrite: bool,
        drop_bad_values: bool = False,
        identifier_types: Mapping[str, IdentifierType] | None = None,
    ) -> None:
        """`identifier_types` are the types by which identifiers are resolved; None leaves them as they are."""
        self._schema = _line_schema(resource.update_schema if overwrite else resource.create_schema)
        self._drop_bad_values = drop_bad_values
        self._identifier_types = identifier_types

    def validate(self, line: ParsedLine) -> ValidLine | list[FieldError]:
        """Return the line with its validated values, or all errors in it."""
        if line.record is None:
            return list(line.errors)
        values = self._validate(line.record)
        if isinstance(values, dict) and not line.errors:
            return ValidLine(line.line_number, values, line.remarks)
        errors = [*line.errors, *(values if isinstance(values, list) else ())]
        if not self._drop_bad_values or any(error.loc in REQUIRED_LOCATIONS for error in errors):
            return errors
        values = self._validate(_without_fields(line.record, errors))
        if isinstance(values, list):
            return values
        remarks = [left_out(error) for error in errors]
        return ValidLine(line.line_number, values, [*line.remarks, *remarks])

    def _validate(self, record: dict[str, Any]) -> dict[str, Any] | list[FieldError]:
        """Return the values of a record, or its errors."""
        try:
            values = self._schema.model_validate(record, from_attributes=True).sent_fields()  # like FastAPI
        except ValidationError as error:
            return field_errors(error, self._schema)
        created, updated = (values.get(name) for name in TIMESTAMP_FIELDS)
        if created and updated and updated < created:
            return [FieldError(("last_updated",), "Must not be before date_created", "moment_order")]
        if self._identifier_types is not None and IDENTIFIERS in values:
            resolved = resolve(values[IDENTIFIERS], self._identifier_types, {*values.get("hospital_ids", ())})
            if resolved.errors:
                return resolved.errors
            values[IDENTIFIERS] = resolved.identifiers or None
        return values


def left_out(error: FieldError) -> FieldError:
    """Return the remark that a value with an error was left out."""
    return error._replace(msg=f"Left out: {error.msg}")


def _without_fields(record: dict[str, Any], errors: Sequence[FieldError]) -> dict[str, Any]:
    """Return a record without the fields that have errors."""
    remaining = {name: dict(value) if isinstance(value, dict) else value for name, value in record.items()}
    items = {loc[:2] for loc, _, _ in errors if len(loc) > 1 and loc[0] == IDENTIFIERS}
    if items:
        identifiers = enumerate(remaining[IDENTIFIERS])
        remaining[IDENTIFIERS] = [each for index, each in identifiers if (IDENTIFIERS, index) not in items]
    for loc, _, _ in errors:
        parent = remaining.get(str(loc[0]))
        if loc[:2] in items:
            continue
        if len(loc) > 1 and isinstance(parent, dict) and loc[1] != "unique_id":
            parent.pop(str(loc[1]), None)
        else:
            remaining.pop(str(loc[0]), None)
    return remaining
