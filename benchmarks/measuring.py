"""One measurement: so many seconds of load on one side, and what it took."""

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from benchmarks import processes
from benchmarks.client import drain_list
from benchmarks.operations import RequestFiles
from benchmarks.sides import Running, SideError

SCRIPT = Path(__file__).with_name("load.lua")
TIMEOUT = 60
"""Seconds that a request under load may take."""
IDLE = 0.02
"""Seconds of CPU time in a tenth of a second, and less, are idleness."""
SETTLE_SECONDS = 10


@dataclass(frozen=True)
class Sample:
    """What one measurement found."""

    per_second: float
    """Requests; of the whole list: patients."""
    p50: float
    """Milliseconds."""
    p99: float
    server_cpu: float
    """Milliseconds of CPU time a request (patient), of all processes of the side."""
    database_cpu: float
    """The same of PostgreSQL, its background processes included."""
    memory: float
    """Megabytes that the side's processes had at most, added up."""


def require_wrk() -> str:
    """The path of the load generator.

    Raises:
        SideError: it is not installed.
    """
    path = shutil.which("wrk")
    if path is None:
        raise SideError("wrk, the load generator, is missing: apt install wrk, dnf install wrk, brew install wrk.")
    return path


class Meter:
    """Measures sides that use one PostgreSQL server."""

    def __init__(self, postmaster: int) -> None:
        self._postmaster = postmaster
        self._wrk = require_wrk()
        # never the same twice: an update that has been made before by another side changes nothing, and is cheap
        self._seeds = count(time.time_ns() // 10**9)

    def load(self, run: Running, files: Mapping[str, RequestFiles], connections: int, seconds: int) -> Sample:
        """Put a side under load of the requests in its files."""
        command = [self._wrk, "--threads", "1", "--connections", str(connections), "--duration", f"{seconds}s"]
        command += ["--timeout", f"{TIMEOUT}s", "--script", str(SCRIPT)]
        for name, value in {**run.headers, "Content-Type": "application/json"}.items():
            command += ["--header", f"{name}: {value}"]
        command += [f"http://127.0.0.1:{run.port}", "--", *files[run.side.name], str(next(self._seeds))]

        def work() -> tuple[int, float, float, float]:
            result = subprocess.run(command, check=True, capture_output=True, text=True)
            found = json.loads(result.stdout.splitlines()[-1])
            if found["failed"] or found["broken"]:
                raise SideError(f"{run.side.name} fails under load: {found}")
            if not found["requests"]:
                raise SideError(f"{run.side.name} answers nothing in {seconds} s: give it more --seconds.")
            return found["requests"], found["seconds"], found["p50"], found["p99"]

        return self._measure(run, work)

    def whole_list(self, run: Running, patients: Mapping[str, int]) -> Sample:
        """Ask a side, whose list has so many patients, for it once."""

        def work() -> tuple[int, float, float, float]:
            began = time.perf_counter()
            drain_list(run)
            seconds = time.perf_counter() - began
            return patients[run.side.name], seconds, seconds * 1000, seconds * 1000

        return self._measure(run, work)

    def _measure(self, run: Running, work: Callable[[], tuple[int, float, float, float]]) -> Sample:
        self._settle(run)
        processes.forget_peaks(run.pid)
        before = processes.cpu_seconds(run.pid), processes.cpu_seconds(self._postmaster)
        requests, seconds, p50, p99 = work()
        after = processes.cpu_seconds(run.pid), processes.cpu_seconds(self._postmaster)
        server, database = (1000 * (end - begin) / requests for begin, end in zip(before, after, strict=True))
        return Sample(requests / seconds, p50, p99, server, database, processes.peak_bytes(run.pid) / 1e6)

    def _settle(self, run: Running) -> None:
        """Wait until nothing is left to do of the requests before, whose clients have hung up."""
        deadline = time.monotonic() + SETTLE_SECONDS
        busy = IDLE + 1
        while busy > IDLE and time.monotonic() < deadline:
            before = processes.cpu_seconds(run.pid) + processes.cpu_seconds(self._postmaster)
            time.sleep(0.1)
            busy = processes.cpu_seconds(run.pid) + processes.cpu_seconds(self._postmaster) - before
