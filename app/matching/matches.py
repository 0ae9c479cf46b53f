"""The stored patients that may be a given person, for requests that ask for them."""

from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from app.db.connection import Connection
from app.errors import ValidationFailedError
from app.matching.candidates import find_candidates
from app.matching.comparison import Comparison, can_be_pair, compare
from app.matching.person import COMPARED_FIELDS, Person
from app.matching.similar_words import SimilarWords
from app.matching.weights import THRESHOLDS
from app.patient_identifiers.resolving import IDENTIFIERS, resolve
from app.patient_identifiers.types import read_types

MAX_MATCHES = 20
"""Maximum number of patients that a match returns."""
_RANKS = {grade: rank for rank, grade in enumerate(THRESHOLDS)}


class Match(NamedTuple):
    """A stored patient that may be the given person."""

    unique_id: str
    comparison: Comparison


async def find_matches(
    connection: Connection,
    fields: Mapping[str, Any],
    similar_words: SimilarWords,
    excluded_ids: Collection[str] = (),
) -> list[Match]:
    """Return the patients that may be the person with the given fields, best first, at most `MAX_MATCHES`.

    `fields` contains some of the `COMPARED_FIELDS`, with identifiers as requests have them, and `hospital_ids`. Only
    patients in the hospital scope of `similar_words` are considered, and none with one of the `excluded_ids`.

    Raises:
        ValidationFailedError: an identifier is invalid.
    """
    given = {name: fields.get(name) for name in COMPARED_FIELDS}
    if given[IDENTIFIERS]:
        resolved = resolve(given[IDENTIFIERS], await read_types(connection), {*fields.get("hospital_ids", ())})
        if resolved.errors:
            raise ValidationFailedError(error._replace(loc=("body", *error.loc)) for error in resolved.errors)
        given[IDENTIFIERS] = resolved.identifiers
    await similar_words.refresh_if_old(connection)
    (candidates,) = await find_candidates(connection, [given], similar_words)
    person, today = Person.from_fields(given), datetime.now(UTC).date()
    others = {one["unique_id"]: Person.from_fields(one) for one in candidates if one["unique_id"] not in excluded_ids}
    matches = [
        Match(unique_id, compare(person, other, today))
        for unique_id, other in others.items()
        if can_be_pair(person, other)
    ]
    return sorted((match for match in matches if match.comparison.grade is not None), key=_order)[:MAX_MATCHES]


def _order(match: Match) -> tuple[int, float, str]:
    grade = match.comparison.grade
    return (len(_RANKS) if grade is None else _RANKS[grade], -match.comparison.score, match.unique_id)
