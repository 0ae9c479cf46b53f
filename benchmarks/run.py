"""Measure the service beside its peers: `python -m benchmarks.run` (see README.md)."""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from app.db.embedded import EmbeddedPostgresError
from benchmarks import database, equality, report
from benchmarks.measuring import Meter, Sample, require_wrk
from benchmarks.operations import WHOLE_LIST, Operation, RequestFiles, operations
from benchmarks.report import Series
from benchmarks.sides import SIDES, Running, SideError, running

QUICK = {"patients": 10_000, "connections": [16], "rounds": 2, "seconds": 1}
FULL = {"patients": 100_000, "connections": [1, 16, 64], "rounds": 5, "seconds": 2}


def main() -> int:
    """Measure what the command line asks for; 0, or 1 where that cannot be done."""
    arguments = _arguments()
    try:
        require_wrk()
        _run(arguments)
    except (EmbeddedPostgresError, SideError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description="Measure sides beside each other.")
    parser.add_argument("--quick", action="store_true", help="less of everything, in less than a minute")
    parser.add_argument("--patients", type=int, help="in the register (100,000)")
    parser.add_argument("--connections", type=int, nargs="+", metavar="N", help="that ask at once (1 16 64)")
    parser.add_argument("--rounds", type=int, help="that count, after one that warms up (5)")
    parser.add_argument("--seconds", type=int, help="of each measurement (2)")
    parser.add_argument("--sides", nargs="+", choices=SIDES, metavar="SIDE", help=f"of: {', '.join(SIDES)}")
    parser.add_argument("--operations", nargs="+", metavar="OPERATION", help="only these, by their names in the table")
    parser.add_argument("--postgres", nargs="+", metavar="NAME=VALUE", help="settings of PostgreSQL")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample there")
    arguments = parser.parse_args()
    chosen = {"sides": ["service", "django", "limit"], "postgres": [], **(QUICK if arguments.quick else FULL)}
    for name, value in chosen.items():
        if getattr(arguments, name) is None:
            setattr(arguments, name, value)
    return arguments


def _run(arguments: argparse.Namespace) -> None:
    _say(f"a register of {arguments.patients:,} patients")
    options = dict(setting.split("=", 1) for setting in arguments.postgres)
    with (
        database.copied(database.register(arguments.patients), options) as served,
        tempfile.TemporaryDirectory() as scratch,
        running([SIDES[name] for name in arguments.sides], served.url, Path(scratch)) as runs,
    ):
        asked = {run.side.name: operations(served.url, run.side.hospitals) for run in runs}
        for other in runs[1:]:
            _say(f"do the answers of {other.side.name} equal those of {runs[0].side.name}?")
            equality.check(runs[0], other, asked[other.side.name])
        bench = _Bench(runs, Meter(served.postmaster), arguments)
        found = list(bench.loads(asked, Path(scratch)))
        lists = bench.whole_lists(served.url)
    print(report.tables(found, lists))
    if arguments.json is not None:
        parameters = {name: value for name, value in vars(arguments).items() if name != "json"}
        arguments.json.write_text(json.dumps(report.as_json(found, lists, parameters), indent=1) + "\n")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


class _Bench:
    """Takes all sides through the operations in turns, A B A B, so that what slows the machine slows all of them."""

    def __init__(self, runs: Sequence[Running], meter: Meter, arguments: argparse.Namespace) -> None:
        self._runs = runs
        self._meter = meter
        self._arguments = arguments

    def loads(self, asked: Mapping[str, Sequence[Operation]], scratch: Path) -> Iterator[Series]:
        """Measure the operations under load, at each number of connections."""
        requests = {
            (side, operation.name): operation.write(scratch / f"{number}-{place}")
            for number, (side, listed) in enumerate(asked.items())
            for place, operation in enumerate(listed)
        }
        for name in filter(self._wanted, dict.fromkeys(name for _, name in requests)):
            files = {side: written for (side, operation), written in requests.items() if operation == name}
            for connections in self._arguments.connections:
                load = partial(self._load, files, connections)
                yield from self._in_turns(name, connections, load)

    def _load(self, files: Mapping[str, RequestFiles], connections: int, run: Running) -> Sample:
        return self._meter.load(run, files[run.side.name], connections, self._arguments.seconds)

    def whole_lists(self, url: str) -> list[Series]:
        """Measure the whole list, one request at a time."""
        if not self._wanted(WHOLE_LIST.name):
            return []
        # those that the operations before have created included
        patients = {
            run.side.name: len(database.ids(url, database.PATIENTS_OF, run.side.hospitals)) for run in self._runs
        }
        return self._in_turns(WHOLE_LIST.name, 1, lambda run: self._meter.whole_list(run, patients[run.side.name]))

    def _wanted(self, name: str) -> bool:
        return self._arguments.operations is None or name in self._arguments.operations

    def _in_turns(self, name: str, connections: int, measure: Callable[[Running], Sample]) -> list[Series]:
        _say(f"{name}, {connections} at once")
        _, *counted = [[measure(run) for run in self._runs] for _ in range(self._arguments.rounds + 1)]
        sides = zip(*counted, strict=True)
        return [
            Series(name, connections, run.side.name, samples) for run, samples in zip(self._runs, sides, strict=True)
        ]


if __name__ == "__main__":
    sys.exit(main())
