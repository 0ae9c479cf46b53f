"""Stored pairs of patients that may be one person: found, written, and found again when their values change."""

import hashlib
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from datetime import date
from itertools import chain, combinations
from types import MappingProxyType
from typing import Any, NamedTuple

from pydantic_core import to_json
from sqlalchemy import ARRAY, Text, any_, bindparam, or_, select, text
from sqlalchemy.dialects.postgresql import JSON

from app.db.base import ID_TEXT
from app.db.connection import Connection
from app.identifiers import new_identifier
from app.matching.candidates import find_candidates
from app.matching.comparison import Comparison, can_be_pair, compare
from app.matching.person import COMPARED_FIELDS, Person
from app.matching.similar_words import SimilarWords
from app.matching.weights import STRONG_GRADES, Grade
from app.models import Patient, duplicates

PREFIX = "dup"
"""Beginning of the ids of pairs."""
MAX_RECORDS_OF_PERSON = 20
"""Maximum number of patients that match a patient so well that they imply further pairs. A patient with more of them is
hardly one person, but something like Test Patient, and implies none.
"""
Pair = tuple[str, str]
"""The ids of two patients in their order."""

_IDS = bindparam("ids", type_=ARRAY(ID_TEXT))
_PATIENTS = Patient.__table__.c
_SELECT_PATIENTS = select(_PATIENTS.unique_id, *(_PATIENTS[name] for name in COMPARED_FIELDS)).where(
    _PATIENTS.unique_id == any_(_IDS)
)
_IS_STRONG = duplicates.c.grade == any_(bindparam("grades", sorted(STRONG_GRADES), type_=ARRAY(ID_TEXT)))
_HAS_PATIENT = or_(duplicates.c.one_id == any_(_IDS), duplicates.c.other_id == any_(_IDS))
_SELECT_STORED_PAIRS = select(duplicates.c.one_id, duplicates.c.other_id, duplicates.c.status).where(
    or_(_HAS_PATIENT, duplicates.c.through_id == any_(_IDS))
)
_SELECT_STRONG_PAIRS = select(duplicates.c.one_id, duplicates.c.other_id).where(
    _HAS_PATIENT, _IS_STRONG, duplicates.c.status == "open", duplicates.c.through_id.is_(None)
)
_UPSERT_PAIRS = text(
    """
    INSERT INTO duplicates
        (unique_id, one_id, other_id, grade, own_grade, score, agrees, differs, through_id, fingerprint)
    SELECT
        found.unique_id, one_id, other_id, grade, own_grade, score, agrees, differs, through_id,
        decode(fingerprint, 'hex')
    FROM json_to_recordset(:pairs) AS found(
        unique_id text, one_id text, other_id text, grade text, own_grade text, score float8, agrees text[],
        differs text[], through_id text, fingerprint text
    )
    -- locked, so that no pair is stored after the erasure of one of its patients
    JOIN patients AS one ON one.unique_id = one_id JOIN patients AS other ON other.unique_id = other_id
    ORDER BY one_id COLLATE "C", other_id COLLATE "C"
    FOR KEY SHARE OF one, other
    ON CONFLICT (one_id, other_id) DO UPDATE SET
        (grade, own_grade, score, agrees, differs, through_id, fingerprint) = (
            EXCLUDED.grade, EXCLUDED.own_grade, EXCLUDED.score, EXCLUDED.agrees, EXCLUDED.differs, EXCLUDED.through_id,
            EXCLUDED.fingerprint
        ),
        status = CASE
            WHEN duplicates.status = 'dismissed' AND duplicates.fingerprint <> EXCLUDED.fingerprint THEN 'open'
            ELSE duplicates.status
        END,
        reason = CASE WHEN duplicates.fingerprint = EXCLUDED.fingerprint THEN duplicates.reason END,
        found = CASE
            WHEN duplicates.status = 'dismissed' AND duplicates.fingerprint <> EXCLUDED.fingerprint
            THEN statement_timestamp() ELSE duplicates.found
        END
    WHERE duplicates.status <> 'merged' AND (
        duplicates.grade, duplicates.own_grade, duplicates.score, duplicates.agrees, duplicates.differs,
        duplicates.through_id, duplicates.fingerprint
    ) IS DISTINCT FROM (
        EXCLUDED.grade, EXCLUDED.own_grade, EXCLUDED.score, EXCLUDED.agrees, EXCLUDED.differs, EXCLUDED.through_id,
        EXCLUDED.fingerprint
    )
    """
).bindparams(bindparam("pairs", type_=JSON))
_DELETE_PAIRS = text(
    """
    DELETE FROM duplicates
    USING unnest(CAST(:one_ids AS text[]), CAST(:other_ids AS text[])) AS former(one_id, other_id)
    WHERE duplicates.one_id = former.one_id AND duplicates.other_id = former.other_id AND status = 'open'
    """
).bindparams(bindparam("one_ids", type_=ARRAY(Text)), bindparam("other_ids", type_=ARRAY(Text)))


class FoundPair(NamedTuple):
    """The comparison of a pair of patients and, if a third patient implies the pair, the id of this patient."""

    comparison: Comparison
    through_id: str | None = None


def fingerprint(one: Mapping[str, Any], other: Mapping[str, Any]) -> bytes:
    """Return the SHA-256 digest of the compared values of two patients, in the order of their ids.

    A decision on the pair holds until the digest changes.
    """
    values = [[patient[name] for name in COMPARED_FIELDS] for patient in (one, other)]
    return hashlib.sha256(to_json(values)).digest()


async def read_patients(connection: Connection, ids: Collection[str]) -> dict[str, Mapping[str, Any]]:
    """Return the compared fields of the patients with these ids, by id."""
    result = await connection.execute(_SELECT_PATIENTS, {"ids": list(ids)})
    return {record[0]: record for record in result.records}


class Comparer:
    """Compares patients with all others, and stores the pairs that may be one person."""

    def __init__(self, connection: Connection, similar_words: SimilarWords, today: date) -> None:
        self._connection = connection
        self._similar_words = similar_words
        self._today = today
        self._patients: dict[str, Mapping[str, Any]] = {}
        self._persons: dict[str, Person] = {}
        self._comparisons: dict[Pair, Comparison] = {}
        self._candidate_ids: Mapping[str, Collection[str]] = {}
        self._surrounded: set[str] = set()
        """The patients that were compared with all their candidates."""
        self._same: dict[str, set[str]] = defaultdict(set)
        """For each patient those that are the same person, by their values."""
        self._relatives: dict[str, set[str]] = defaultdict(set)
        self._twins: set[str] = set()

    async def compare(
        self, ids: Collection[str], candidate_ids: Mapping[str, Collection[str]] = MappingProxyType({})
    ) -> None:
        """Compare the patients with these ids with all others, and bring the stored pairs up to date.

        Open pairs of patients that no longer exist are deleted. `candidate_ids` are the candidates of those patients
        for which they have been searched.
        """
        self._candidate_ids = candidate_ids
        await self._read({*ids, *chain.from_iterable(candidate_ids.values())})
        stored = await self._stored_pairs(ids)
        pairs = await self._surround(ids)
        pairs |= {pair for pair in stored if self._patients.keys() >= set(pair)}
        found = {pair: FoundPair(one) for pair in pairs if (one := self._compare(pair)).grade is not None}
        await self._raise_renamed(found)
        dismissed = {pair for pair, status in stored.items() if status == "dismissed"}
        await self._add_implied_pairs(found, dismissed, frozenset(ids))
        # only what was read, because others may store pairs meanwhile
        if former := [pair for pair, status in stored.items() if status == "open" and pair not in found]:
            one_ids, other_ids = map(list, zip(*former, strict=True))
            await self._connection.execute(_DELETE_PAIRS, {"one_ids": one_ids, "other_ids": other_ids})
        if rows := [self._row(pair, one) for pair, one in sorted(found.items())]:
            await self._connection.execute(_UPSERT_PAIRS, {"pairs": rows})

    async def _read(self, ids: Iterable[str]) -> None:
        missing = [unique_id for unique_id in ids if unique_id not in self._patients]
        if missing:
            for unique_id, patient in (await read_patients(self._connection, missing)).items():
                self._add(unique_id, patient)

    def _add(self, unique_id: str, patient: Mapping[str, Any]) -> None:
        self._patients.setdefault(unique_id, patient)

    async def _surround(self, ids: Iterable[str]) -> set[Pair]:
        """Compare patients with their candidates, unless this was done before. Return the new pairs."""
        patients = [self._patients[one] for one in ids if one in self._patients and one not in self._surrounded]
        if not patients:
            return set()
        pairs = set()
        for patient, others in await self._candidates(patients):
            self._surrounded.add(patient["unique_id"])
            person = self._person(patient["unique_id"])
            for candidate in others:
                self._add(candidate["unique_id"], candidate)
                if can_be_pair(person, self._person(candidate["unique_id"])):
                    pairs.add(_pair(patient["unique_id"], candidate["unique_id"]))
        for one, other in pairs:
            comparison = self._compare((one, other))
            related = self._same if comparison.grade in STRONG_GRADES else self._relatives
            if comparison.grade in STRONG_GRADES or comparison.are_relatives:
                related[one].add(other)
                related[other].add(one)
            elif comparison.are_twins:
                self._twins |= {one, other}
        return pairs

    async def _candidates(
        self, patients: Iterable[Mapping[str, Any]]
    ) -> list[tuple[Mapping[str, Any], list[Mapping[str, Any]]]]:
        """Return each of the patients with its candidates."""
        found, unsearched = [], []
        for patient in patients:
            ids = self._candidate_ids.get(patient["unique_id"])
            if ids is None:
                unsearched.append(patient)
            else:
                found.append((patient, [self._patients[one] for one in ids if one in self._patients]))
        if unsearched:
            candidates = await find_candidates(self._connection, unsearched, self._similar_words)
            found += [(patient, [*others]) for patient, others in zip(unsearched, candidates, strict=True)]
        return found

    async def _stored_pairs(self, ids: Collection[str]) -> dict[Pair, str]:
        """Return the statuses of the stored pairs of these patients, and of the pairs that exist because of them."""
        records = (await self._connection.execute(_SELECT_STORED_PAIRS, {"ids": list(ids)})).records
        pairs = {_pair(one, other): status for one, other, status in records}
        await self._read({unique_id for pair in pairs for unique_id in pair})
        return pairs

    def _compare(self, pair: Pair) -> Comparison:
        comparison = self._comparisons.get(pair)
        if comparison is None:
            comparison = compare(self._person(pair[0]), self._person(pair[1]), self._today)
            self._comparisons[pair] = comparison
        return comparison

    def _person(self, unique_id: str) -> Person:
        person = self._persons.get(unique_id)
        if person is None:  # most patients are compared with nobody
            person = self._persons[unique_id] = Person.from_fields(self._patients[unique_id])
        return person

    async def _raise_renamed(self, found: dict[Pair, FoundPair]) -> None:
        """Raise pairs that may be one person with two first names to probable, unless other records contradict."""
        renamed = {pair for pair, one in found.items() if one.comparison.may_be_renamed}
        await self._surround({unique_id for pair in renamed for unique_id in pair})
        for pair in renamed:
            if not self._are_shown_as_two(pair):
                found[pair] = FoundPair(found[pair].comparison._replace(grade=Grade.PROBABLE))

    def _are_shown_as_two(self, pair: Pair) -> bool:
        """Return whether other records show that two patients with different or missing first names may be two persons.

        They show it if both names are also in other records; if a third person, a relative of both, is registered at
        their address; or, where a first name is missing, if one of the two has a twin.
        """
        one, other = pair
        if self._same[one] - self._same[other] and self._same[other] - self._same[one]:
            return True
        if not self._compare(pair).has_other_first_name:
            return not self._twins.isdisjoint(pair)
        return any(
            self._compare(_pair(relative, second)).has_other_first_name
            for first, second in (pair, pair[::-1])
            for relative in self._relatives[first] - {second}
        )

    async def _add_implied_pairs(
        self, found: dict[Pair, FoundPair], dismissed: Collection[Pair], ids: frozenset[str]
    ) -> None:
        """Add the pairs of patients that are probably the same as a third patient.

        Two records of a person may differ so much that only a third record connects them. Dismissed pairs imply
        nothing.
        """
        if not found:
            return
        strong = {pair for pair, one in found.items() if one.comparison.grade in STRONG_GRADES} - {*dismissed}
        known = sorted({unique_id for pair in found for unique_id in pair})
        records = (await self._connection.execute(_SELECT_STRONG_PAIRS, {"ids": known})).records
        strong |= {pair for pair in (_pair(*record) for record in records) if ids.isdisjoint(pair)}
        neighbours: dict[str, set[str]] = defaultdict(set)
        for one, other in strong:
            neighbours[one].add(other)
            neighbours[other].add(one)
        implied = {
            pair: through_id
            for through_id in sorted(neighbours)
            if len(neighbours[through_id]) <= MAX_RECORDS_OF_PERSON
            for pair in combinations(sorted(neighbours[through_id]), 2)
            if pair in found or not ids.isdisjoint({through_id, *pair})
        }
        await self._read({unique_id for pair in implied for unique_id in pair})
        implied = {pair: one for pair, one in implied.items() if self._patients.keys() >= set(pair)}
        implied = {
            pair: through_id
            for pair, through_id in implied.items()
            if self._compare(pair).may_be_implied
            and (pair not in found or found[pair].comparison.grade not in STRONG_GRADES)
        }
        await self._surround(
            {unique_id for pair in implied if self._compare(pair).has_other_first_name for unique_id in pair}
        )
        for pair, through_id in implied.items():
            if not self._are_shown_as_two(pair):
                found[pair] = FoundPair(self._compare(pair)._replace(grade=Grade.PROBABLE), through_id)

    def _row(self, pair: Pair, found: FoundPair) -> dict[str, Any]:
        comparison = found.comparison
        return {
            "unique_id": new_identifier(PREFIX),
            "one_id": pair[0],
            "other_id": pair[1],
            "grade": comparison.grade,
            "own_grade": self._compare(pair).grade,
            "score": comparison.score,
            "agrees": comparison.agrees,
            "differs": comparison.differs,
            "through_id": found.through_id,
            "fingerprint": fingerprint(self._patients[pair[0]], self._patients[pair[1]]).hex(),
        }


def _pair(one: str, other: str) -> Pair:
    return (one, other) if one < other else (other, one)
