"""The results of importing the lines of a file: statuses, errors and remarks."""

from enum import StrEnum
from typing import NamedTuple

from app.errors import FieldError
from app.statements.links import unknown_link_error


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


class UnknownLink(NamedTuple):
    """A link of a staged line to a record that does not exist."""

    line_number: int
    name: str
    """The name of the set of links, such as `hospital_ids`."""
    index_in_set: int
    """The index in the set, counted from 0."""
    unique_id: str

    @property
    def error(self) -> FieldError:
        """The error of the field."""
        return unknown_link_error(self.name, self.index_in_set, self.unique_id)
