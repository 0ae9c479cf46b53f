"""How much CPU time it takes to start a command or a service: `python -m benchmarks.starts`.

All run on an embedded PostgreSQL with the demo data, whose own CPU time is not counted. CPU time depends less on other
work on the machine than wall time does.
"""

import argparse
import http.client
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from statistics import median

from app.arguments.commands import COMMANDS
from app.contract import PATIENT
from app.embedded.server import EmbeddedPostgres
from benchmarks import command, processes, report
from benchmarks.command import print_progress
from benchmarks.sides import START_TIMEOUT_SECONDS, SideError

COMMAND_LINE = (sys.executable, "-m", "app.cli")
PORT = 8099
PATIENT_ID = str(PATIENT["unique_id"])
ARGUMENTS: Mapping[str, Sequence[str]] = {
    "migrate": (),
    "check": (),
    "import": ("-",),
    "export": (),
    "keys": ("list",),
    "journal": ("verify",),
    "audit": ("prune",),
    "access-report": (PATIENT_ID,),
    "erase": ("profile", "none", "--reason", "benchmark", "--yes"),  # there is no such profile
    "openapi": (),
    "completion": ("bash",),
}
"""Arguments with which a command is measured. Of the other commands, only the help is measured."""
REQUESTS = (
    f"/patients/patients/{PATIENT_ID}/",
    "/patients/patients/?limit=50",
    "/patients/patients/?patient_mobile_number=0825550001",
    "/patients/patients/?search=lerato",
)
"""Paths that are requested from a new service, each twice, one after the other."""
Samples = defaultdict[str, list[float]]


def main() -> int:
    """Run the measurements and return 0, or 1 if they failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.starts", description="Measure starts.")
    parser.add_argument("--rounds", type=int, default=5, help="each measures every start once (%(default)s)")
    return command.run(partial(_run_benchmark, parser.parse_args().rounds))


def _run_benchmark(rounds: int) -> None:
    samples: Samples = defaultdict(list)
    with tempfile.TemporaryDirectory(prefix="patients-starts-") as directory:
        embedded = {"PATIENTS_DATA_DIR": directory}
        with _service("--demo", **embedded):
            print_progress("the database is ready")
        for number in range(rounds):
            print_progress(f"round {number + 1} of {rounds}")
            began = time.monotonic()
            with _service("--demo", **embedded):
                samples["`serve` with the embedded PostgreSQL: wall time"].append(time.monotonic() - began)
            with EmbeddedPostgres(Path(directory)) as server:
                for name, seconds in _measure_commands(server.url):
                    samples[name].append(seconds)
                for name, seconds in _measure_service(server.url):
                    samples[name].append(seconds)
    print("\n".join(report.table_head(("", "milliseconds"))))
    for name, values in samples.items():
        print(report.table_row((name, f"{median(values) * 1000:.0f}")))


def _measure_commands(url: str) -> Iterator[tuple[str, float]]:
    yield "`--help`", _run_command(url, "--help")
    for name in COMMANDS:
        yield f"`{name} --help`", _run_command(url, name, "--help")
    for name, arguments in ARGUMENTS.items():
        yield f"`{' '.join((name, *arguments))}`", _run_command(url, name, *arguments)


def _run_command(url: str, *arguments: str) -> float:
    """Run a command, and return the CPU time that it took, in seconds."""
    process = subprocess.Popen(
        [*COMMAND_LINE, *arguments],
        env={**os.environ, "DATABASE_URL": url},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)  # Popen must not wait for it again
    if process.returncode not in {0, 1}:
        raise SideError(f"patients-api {' '.join(arguments)} exited with status {process.returncode}.")
    return usage.ru_utime + usage.ru_stime


def _measure_service(url: str) -> Iterator[tuple[str, float]]:
    with _service(DATABASE_URL=url, PATIENTS_AUTH="off") as pid:
        yield "`serve`", processes.cpu_seconds(pid)
        for path in REQUESTS:
            for which in ("first", "second"):
                before = processes.cpu_seconds(pid)
                if (status := _request(path)) != http.client.OK:
                    raise SideError(f"{path} returned {status}.")
                yield f"{which} `GET {path}`", processes.cpu_seconds(pid) - before


@contextmanager
def _service(*arguments: str, **environment: str) -> Iterator[int]:
    """Run a service, and yield the id of its process when it is ready."""
    process = subprocess.Popen(
        [*COMMAND_LINE, "serve", "--port", str(PORT), *arguments],
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while True:
            with suppress(OSError):
                if _request("/readyz") == http.client.NO_CONTENT:
                    break
            if process.poll() is not None or time.monotonic() > deadline:
                raise SideError(f"patients-api serve is not ready on port {PORT}.")
            time.sleep(0.005)
        yield process.pid
    finally:
        process.terminate()
        process.wait()


def _request(path: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=START_TIMEOUT_SECONDS)
    connection.request("GET", path)
    try:
        return connection.getresponse().status
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(main())
