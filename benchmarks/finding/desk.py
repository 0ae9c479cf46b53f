"""Whether the described patient is found, as staff at a front desk describe it, and how long that takes."""

import argparse
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import islice
from random import Random
from typing import Any

from benchmarks import report
from benchmarks.client import Client
from benchmarks.command import print_progress
from benchmarks.finding.deployments import running_deployments
from benchmarks.finding.descriptions import DESCRIPTIONS, FURTHER_DESCRIPTIONS
from benchmarks.finding.facts import Facts
from benchmarks.finding.quality import VISIBLE_RESULTS
from benchmarks.finding.requests import search_request
from benchmarks.finding.subjects import Describe, Description, Subject
from benchmarks.register import RegisteredPatient, generate_patients
from benchmarks.sides import SideError

FIRST_GOAL_PERCENT, VISIBLE_GOAL_PERCENT, CORRUPTED_GOAL_PERCENT = 90.0, 97.0, 95.0
MAX_ATTEMPTS = 5
"""Maximum number of times that a search is sent. Only the last one is timed."""
WARM_UP_SEARCHES = 3
"""Additional searches of each kind that are not measured."""


@dataclass(frozen=True)
class Draw:
    """A description, the patient whom it describes, and the response to it."""

    text: str
    target: str
    found: Sequence[Mapping[str, Any]]
    milliseconds: float
    agreement: str

    @property
    def rank(self) -> int | None:
        """The rank of the patient, from 1, or None if it is not among the first results."""
        ids = [patient["unique_id"] for patient in self.found[:VISIBLE_RESULTS]]
        return ids.index(self.target) + 1 if self.target in ids else None


def run(arguments: argparse.Namespace) -> None:
    """Describe patients in the ways that the command line selects, and print the table."""
    print_progress("drawing descriptions")
    registered = list(generate_patients(arguments.patients))
    facts = Facts(registered)
    kinds = {
        name: describe
        for name, describe in {**DESCRIPTIONS, **FURTHER_DESCRIPTIONS}.items()
        if arguments.kinds is None or name.startswith(tuple(arguments.kinds))
    }
    drawn = {
        name: list(islice(_draw(name, describe, registered, facts), arguments.queries))
        for name, describe in kinds.items()
    }
    del registered, facts
    draws = {}
    with running_deployments([arguments.patients]) as (deployment,):
        for name, descriptions in drawn.items():
            print_progress(name)
            with closing(Client(deployment.service)) as client:
                for description in descriptions[:WARM_UP_SEARCHES]:  # they prepare the statements of this kind
                    with suppress(SideError):
                        _search(client, *description)
                draws[name] = [_search(client, *each) for each in descriptions]
    print(table(draws))
    if arguments.misses is not None:
        lines = (json.dumps(miss, ensure_ascii=False) + "\n" for name in draws for miss in _misses(name, draws[name]))
        arguments.misses.write_text("".join(lines))


def _draw(
    name: str, describe: Describe, registered: Sequence[RegisteredPatient], facts: Facts
) -> Iterator[tuple[Description, str]]:
    """Yield descriptions that tell a patient apart, each with the id of the patient."""
    random = Random(name)
    for one in random.sample(registered, len(registered)):
        description = describe(Subject(one, facts, random))
        if description is None:
            continue
        is_clear = not description.facts or facts.count_patients(description.facts) == 1
        if is_clear and facts.count_patients(description.as_typed) == 0:
            yield description, one.patient.unique_id


def _search(client: Client, description: Description, target: str) -> Draw:
    request = search_request({"search": description.text}, limit=100)
    for attempt in range(MAX_ATTEMPTS):
        started = time.perf_counter()
        try:
            response = client.send(*request)
            break
        except SideError:  # a search that takes longer than a second, for example while other work is running
            if attempt == MAX_ATTEMPTS - 1:
                raise
    milliseconds = (time.perf_counter() - started) * 1000
    found = json.loads(response.content)
    return Draw(description.text, target, found, milliseconds, response.headers["Search-Agreement"])


def _misses(name: str, draws: Sequence[Draw]) -> Iterator[dict[str, Any]]:
    """Yield the descriptions whose patient is not first. The people are fictitious."""
    for draw in draws:
        if draw.rank != 1:
            shown = [
                f"{one['patient_title']} {one['patient_first_name']} {one['patient_last_name']}, "
                f"{one['patient_date_of_birth']}, {one['patient_mobile_number']}, {one['patient_town']}"
                for one in draw.found[:VISIBLE_RESULTS]
            ]
            yield {"kind": name, "typed": draw.text, "expected": draw.target, "rank": draw.rank, "found": shown}


def table(draws: Mapping[str, Sequence[Draw]]) -> str:
    """Return a Markdown table with the share of descriptions that are met, and the time of a search."""
    lines = report.table_head(["kind", "draws", "first %", f"first {VISIBLE_RESULTS} %", "p50 ms", "p99 ms", "misses"])
    for name, of_kind in draws.items():
        if not of_kind:
            lines.append(report.table_row([name, "0", "", "", "", "", "no patient"]))
            continue
        times = sorted(draw.milliseconds for draw in of_kind)
        share = 100 / len(of_kind)
        first = share * sum(draw.rank == 1 for draw in of_kind)
        seen = share * sum(draw.rank is not None for draw in of_kind)
        missed: list[str] = []
        if name == "nobody on file":
            longest = max(len(draw.found) for draw in of_kind)
            unclear = sum(draw.agreement in {"weak", "none"} for draw in of_kind)
            missed.append(f"at most {longest} results; {unclear} of {len(of_kind)} say that nothing agrees well")
        elif name == "corrupted":
            missed += [f"first {VISIBLE_RESULTS}"] if seen < CORRUPTED_GOAL_PERCENT else []
        else:
            missed += ["first"] if first < FIRST_GOAL_PERCENT else []
            missed += [f"first {VISIBLE_RESULTS}"] if seen < VISIBLE_GOAL_PERCENT else []
        timing = [f"{times[len(times) // 2]:.1f}", f"{times[-(-len(times) * 99 // 100) - 1]:.1f}"]
        lines.append(
            report.table_row([name, str(len(of_kind)), f"{first:.1f}", f"{seen:.1f}", *timing, ", ".join(missed)])
        )
    every = sorted(draw.milliseconds for of_kind in draws.values() for draw in of_kind)
    if every:
        percentiles = f"p50 {every[len(every) // 2]:.1f} ms, p99 {every[-(-len(every) * 99 // 100) - 1]:.1f} ms"
        lines += ["", f"All {len(every)} searches: {percentiles}, longest {every[-1]:.1f} ms."]
    return "\n".join(lines)
