"""Batches of valid lines, as rows of the staging tables."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from app.errors import FieldError
from app.fields.types import TIMESTAMP_FIELDS
from app.identifiers import new_identifier
from app.staging.copied_values import copied_row

if TYPE_CHECKING:
    from app.staging.records import Staging


class ValidLine(NamedTuple):
    """A line that has passed all checks that do not need the database."""

    line_number: int
    values: dict[str, Any]
    """The validated values by field name. Fields that the line does not set are absent."""
    remarks: Sequence[FieldError] = ()
    """What was left out of the line."""


class StagedBatch:
    """The rows of several lines, with at most one line per record.

    A line must go into the next batch if this batch already contains a line with the same id.
    """

    def __init__(self, staging: "Staging") -> None:
        self._staging = staging
        self._rows: list[str] = []
        self.link_count = 0
        """Number of links to other records in all lines of the batch."""
        self._ids: set[str] = set()

    @property
    def tables(self) -> list[bytes]:
        """The rows for each staging table that `Staging.stage` fills, in the text format of COPY.

        A row has the number of the line, the id, the mask of the fields that the line sets, and the values.
        """
        return ["".join(self._rows).encode()]

    def can_add(self, line: ValidLine) -> bool:
        """Return whether a line can be added, which requires that its record is not in the batch yet."""
        return line.values.get("unique_id") not in self._ids

    def add(self, line: ValidLine) -> None:
        """Add the row of a line to the batch. Generate an id for the record if the line has none."""
        values = line.values
        unique_id = values.get("unique_id") or new_identifier(self._staging.repository.prefix)
        self._ids.add(unique_id)
        field_mask = sum([bit for name, bit in self._staging.field_bits.items() if name in values])
        timestamps = [values.get(name) for name in TIMESTAMP_FIELDS]
        field_values = [values.get(name) for name in self._staging.field_bits]
        self.link_count += sum([len(values.get(name, ())) for name in self._staging.repository.link_relations])
        self._rows.append(copied_row((line.line_number, unique_id, field_mask, *timestamps, *field_values)))
