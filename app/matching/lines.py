"""The lines of an import with new patients who are probably registered already."""

from collections import defaultdict
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
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

    async def compare(self, patients: Sequence[Mapping[str, Any]]) -> "ComparedBatch":
        """Compare the lines of a batch with stored patients.

        `patients` are the lines, each with its number, `line`, and the compared fields. A line may also have
        `not_duplicates`, the ids of stored patients who are known to be others.
        """
        batch = ComparedBatch()
        candidates = await find_candidates(self._connection, patients, self._similar_words)
        for patient, stored in zip(patients, candidates, strict=True):
            others = [one for one in stored if one["unique_id"] not in patient.get("not_duplicates", ())]
            batch.add(patient["line"], Person.from_fields(patient), others)
        return batch


class ComparedBatch:
    """The new patients in the lines of a batch, and the stored patients that they probably are."""

    def __init__(self) -> None:
        self._today = datetime.now(UTC).date()
        self._persons: dict[int, Person] = {}
        self._stored_ids: dict[int, list[str]] = {}
        self._accepted: dict[Hashable, list[Person]] = defaultdict(list)

    def add(self, line: int, person: Person, candidates: Sequence[Mapping[str, Any]]) -> None:
        """Add a line, and compare its patient with stored ones."""
        self._persons[line] = person
        self._stored_ids[line] = [
            one["unique_id"] for one in candidates if _is_duplicate(person, Person.from_fields(one), self._today)
        ]

    @property
    def lines(self) -> Collection[int]:
        """The numbers of the lines."""
        return self._persons.keys()

    def duplicates(self, line: int) -> list[str] | None:
        """Return the ids of the stored patients that a line's patient probably is, or None if it is probably a new one.

        There are no ids if the patient is only that of an earlier line that was accepted.
        """
        ids, person = self._stored_ids.get(line), self._persons.get(line)
        if ids or person is None:
            return ids
        others = {other for key in _keys(person) for other in self._accepted[key]}
        return ids if any(_is_duplicate(person, other, self._today) for other in others) else None

    def accept(self, line: int) -> None:
        """Compare later lines with a line, too, because it is stored unless something unexpected happens."""
        if (person := self._persons.get(line)) is not None:
            for key in _keys(person):
                self._accepted[key].append(person)


def _is_duplicate(one: Person, other: Person, today: date) -> bool:
    return can_be_pair(one, other) and compare(one, other, today).grade in STRONG_GRADES


def _keys(person: Person) -> Iterator[Hashable]:
    """Yield what two lines of a batch have in common if they are compared."""
    if person.date_of_birth:
        yield person.date_of_birth
    if person.first_name and person.last_name:
        yield frozenset((person.first_name, person.last_name))
    if person.phone:
        yield person.phone
