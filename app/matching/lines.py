"""The lines of an import with new patients who are probably registered already."""

from collections import defaultdict
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar

from app.db.connection import Connection
from app.matching.candidates import find_candidates
from app.matching.comparison import can_be_pair, compare
from app.matching.person import COMPARED_FIELDS, Person
from app.matching.similar_words import SimilarWords
from app.matching.weights import STRONG_GRADES


class LineMatcher:
    """Finds the lines of new patients who are probably registered already, or in an earlier line."""

    compared_fields: ClassVar[Sequence[str]] = COMPARED_FIELDS

    def __init__(self, connection: Connection, hospitals: Collection[str] | None = None) -> None:
        """`hospitals` is the hospital scope of the registered patients; None means all."""
        self._connection = connection
        self._similar_words = SimilarWords(hospitals)

    async def duplicate_lines(self, patients: Sequence[Mapping[str, Any]]) -> dict[int, list[str]]:
        """Return the lines of a batch whose patients are probably others, each with the ids of the stored ones.

        A line has no ids if its patient is only that of an earlier line. `patients` are the lines, each with its
        number, `line`, and the compared fields, in the order of their numbers. A line may also have `not_duplicates`,
        the ids of stored patients who are known to be others.
        """
        today, lines = datetime.now(UTC).date(), dict[int, list[str]]()

        def is_duplicate(one: Person, other: Person) -> bool:
            return can_be_pair(one, other) and compare(one, other, today).grade in STRONG_GRADES

        earlier: dict[Hashable, list[Person]] = defaultdict(list)
        candidates = await find_candidates(self._connection, patients, self._similar_words)
        for patient, stored in zip(patients, candidates, strict=True):
            person = Person.from_fields(patient)
            ids = [
                one["unique_id"]
                for one in stored
                if one["unique_id"] not in patient.get("not_duplicates", ())
                and is_duplicate(person, Person.from_fields(one))
            ]
            others = {other for key in _keys(person) for other in earlier[key]}
            if ids or any(is_duplicate(person, other) for other in others):
                lines[patient["line"]] = ids
                continue
            for key in _keys(person):
                earlier[key].append(person)
        return lines


def _keys(person: Person) -> Iterator[Hashable]:
    """Yield what two lines of a batch have in common if they are compared."""
    if person.date_of_birth:
        yield person.date_of_birth
    if person.first_name and person.last_name:
        yield frozenset((person.first_name, person.last_name))
    if person.phone:
        yield person.phone
