"""The errors of files that cannot be read, and of cells that cannot be understood."""

from app.error_types import FileErrorType
from app.errors import FieldError


class UnreadableFileError(Exception):
    """An import cannot read or use a file. The message says where the problem is and what to change."""


class CellError(Exception):
    """The text of a cell cannot be understood. The message says what is wrong, without the text."""

    def __init__(self, error_type: FileErrorType, message: str) -> None:
        super().__init__(message)
        self.error_type = error_type
        self.message = message

    def in_field(self, *location: str) -> FieldError:
        """Return this error as the error of a field."""
        return FieldError(location, self.message, self.error_type)
