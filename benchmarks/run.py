"""Measure the service beside its peers: `python -m benchmarks.run` (see README.md)."""

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path

from benchmarks import command, database, equality, report
from benchmarks.command import say
from benchmarks.measuring import Meter, Sample, require_wrk
from benchmarks.operations import OPERATIONS, WHOLE_LIST, Operation, operations_on
from benchmarks.report import Series
from benchmarks.sides import SIDES, Running, other_version, running

QUICK = {
    "patients": 2_000,
    "connections": [16],
    "rounds": 2,
    "seconds": 1,
    "operations": [name for name in OPERATIONS if name != "update"],  # much as create is
}
FULL = {"patients": 100_000, "connections": [1, 16, 64], "rounds": 5, "seconds": 2}


def main() -> int:
    """Measure what the command line asks for; 0, or 1 where that cannot be done."""
    return command.run(partial(_run, _arguments()))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description="Measure sides beside each other.")
    parser.add_argument("--quick", action="store_true", help="less of everything, in less than a minute")
    parser.add_argument("--patients", type=int, help="in the register (100,000)")
    parser.add_argument("--connections", type=int, nargs="+", metavar="N", help="that ask at once (1 16 64)")
    parser.add_argument("--rounds", type=int, help="in which each side is measured once (5)")
    parser.add_argument("--seconds", type=int, help="of each measurement (2)")
    parser.add_argument("--sides", nargs="+", choices=SIDES, metavar="SIDE", help=f"of: {', '.join(SIDES)}")
    parser.add_argument("--against", type=Path, metavar="DIRECTORY", help="measure another clone's service beside")
    parser.add_argument(
        "--operations", nargs="+", choices=OPERATIONS, metavar="OPERATION", help=f"of: {', '.join(OPERATIONS)}"
    )
    parser.add_argument("--postgres", nargs="+", metavar="NAME=VALUE", help="settings of PostgreSQL")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample there")
    arguments = parser.parse_args()
    chosen = {
        "sides": ["service", "django", "limit"],
        "operations": OPERATIONS,
        "postgres": [],
        **(QUICK if arguments.quick else FULL),
    }
    for name, value in chosen.items():
        if getattr(arguments, name) is None:
            setattr(arguments, name, value)
    return arguments


def _run(arguments: argparse.Namespace) -> None:
    require_wrk()
    sides = [SIDES[name] for name in arguments.sides]
    if arguments.against is not None:
        sides.append(other_version(arguments.against))
    say(f"a register of {arguments.patients:,} patients")
    options = dict(setting.split("=", 1) for setting in arguments.postgres)
    with (
        database.copied(database.register(arguments.patients), options) as served,
        tempfile.TemporaryDirectory() as scratch,
        running(sides, served.url, Path(scratch)) as runs,
    ):
        asked = {
            run.side.name: [
                operation
                for operation in operations_on(served.url, run.side.hospitals)
                if operation.name in arguments.operations
            ]
            for run in runs
        }
        for other in runs[1:]:
            say(f"do the answers of {other.side.name} equal those of {runs[0].side.name}?")
            equality.check(runs[0], other, asked[other.side.name])
        found = list(_Bench(runs, served, arguments).measure(asked, Path(scratch)))
    print(report.tables(found))
    if arguments.json is not None:
        report.write_json(arguments.json, arguments, [asdict(series) for series in found])


class _Bench:
    """Takes all sides through the operations in turns, A B A B, so that what slows the machine slows all of them."""

    def __init__(self, runs: Sequence[Running], served: database.Served, arguments: argparse.Namespace) -> None:
        self._runs = runs
        self._url = served.url
        self._meter = Meter(served.postmaster)
        self._arguments = arguments

    def measure(self, asked: Mapping[str, Sequence[Operation]], scratch: Path) -> Iterator[Series]:
        """Measure what is asked of each side, by its name; all are asked for the same operations."""
        for number, operations in enumerate(zip(*asked.values(), strict=True)):
            name = operations[0].name
            if name == WHOLE_LIST.name:
                yield from self._in_turns(name, 1, partial(self._meter.whole_list, patients=self._patients()))
                continue
            files = {
                side: operation.write(scratch / f"{number}-{place}")
                for place, (side, operation) in enumerate(zip(asked, operations, strict=True))
            }
            for connections in self._arguments.connections:
                load = partial(self._meter.load, files=files, connections=connections, seconds=self._arguments.seconds)
                yield from self._in_turns(name, connections, load)

    def _patients(self) -> dict[str, int]:
        """How many patients each side's list has."""
        lists = {run.side.name: database.ids(self._url, database.PATIENTS_OF, run.side.hospitals) for run in self._runs}
        return {side: len(ids) for side, ids in lists.items()}

    def _in_turns(self, name: str, connections: int, measure: Callable[[Running], Sample]) -> list[Series]:
        say(f"{name}, {connections} at once")
        with ThreadPoolExecutor(len(self._runs)) as warm_up:  # all at once: what it takes is not looked at
            for run in self._runs:
                warm_up.submit(measure, run)  # nor whether it fails: in its turn it would again
        taken = [[measure(run) for run in self._runs] for _ in range(self._arguments.rounds)]
        return [
            Series(name, connections, run.side.name, samples)
            for run, samples in zip(self._runs, zip(*taken, strict=True), strict=True)
        ]


if __name__ == "__main__":
    sys.exit(main())
