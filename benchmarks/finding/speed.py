"""How long answers take in registers of several sizes, which are asked in turns."""

import argparse
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from operator import itemgetter

from benchmarks import report
from benchmarks.client import Client
from benchmarks.command import say
from benchmarks.finding.asking import Request
from benchmarks.finding.kinds import KINDS, Kind
from benchmarks.finding.sites import Site, serving
from benchmarks.register import Registered
from benchmarks.sides import SideError

WARM_UP = 20
"""Requests of each kind, of their own, that are not measured."""
SLOWEST = 5
SAMPLE = 4
"""Patients of whom one request is drawn: not all have everything."""


@dataclass(frozen=True)
class Timing:
    """What one kind of request takes in one register."""

    patients: int
    milliseconds: Sequence[float]
    """Of each request, ascending."""
    slowest: Sequence[tuple[float, Request]]
    """The milliseconds of some, and what was asked: of fictitious people, so that this may be written down."""
    service_cpu: float
    """Milliseconds a request, on average."""
    database_cpu: float

    def percentile(self, percent: int) -> float:
        """Milliseconds that so many percent of the requests take at most."""
        return self.milliseconds[-(-len(self.milliseconds) * percent // 100) - 1]


@dataclass(frozen=True)
class Row:
    """A kind in all registers, the smallest first."""

    kind: Kind
    timings: Sequence[Timing]

    @property
    def ratio(self) -> float:
        """The median of the largest register, in medians of the smallest."""
        return self.timings[-1].percentile(50) / self.timings[0].percentile(50)

    @property
    def cpu_ratio(self) -> float:
        """The same of all CPU time."""
        first, last = (timing.service_cpu + timing.database_cpu for timing in (self.timings[0], self.timings[-1]))
        return last / first

    @property
    def misses(self) -> list[str]:
        """The goals that are not reached."""
        goal = self.kind.group
        missed = ["ratio"] if self.ratio > goal.ratio else []
        slow = goal.p99 is not None and max(timing.percentile(99) for timing in self.timings) >= goal.p99
        return [*missed, *(["p99"] if slow else [])]


def run(arguments: argparse.Namespace) -> None:
    """Measure what the command line asks for, and print the table."""
    kinds = chosen(arguments.kinds)
    found: list[Row] = []
    try:
        with serving(sorted(arguments.sizes)) as sites:
            found.extend(_measured(sites, kinds, arguments.queries))
    finally:  # what was found before something failed is kept
        _write(found, arguments)


def _write(found: Sequence[Row], arguments: argparse.Namespace) -> None:
    if found:
        print(table(found))
    if arguments.json is not None:
        measurements = [
            {"kind": row.kind.name, "ratio": row.ratio, "timings": [asdict(timing) for timing in row.timings]}
            for row in found
        ]
        report.write_json(arguments.json, arguments, measurements)


def chosen(beginnings: Sequence[str] | None) -> list[Kind]:
    """The kinds whose names begin so; all, where nothing is said.

    Raises:
        SideError: there are none.
    """
    kinds = [kind for kind in KINDS if beginnings is None or kind.name.startswith(tuple(beginnings))]
    if not kinds:
        raise SideError(f"No kind begins so. There are: {'; '.join(kind.name for kind in KINDS)}.")
    return kinds


def _measured(sites: Sequence[Site], kinds: Sequence[Kind], count: int) -> Iterator[Row]:
    samples = {site.patients: site.sample(SAMPLE * (count + WARM_UP)) for site in sites}
    for kind in kinds:
        say(kind.name)
        yield Row(kind, _timings(kind, sites, samples, count))


def _timings(
    kind: Kind, sites: Sequence[Site], samples: Mapping[int, Sequence[Registered]], count: int
) -> list[Timing]:
    requests = [kind.draw(site, samples[site.patients], WARM_UP + count) for site in sites]
    with ExitStack() as stack:
        clients = [stack.enter_context(closing(Client(site.service))) for site in sites]
        rounds = list(zip(*requests, strict=True))
        for asked in rounds[:WARM_UP]:
            for client, request in zip(clients, asked, strict=True):
                client.send(*request)
        before = [site.cpu() for site in sites]
        taken: list[list[tuple[float, Request]]] = [[] for _ in sites]
        # in turns: what slows the machine for a while slows all of them
        for asked in rounds[WARM_UP:]:
            for client, request, times in zip(clients, asked, taken, strict=True):
                began = time.perf_counter()
                client.send(*request)
                times.append(((time.perf_counter() - began) * 1000, request))
        after = [site.cpu() for site in sites]
    timings = []
    for site, times, *cpu in zip(sites, taken, before, after, strict=True):
        costs = (1000 * (end - begin) / count for begin, end in zip(*cpu, strict=True))
        times.sort(key=itemgetter(0))
        timings.append(
            Timing(site.patients, [milliseconds for milliseconds, _ in times], times[: -SLOWEST - 1 : -1], *costs)
        )
    return timings


def table(found: Sequence[Row]) -> str:
    """Markdown: of each register p50 / p99 and the CPU time, then how the largest compares with the smallest."""
    headings = ["kind"]
    for timing in found[0].timings:
        headings += [f"{timing.patients:,}: p50 / p99 ms", "CPU ms: service + PostgreSQL"]
    lines = report.head([*headings, "p50 ratio", "goal", "CPU ratio", "misses"])
    for row in found:
        cells = [row.kind.name]
        for timing in row.timings:
            cells.append(f"{timing.percentile(50):.2f} / {timing.percentile(99):.2f}")
            cells.append(f"{timing.service_cpu:.2f} + {timing.database_cpu:.2f}")
        goal = row.kind.group
        cells += [f"{row.ratio:.2f}", f"{goal.ratio}", f"{row.cpu_ratio:.2f}", ", ".join(row.misses)]
        lines.append(report.row(cells))
    missing = [f"{row.kind.name} ({', '.join(row.misses)})" for row in found if row.misses]
    return "\n".join([*lines, "", f"{len(missing)} of {len(found)} rows miss a goal. {'; '.join(missing)}"])
