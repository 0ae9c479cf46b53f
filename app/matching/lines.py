"""What an import does with new patients who may be registered already."""

from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import NamedTuple

import asyncpg

from app.db.connection import Connection
from app.matching.candidates import SimilarWords, find_candidates
from app.matching.comparison import Person, compare
from app.matching.weights import STRONG_GRADES


class DuplicatePolicy(StrEnum):
    """What happens to a line with a new patient who may be registered already."""

    REPORT = "report"
    """The patient is stored, and compared in the background, which adds pairs to the queue."""
    REFUSE = "refuse"
    """The line is rejected if the patient probably is a stored one, or that of an earlier line."""
    IGNORE = "ignore"
    """The patient is stored and not compared until a compared field changes or the register is scanned."""


class DuplicateCheck(NamedTuple):
    """The policy, and the region, such as `ZA`, of phone numbers without a country code."""

    policy: DuplicatePolicy
    phone_region: str


REPORT_DUPLICATES = DuplicateCheck(DuplicatePolicy.REPORT, "")
"""The default, which needs no phone numbers."""


async def duplicate_lines(
    connection: Connection, patients: Sequence[asyncpg.Record], phone_region: str, similar_words: SimilarWords
) -> list[int]:
    """Return the lines of new patients who are probably registered already, or in an earlier line.

    `patients` are the lines, each with its number, `line`, and the compared fields, in the order of their numbers.
    """
    today, lines = datetime.now(UTC).date(), []
    earlier: dict[Hashable, list[Person]] = defaultdict(list)
    candidates = await find_candidates(connection, patients, phone_region, similar_words)
    for patient, stored in zip(patients, candidates, strict=True):
        person = Person.from_fields(patient)
        others = [Person.from_fields(one) for one in stored]
        others += {other for key in _keys(person) for other in earlier[key]}
        if any(compare(person, other, today).grade in STRONG_GRADES for other in others):
            lines.append(patient["line"])
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
