"""What became of the lines of an import file."""

from enum import StrEnum
from typing import NamedTuple

from app.errors import FieldError


class RowStatus(StrEnum):
    """The effect of an imported line: its record is created, updated or left unchanged."""

    CREATED = "created"
    UPDATED = "updated"
    UNCHANGED = "unchanged"


class RowError(NamedTuple):
    """An error in a line of an import file, or a remark on a line that is stored nevertheless."""

    line_number: int
    error: FieldError
    is_remark: bool = False
