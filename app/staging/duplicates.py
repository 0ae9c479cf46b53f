"""What an import does with new patients who may be registered already."""

from collections.abc import Collection
from enum import StrEnum
from typing import TYPE_CHECKING

from app.db.connection import Connection
from app.db.database import set_local

if TYPE_CHECKING:
    from app.matching.lines import LineMatcher

DUPLICATE_MESSAGE = "May describe a person who is registered already, or is in an earlier line"
COMPARE_NOBODY = set_local({"patients.compare_patients": "never"})
"""Statement by which the rest of a transaction queues no patients to be compared."""


class DuplicatePolicy(StrEnum):
    """What happens to a line with a new patient who may be registered already."""

    REPORT = "report"
    """The patient is stored, and compared in the background, which adds pairs to the queue."""
    REFUSE = "refuse"
    """The line is rejected if the patient probably is a stored one, or that of an earlier line."""
    IGNORE = "ignore"
    """The patient is stored and not compared until a compared field changes or the register is scanned."""

    def matcher(self, connection: Connection, hospitals: Collection[str] | None = None) -> "LineMatcher | None":
        """Return what finds the lines to reject, within a hospital scope, or None if the policy rejects none."""
        if self is not DuplicatePolicy.REFUSE:
            return None
        from app.matching.lines import LineMatcher  # noqa: PLC0415  # no other import needs its lists and libraries

        return LineMatcher(connection, hospitals)
