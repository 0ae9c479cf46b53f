"""Whether the expected patient ranks first despite errors in the query."""

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
from benchmarks.command import print_progress
from benchmarks.finding import queries
from benchmarks.finding.deployments import running_deployments
from benchmarks.finding.queries import Query
from benchmarks.finding.requests import search_request
from benchmarks.finding.rivals import Rivals
from benchmarks.register import Patient, generate_patients

VISIBLE_RESULTS = 5
"""The number of results that a user is expected to read."""
FIRST_GOAL_PERCENT, VISIBLE_GOAL_PERCENT = 95.0, 99.0
"""The goals: percentages of queries without rivals for which the patient ranks first, and is visible."""


class QueryKind(NamedTuple):
    """A way in which queries differ from the stored values."""

    make_query: Query
    count_rivals: Callable[[Rivals, Patient, str], int]


QUERY_KINDS: Mapping[str, QueryKind] = {
    "word order swapped": QueryKind(queries.swapped_name, Rivals.count_same_words),
    "accents dropped": QueryKind(queries.name_without_accents, Rivals.count_same_words),
    "one error": QueryKind(queries.misspelt_name, Rivals.count_as_close),
    "two errors, one in each name": QueryKind(queries.both_names_misspelt, Rivals.count_as_close),
    "two errors, anywhere": QueryKind(queries.twice_misspelt_name, Rivals.count_as_close),
    "mobile in another spelling": QueryKind(queries.reformatted_mobile, Rivals.count_same_mobile),
    "part of the name and date of birth": QueryKind(queries.prefix_and_birth_date, Rivals.count_same_prefix),
}


@dataclass(frozen=True)
class QueryResult:
    """A query, its expected patient, and its results."""

    query_text: str
    target: Patient
    rival_count: int
    results: Sequence[dict[str, Any]]
    """The first results as the service shows them."""

    @property
    def rank(self) -> int | None:
        """The rank of the expected patient, from 1, or None if the patient is not among the visible results."""
        ids = [patient["unique_id"] for patient in self.results]
        return ids.index(self.target.unique_id) + 1 if self.target.unique_id in ids else None


class Score(NamedTuple):
    """The scores of some queries."""

    queries: int
    first: float
    """Percent."""
    seen: float


def score(results: Sequence[QueryResult]) -> Score:
    """Return the share of each rank; without queries, every goal is met."""
    ranks = [one.rank for one in results]
    share = 100 / max(1, len(ranks))
    return Score(len(ranks), 100 - share * (len(ranks) - ranks.count(1)), 100 - share * ranks.count(None))


@dataclass(frozen=True)
class KindResult:
    """The results of one kind of query."""

    kind: str
    results: Sequence[QueryResult]

    @property
    def unambiguous(self) -> Sequence[QueryResult]:
        """The results without rivals."""
        return [one for one in self.results if one.rival_count == 0]

    @property
    def missed_goals(self) -> list[str]:
        """The names of the goals that are missed."""
        _, first, seen = score(self.unambiguous)
        missed = [("first", first < FIRST_GOAL_PERCENT), (f"first {VISIBLE_RESULTS}", seen < VISIBLE_GOAL_PERCENT)]
        return [name for name, is_missed in missed if is_missed]


def run(arguments: argparse.Namespace) -> None:
    """Run the queries that the command line selects, and print the table."""
    print_progress("counting the rivals of each query")
    all_patients = [registered.patient for registered in generate_patients(arguments.patients)]
    rivals = Rivals(all_patients)
    queries_by_kind = {
        name: list(_draw_queries(name, all_patients, arguments.queries, rivals))
        for name in arguments.kinds or QUERY_KINDS
    }
    with running_deployments([arguments.patients]) as (deployment,):
        kind_results = []
        for name, queries_of_kind in queries_by_kind.items():
            print_progress(name)
            with closing(Client(deployment.service)) as client:
                kind_results.append(KindResult(name, [_run_query(client, *query) for query in queries_of_kind]))
    print(table(kind_results))
    if arguments.json is not None:
        measurements = [
            {"kind": one.kind, "all": score(one.results)._asdict(), "clear": score(one.unambiguous)._asdict()}
            for one in kind_results
        ]
        report.write_json(arguments.json, arguments, measurements)
    if arguments.misses is not None:
        lines = (json.dumps(miss, ensure_ascii=False) + "\n" for one in kind_results for miss in _missed_queries(one))
        arguments.misses.write_text("".join(lines))


def _draw_queries(
    name: str, all_patients: Sequence[Patient], count: int, rivals: Rivals
) -> Iterator[tuple[Patient, str, int]]:
    """Yield patients that have a query of this kind, the query, and the number of its rivals."""
    kind, random = QUERY_KINDS[name], Random(name)
    for patient, query_text in islice(
        queries.generate_queries(kind.make_query, random.sample(all_patients, len(all_patients)), random), count
    ):
        yield patient, query_text, kind.count_rivals(rivals, patient, query_text)


def _run_query(client: Client, target: Patient, query_text: str, rival_count: int) -> QueryResult:
    response = client.send(*search_request({"search": query_text}, limit=VISIBLE_RESULTS))
    return QueryResult(query_text, target, rival_count, json.loads(response.content))


def _missed_queries(kind_result: KindResult) -> Iterator[dict[str, Any]]:
    """Yield the queries without rivals for which the patient does not rank first. The people are fictitious."""
    for result in kind_result.unambiguous:
        if result.rank != 1:
            yield {
                "kind": kind_result.kind,
                "typed": result.query_text,
                "expected": _describe_patient(result.target._asdict()),
                "place": result.rank,
                "found": [_describe_patient(patient) for patient in result.results],
            }


def _describe_patient(patient: Mapping[str, Any]) -> str:
    fields = ("patient_first_name", "patient_last_name", "patient_date_of_birth", "patient_mobile_number", "unique_id")
    return ", ".join(str(patient[name]) for name in fields)


def table(kind_results: Sequence[KindResult]) -> str:
    """Return a Markdown table with the shares of all queries, and of those without rivals."""
    headings = [
        "kind",
        "queries",
        "first %",
        f"first {VISIBLE_RESULTS} %",
        "without rivals",
        "first %",
        f"first {VISIBLE_RESULTS} %",
        "misses",
    ]
    lines = report.table_head(headings)
    for kind_result in kind_results:
        cells = [kind_result.kind]
        for count, first, seen in (score(kind_result.results), score(kind_result.unambiguous)):
            cells += [f"{count:,}", f"{first:.1f}", f"{seen:.1f}"]
        lines.append(report.table_row([*cells, ", ".join(kind_result.missed_goals)]))
    return "\n".join(
        [
            *lines,
            "",
            (
                f"Goals, without rivals: {FIRST_GOAL_PERCENT} % first, "
                f"{VISIBLE_GOAL_PERCENT} % among the first {VISIBLE_RESULTS}."
            ),
        ]
    )
