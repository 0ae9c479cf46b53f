"""Measure the service and its peers: `python -m benchmarks.run` (see README.md)."""

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path

from benchmarks import command, database, equality, report
from benchmarks.command import print_progress
from benchmarks.measurement import Meter, Sample, require_wrk
from benchmarks.operations import OPERATION_NAMES, WHOLE_LIST, Operation, operations_on
from benchmarks.pages import page_paths
from benchmarks.report import Series
from benchmarks.sides import SIDES, SideServer, other_version_side, running_sides

QUICK_DEFAULTS = {
    "patients": 2_000,
    "connections": [16],
    "rounds": 2,
    "seconds": 1,
    "operations": [name for name in OPERATION_NAMES if name != "update"],  # costs about as much as create
}
FULL_DEFAULTS = {"patients": 100_000, "connections": [1, 16, 64], "rounds": 5, "seconds": 2}


def main() -> int:
    """Run the measurements of the command line and return 0, or 1 if they failed."""
    return command.run(partial(_run_benchmark, _parse_arguments()))


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description="Measure sides against each other.")
    parser.add_argument("--quick", action="store_true", help="less of everything, in less than a minute")
    parser.add_argument("--patients", type=int, help="in the register (100,000)")
    parser.add_argument("--connections", type=int, nargs="+", metavar="N", help="concurrent connections (1 16 64)")
    parser.add_argument("--rounds", type=int, help="each measures every side once (5)")
    parser.add_argument("--seconds", type=int, help="duration of each measurement (2)")
    parser.add_argument("--sides", nargs="+", choices=SIDES, metavar="SIDE", help=f"of: {', '.join(SIDES)}")
    parser.add_argument("--against", type=Path, metavar="DIRECTORY", help="also measure the service of another clone")
    parser.add_argument(
        "--operations",
        nargs="+",
        choices=OPERATION_NAMES,
        metavar="OPERATION",
        help=f"of: {', '.join(OPERATION_NAMES)}",
    )
    parser.add_argument("--postgres", nargs="+", metavar="NAME=VALUE", help="settings of PostgreSQL")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample to this file")
    arguments = parser.parse_args()
    defaults = {
        "sides": ["service", "django", "limit"],
        "operations": OPERATION_NAMES,
        "postgres": [],
        **(QUICK_DEFAULTS if arguments.quick else FULL_DEFAULTS),
    }
    for name, value in defaults.items():
        if getattr(arguments, name) is None:
            setattr(arguments, name, value)
    return arguments


def _run_benchmark(arguments: argparse.Namespace) -> None:
    require_wrk()
    sides = [SIDES[name] for name in arguments.sides]
    if arguments.against is not None:
        sides.append(other_version_side(arguments.against))
    print_progress(f"a register of {arguments.patients:,} patients")
    options = dict(setting.split("=", 1) for setting in arguments.postgres)
    with (
        database.register_copy_server(database.ensure_register(arguments.patients), options) as database_server,
        tempfile.TemporaryDirectory() as scratch,
        running_sides(sides, database_server.url, Path(scratch)) as servers,
    ):
        operations_by_side = {
            run.side.name: [
                operation
                for operation in operations_on(
                    database_server.url, run.side.hospitals, page_paths(database_server.url, run)
                )
                if operation.name in arguments.operations
            ]
            for run in servers
        }
        for other in servers[1:]:
            print_progress(f"comparing the responses of {other.side.name} with those of {servers[0].side.name}")
            equality.check(
                servers[0], other, operations_by_side[servers[0].side.name], operations_by_side[other.side.name]
            )
        all_series = list(
            _SideBenchmark(servers, database_server, arguments).measure(operations_by_side, Path(scratch))
        )
    print(report.comparison_tables(all_series))
    if arguments.json is not None:
        report.write_json(arguments.json, arguments, [asdict(series) for series in all_series])


class _SideBenchmark:
    """Measures all sides in turns, A B A B, so that what slows the machine slows all of them."""

    def __init__(
        self, servers: Sequence[SideServer], database_server: database.DatabaseServer, arguments: argparse.Namespace
    ) -> None:
        self._servers = servers
        self._url = database_server.url
        self._meter = Meter(database_server.postmaster_pid)
        self._arguments = arguments

    def measure(self, operations_by_side: Mapping[str, Sequence[Operation]], scratch: Path) -> Iterator[Series]:
        """Measure the operations of each side, by its name; all sides have the same operations."""
        for number, operations in enumerate(zip(*operations_by_side.values(), strict=True)):
            name = operations[0].name
            if name == WHOLE_LIST.name:
                yield from self._measure_in_turns(
                    name, 1, partial(self._meter.measure_whole_list, patient_counts=self._patient_counts())
                )
                continue
            files = {
                side: operation.write_files(scratch / f"{number}-{place}")
                for place, (side, operation) in enumerate(zip(operations_by_side, operations, strict=True))
            }
            for connections in self._arguments.connections:
                measure_load = partial(
                    self._meter.measure_load, files=files, connections=connections, seconds=self._arguments.seconds
                )
                yield from self._measure_in_turns(name, connections, measure_load)

    def _patient_counts(self) -> dict[str, int]:
        """Return how many patients each side's list has."""
        ids_by_side = {
            run.side.name: database.fetch_ids(self._url, database.SELECT_PATIENT_IDS, run.side.hospitals)
            for run in self._servers
        }
        return {side: len(ids) for side, ids in ids_by_side.items()}

    def _measure_in_turns(self, name: str, connections: int, measure: Callable[[SideServer], Sample]) -> list[Series]:
        print_progress(f"{name}, {connections} concurrent")
        with ThreadPoolExecutor(len(self._servers)) as warm_up:  # all sides at once, because the results are not used
            for run in self._servers:
                warm_up.submit(measure, run)  # a failure is ignored here and would recur in the measurement
        rounds = [[measure(run) for run in self._servers] for _ in range(self._arguments.rounds)]
        return [
            Series(name, connections, run.side.name, samples)
            for run, samples in zip(self._servers, zip(*rounds, strict=True), strict=True)
        ]


if __name__ == "__main__":
    sys.exit(main())
