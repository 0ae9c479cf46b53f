"""The parameters of an import over HTTP, and the lines of its response."""

from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict

from app.error_types import ErrorType, FileErrorType
from app.fields.schemas import Schema, tidy_json_schema
from app.fields.types import BooleanParameter

ImportStatus = Literal["created", "updated", "unchanged", "rejected", "not_stored"]


class ImportParameters(Schema):
    """The query parameters of an import."""

    model_config = ConfigDict(
        extra="forbid", hide_input_in_errors=True, use_attribute_docstrings=True, json_schema_extra=tidy_json_schema
    )

    dry_run: BooleanParameter = False
    """Check everything, also against the database, but store nothing."""
    update: BooleanParameter = False
    """Update existing patients, as PUT does. Without it, a line that differs from its patient is rejected."""
    allow_other_person: BooleanParameter = False
    """With `update`, a line may change both the name and the date of birth of a patient. Without it, such a line is
    rejected, because its id may be wrong."""
    on_error: Literal["stop", "skip"] = "stop"
    """If lines are rejected, store nothing (`stop`, the default) or only the other lines (`skip`)."""
    duplicates: Literal["report", "refuse", "ignore"] | None = None
    """What happens to new patients who may be registered already. `refuse`: their lines are rejected. Sending
    `refuse` needs the scope `patients:read`. `report`: they are stored, and their pairs are added to the queue of
    possible duplicates. `ignore`: they are stored and not compared. The operator chooses whether the default is
    `report` or `refuse`."""


class ImportLineError(BaseModel):
    """One error in a line of an import."""

    loc: list[str | int]
    msg: str
    type: ErrorType | FileErrorType


class ImportResult(Schema):
    """The result of importing one line."""

    example: ClassVar = {"line": 1, "status": "created", "unique_id": "pat123", "version": 1, "errors": []}

    model_config = ConfigDict(use_attribute_docstrings=True)

    line: int
    """The number of the line, counted from 1."""
    status: ImportStatus
    """`not_stored` means that the line is valid, but that nothing was stored because other lines were rejected."""
    unique_id: str | None
    """The id of the patient, or `null` if the line was rejected."""
    version: int | None
    """The version of the patient after this line, or `null` if nothing was stored."""
    errors: list[ImportLineError]
    """The reasons why the line was rejected, or remarks on a line that was not rejected. A location begins with the
    name of the field.
    """
