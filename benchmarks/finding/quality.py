"""Whether the patient who is looked for comes first, whatever is typed wrong."""

import argparse
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from random import Random
from typing import Any, NamedTuple

from benchmarks import report
from benchmarks.client import Client
from benchmarks.command import say
from benchmarks.finding import queries
from benchmarks.finding.asking import search
from benchmarks.finding.queries import Query
from benchmarks.finding.rivals import Rivals
from benchmarks.finding.sites import serving
from benchmarks.register import Patient, patients

SEEN = 5
"""Patients at whom a person looks."""
FIRST, AMONG_SEEN = 95.0, 99.0
"""The goals: percent of the queries without rivals whose patient comes first, and is seen."""


class Kind(NamedTuple):
    """A way in which people type something else than is stored."""

    query: Query
    rivals: Callable[[Rivals, Patient, str], int]


KINDS: Mapping[str, Kind] = {
    "word order swapped": Kind(queries.swapped, Rivals.same_words),
    "accents dropped": Kind(queries.without_accents, Rivals.same_words),
    "one error": Kind(queries.misspelt, Rivals.as_near),
    "two errors, one in each name": Kind(queries.both_misspelt, Rivals.as_near),
    "two errors, anywhere": Kind(queries.misspelt_twice, Rivals.as_near),
    "mobile in another spelling": Kind(queries.mobile_spelt_otherwise, Rivals.same_mobile),
    "part of the name and date of birth": Kind(queries.beginning_and_birth, Rivals.same_beginning),
}


@dataclass(frozen=True)
class Asked:
    """A query, whom it means, and whom it found."""

    typed: str
    wanted: Patient
    rivals: int
    found: Sequence[dict[str, Any]]
    """The first of the answer, as the service shows them."""

    @property
    def place(self) -> int | None:
        """Where the wanted patient stands, from 1 on; None: not among those who are seen."""
        ids = [patient["unique_id"] for patient in self.found]
        return ids.index(self.wanted.unique_id) + 1 if self.wanted.unique_id in ids else None


class Score(NamedTuple):
    """What became of some queries."""

    queries: int
    first: float
    """Percent."""
    seen: float


def score(asked: Sequence[Asked]) -> Score:
    """Count the places; of no queries, all are as they should be."""
    places = [one.place for one in asked]
    share = 100 / max(1, len(places))
    return Score(len(places), 100 - share * (len(places) - places.count(1)), 100 - share * places.count(None))


@dataclass(frozen=True)
class Found:
    """What became of the queries of a kind."""

    kind: str
    asked: Sequence[Asked]

    @property
    def clear(self) -> Sequence[Asked]:
        """Those without rivals."""
        return [one for one in self.asked if one.rivals == 0]

    @property
    def misses(self) -> list[str]:
        """The goals that are not reached."""
        _, first, seen = score(self.clear)
        missed = [("first", first < FIRST), (f"first {SEEN}", seen < AMONG_SEEN)]
        return [name for name, is_missed in missed if is_missed]


def run(arguments: argparse.Namespace) -> None:
    """Ask what the command line says, and print the table."""
    say("whom could each query mean?")
    people = [registered.patient for registered in patients(arguments.patients)]
    rivals = Rivals(people)
    drawn = {name: list(_drawn(name, people, arguments.queries, rivals)) for name in arguments.kinds or KINDS}
    with serving([arguments.patients]) as (site,):
        found = []
        for name, queries_of_kind in drawn.items():
            say(name)
            with closing(Client(site.service)) as client:
                found.append(Found(name, [_asked(client, *query) for query in queries_of_kind]))
    print(table(found))
    if arguments.json is not None:
        measurements = [
            {"kind": one.kind, "all": score(one.asked)._asdict(), "clear": score(one.clear)._asdict()} for one in found
        ]
        report.write_json(arguments.json, arguments, measurements)
    if arguments.misses is not None:
        lines = (json.dumps(miss, ensure_ascii=False) + "\n" for one in found for miss in _missed(one))
        arguments.misses.write_text("".join(lines))


def _drawn(name: str, people: Sequence[Patient], count: int, rivals: Rivals) -> Iterator[tuple[Patient, str, int]]:
    """Patients of whom a kind of query can be asked, what is typed, and how many rivals there are."""
    kind, random = KINDS[name], Random(name)
    for patient, typed in islice(queries.asked(kind.query, random.sample(people, len(people)), random), count):
        yield patient, typed, kind.rivals(rivals, patient, typed)


def _asked(client: Client, wanted: Patient, typed: str, rivals: int) -> Asked:
    answer = client.send(*search({"search": typed}, limit=SEEN))
    return Asked(typed, wanted, rivals, json.loads(answer.content))


def _missed(found: Found) -> Iterator[dict[str, Any]]:
    """The queries without rivals whose patient does not come first. The people are fictitious."""
    for one in found.clear:
        if one.place != 1:
            yield {
                "kind": found.kind,
                "typed": one.typed,
                "wanted": _described(one.wanted._asdict()),
                "place": one.place,
                "found": [_described(patient) for patient in one.found],
            }


def _described(patient: Mapping[str, Any]) -> str:
    fields = ("patient_first_name", "patient_last_name", "patient_date_of_birth", "patient_mobile_number", "unique_id")
    return ", ".join(str(patient[name]) for name in fields)


def table(found: Sequence[Found]) -> str:
    """Markdown: shares of all queries, and of those without rivals."""
    headings = [
        "kind",
        "queries",
        "first %",
        f"first {SEEN} %",
        "without rivals",
        "first %",
        f"first {SEEN} %",
        "misses",
    ]
    lines = report.head(headings)
    for one in found:
        cells = [one.kind]
        for count, first, seen in (score(one.asked), score(one.clear)):
            cells += [f"{count:,}", f"{first:.1f}", f"{seen:.1f}"]
        lines.append(report.row([*cells, ", ".join(one.misses)]))
    return "\n".join([*lines, "", f"Goals, without rivals: {FIRST} % first, {AMONG_SEEN} % among the first {SEEN}."])
