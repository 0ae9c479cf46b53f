"""How long responses take in registers of several sizes, measured in turns."""

import argparse
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from operator import itemgetter

from benchmarks import report
from benchmarks.client import Client
from benchmarks.command import print_progress
from benchmarks.finding.deployments import Deployment, running_deployments
from benchmarks.finding.request_kinds import REQUEST_KINDS, RequestKind
from benchmarks.finding.requests import Request
from benchmarks.register import RegisteredPatient
from benchmarks.sides import SideError

WARM_UP_REQUESTS = 20
"""Additional requests of each kind that are not measured."""
SLOWEST_COUNT = 5
PATIENTS_PER_REQUEST = 4
"""Patients in the sample per request, because some lack the required values."""


@dataclass(frozen=True)
class Timing:
    """The timing of one kind of request in one register."""

    patients: int
    milliseconds: Sequence[float]
    """For each request, in ascending order."""
    slowest: Sequence[tuple[float, Request]]
    """The slowest requests with their milliseconds; as the people are fictitious, they may be written to a file."""
    service_cpu: float
    """Milliseconds per request, on average."""
    database_cpu: float

    def percentile(self, percent: int) -> float:
        """Return the given percentile in milliseconds."""
        return self.milliseconds[-(-len(self.milliseconds) * percent // 100) - 1]


@dataclass(frozen=True)
class KindTimings:
    """A kind in all registers, the smallest first."""

    kind: RequestKind
    timings: Sequence[Timing]

    @property
    def ratio(self) -> float:
        """The median of the largest register divided by that of the smallest."""
        return self.timings[-1].percentile(50) / self.timings[0].percentile(50)

    @property
    def cpu_ratio(self) -> float:
        """The same for all CPU time."""
        first, last = (timing.service_cpu + timing.database_cpu for timing in (self.timings[0], self.timings[-1]))
        return last / first

    @property
    def missed_goals(self) -> list[str]:
        """The goals that are missed."""
        goal = self.kind.group
        missed = ["ratio"] if self.ratio > goal.max_ratio else []
        is_slow = (
            goal.max_p99_milliseconds is not None
            and max(timing.percentile(99) for timing in self.timings) >= goal.max_p99_milliseconds
        )
        return [*missed, *(["p99"] if is_slow else [])]


def run(arguments: argparse.Namespace) -> None:
    """Run the measurements of the command line, and print the table."""
    kinds = select_kinds(arguments.kinds)
    rows: list[KindTimings] = []
    try:
        with running_deployments(sorted(arguments.sizes)) as deployments:
            rows.extend(_measure_kinds(deployments, kinds, arguments.queries))
    finally:  # results from before a failure are kept
        _write_report(rows, arguments)


def _write_report(rows: Sequence[KindTimings], arguments: argparse.Namespace) -> None:
    if rows:
        print(table(rows))
    if arguments.json is not None:
        measurements = [
            {"kind": row.kind.name, "ratio": row.ratio, "timings": [asdict(timing) for timing in row.timings]}
            for row in rows
        ]
        report.write_json(arguments.json, arguments, measurements)


def select_kinds(prefixes: Sequence[str] | None) -> list[RequestKind]:
    """Return the kinds that begin with one of the prefixes, or all kinds.

    Raises:
        SideError: no kind matches.
    """
    kinds = [kind for kind in REQUEST_KINDS if prefixes is None or kind.name.startswith(tuple(prefixes))]
    if not kinds:
        raise SideError(f"No kind has this prefix. The kinds are: {'; '.join(kind.name for kind in REQUEST_KINDS)}.")
    return kinds


def _measure_kinds(
    deployments: Sequence[Deployment], kinds: Sequence[RequestKind], count: int
) -> Iterator[KindTimings]:
    samples = {
        site.patient_count: site.sample(PATIENTS_PER_REQUEST * (count + WARM_UP_REQUESTS)) for site in deployments
    }
    for kind in kinds:
        print_progress(kind.name)
        yield KindTimings(kind, _time_requests(kind, deployments, samples, count))


def _time_requests(
    kind: RequestKind, deployments: Sequence[Deployment], samples: Mapping[int, Sequence[RegisteredPatient]], count: int
) -> list[Timing]:
    requests = [
        kind.make_requests(deployment, samples[deployment.patient_count], WARM_UP_REQUESTS + count)
        for deployment in deployments
    ]
    with ExitStack() as stack:
        clients = [stack.enter_context(closing(Client(site.service))) for site in deployments]
        rounds = list(zip(*requests, strict=True))
        for round_requests in rounds[:WARM_UP_REQUESTS]:
            for client, request in zip(clients, round_requests, strict=True):
                client.send(*request)
        before = [site.cpu_times() for site in deployments]
        request_times: list[list[tuple[float, Request]]] = [[] for _ in deployments]
        # in turns, so that what slows the machine for a while slows all of them
        for round_requests in rounds[WARM_UP_REQUESTS:]:
            for client, request, times in zip(clients, round_requests, request_times, strict=True):
                started = time.perf_counter()
                client.send(*request)
                times.append(((time.perf_counter() - started) * 1000, request))
        after = [site.cpu_times() for site in deployments]
    timings = []
    for site, times, *cpu in zip(deployments, request_times, before, after, strict=True):
        costs = (1000 * (end - begin) / count for begin, end in zip(*cpu, strict=True))
        times.sort(key=itemgetter(0))
        timings.append(
            Timing(
                site.patient_count,
                [milliseconds for milliseconds, _ in times],
                times[: -SLOWEST_COUNT - 1 : -1],
                *costs,
            )
        )
    return timings


def table(rows: Sequence[KindTimings]) -> str:
    """Return a Markdown table: p50, p99 and CPU time of each register, and the largest compared with the smallest."""
    headings = ["kind"]
    for timing in rows[0].timings:
        headings += [f"{timing.patients:,}: p50 / p99 ms", "CPU ms: service + PostgreSQL"]
    lines = report.table_head([*headings, "p50 ratio", "goal", "CPU ratio", "misses"])
    for row in rows:
        cells = [row.kind.name]
        for timing in row.timings:
            cells.append(f"{timing.percentile(50):.2f} / {timing.percentile(99):.2f}")
            cells.append(f"{timing.service_cpu:.2f} + {timing.database_cpu:.2f}")
        goal = row.kind.group
        cells += [f"{row.ratio:.2f}", f"{goal.max_ratio}", f"{row.cpu_ratio:.2f}", ", ".join(row.missed_goals)]
        lines.append(report.table_row(cells))
    missing = [f"{row.kind.name} ({', '.join(row.missed_goals)})" for row in rows if row.missed_goals]
    return "\n".join([*lines, "", f"{len(missing)} of {len(rows)} rows miss a goal. {'; '.join(missing)}"])
