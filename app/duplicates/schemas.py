"""Request and response bodies of the queue of possible duplicates."""

from typing import Annotated, ClassVar, Literal

from app.duplicates.queue import QueueQuery
from app.fields.schemas import Representation, RequestBody
from app.fields.types import Identifier, OneOrMany, Text, Timestamp, TimestampParameter
from app.listing.pagination import PageParameters
from app.matching.weights import Grade
from app.models import duplicates

Status = Literal["open", "dismissed", "merged"]
GradeName = Literal["certain", "probable", "possible"]


class DuplicateParameters(PageParameters):
    """Filters for pairs of patients that may be one person. A pair has to match all filters."""

    status: Status | None = None
    """`open`, the default, lists the pairs on which nobody has decided, `dismissed` those that are two persons, and
    `merged` those that were merged."""
    grade: OneOrMany[GradeName] | None = None
    """Return only pairs with this grade. You can give this filter several times."""
    hospital_id: OneOrMany[Identifier] | None = None
    """Return only pairs with a patient of the hospital with this id. You can give this filter several times."""
    found__gte: TimestampParameter | None = None
    """Return only pairs that were found at or after this timestamp."""
    found__lt: TimestampParameter | None = None
    """Return only pairs that were found before this timestamp, such as those that have been waiting for a week."""
    count: Literal["exact"] | None = None
    """Set this to `exact` to get the number of pairs in the list in the `X-Total-Count` header."""

    def to_query(self) -> QueueQuery:
        """Return the query that these parameters ask for."""
        return QueueQuery(self.status or "open", self.grade, self.hospital_id, self.found__gte, self.found__lt)


class Duplicate(Representation):
    """Two patients that may be one person."""

    example: ClassVar = {
        "unique_id": "dup_01m82ajx1ew0r14nzv08mnkrmd",
        "patients": ["pat123", "pat456"],
        "grade": "probable",
        "score": 19.4,
        "agrees": ["patient_last_name", "patient_date_of_birth"],
        "differs": ["patient_mobile_number"],
        "status": "open",
        "found": "2026-11-30T08:30:00.123456Z",
    }

    unique_id: Identifier
    patients: list[str]
    """The ids of the two patients."""
    grade: Grade
    """How likely it is that they are one person."""
    score: float
    """The sum of the weights of the compared fields, in bits."""
    agrees: list[str]
    """The names of the fields that speak for one person."""
    differs: list[str]
    """The names of the fields that speak against it."""
    status: Status
    found: Timestamp
    """When the pair was found or, if it was dismissed and then changed, found again."""


class Dismissal(RequestBody):
    """The decision that two patients are two persons."""

    example: ClassVar = {"reason": "Twins: the mother confirmed both names."}

    reason: Annotated[str, Text(duplicates.c.reason)]
    """Why they are two persons, for those who wonder later. Do not include more personal data than necessary."""
