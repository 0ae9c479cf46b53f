"""One measurement: load on one side for some seconds, and its cost."""

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
from benchmarks.sides import SideError, SideServer

WRK_SCRIPT = Path(__file__).with_name("load.lua")
REQUEST_TIMEOUT_SECONDS = 60
"""The timeout for a request under load."""
IDLE_CPU_SECONDS = 0.02
"""Up to this much CPU time in a tenth of a second counts as idle."""
SETTLE_TIMEOUT_SECONDS = 10


@dataclass(frozen=True)
class Sample:
    """The result of one measurement."""

    per_second: float
    """Requests per second; for the whole list, patients per second."""
    p50: float
    """Milliseconds."""
    p99: float
    server_cpu: float
    """Milliseconds of CPU time per request (or patient), of all processes of the side."""
    database_cpu: float
    """The same for PostgreSQL, including its background processes."""
    memory: float
    """The peak memory of the side's processes in megabytes, added up."""


def require_wrk() -> str:
    """Return the path of the load generator.

    Raises:
        SideError: it is not installed.
    """
    path = shutil.which("wrk")
    if path is None:
        raise SideError("The load generator wrk is missing. Run: apt install wrk, dnf install wrk or brew install wrk.")
    return path


class Meter:
    """Measures sides that use one PostgreSQL server."""

    def __init__(self, postmaster_pid: int) -> None:
        self._postmaster_pid = postmaster_pid
        self._wrk = require_wrk()
        # never the same seed twice: an update that another side has made before changes nothing and is cheap
        self._seeds = count(time.time_ns() // 10**9)

    def measure_load(
        self, server: SideServer, files: Mapping[str, RequestFiles], connections: int, seconds: int
    ) -> Sample:
        """Measure a side under load with the requests in its files."""
        command = [self._wrk, "--threads", "1", "--connections", str(connections), "--duration", f"{seconds}s"]
        command += ["--timeout", f"{REQUEST_TIMEOUT_SECONDS}s", "--script", str(WRK_SCRIPT)]
        for name, value in {**server.headers, "Content-Type": "application/json"}.items():
            command += ["--header", f"{name}: {value}"]
        command += [f"http://127.0.0.1:{server.port}", "--", *files[server.side.name], str(next(self._seeds))]

        def work() -> tuple[int, float, float, float]:
            result = subprocess.run(command, check=True, capture_output=True, text=True)
            summary = json.loads(result.stdout.splitlines()[-1])
            if summary["failed"] or summary["broken"]:
                raise SideError(f"{server.side.name} fails under load: {summary}")
            if not summary["requests"]:
                raise SideError(f"{server.side.name} sends no response within {seconds} s. Increase --seconds.")
            return summary["requests"], summary["seconds"], summary["p50"], summary["p99"]

        return self._measure(server, work)

    def measure_whole_list(self, server: SideServer, patient_counts: Mapping[str, int]) -> Sample:
        """Measure one request for the whole list of a side, given the number of patients in it."""

        def work() -> tuple[int, float, float, float]:
            started = time.perf_counter()
            drain_list(server)
            seconds = time.perf_counter() - started
            return patient_counts[server.side.name], seconds, seconds * 1000, seconds * 1000

        return self._measure(server, work)

    def _measure(self, server: SideServer, work: Callable[[], tuple[int, float, float, float]]) -> Sample:
        self._wait_until_idle(server)
        processes.reset_memory_peaks(server.pid)
        before = processes.cpu_seconds(server.pid), processes.cpu_seconds(self._postmaster_pid)
        requests, seconds, p50, p99 = work()
        after = processes.cpu_seconds(server.pid), processes.cpu_seconds(self._postmaster_pid)
        server_cpu, database_cpu = (1000 * (end - begin) / requests for begin, end in zip(before, after, strict=True))
        return Sample(
            requests / seconds, p50, p99, server_cpu, database_cpu, processes.peak_memory_bytes(server.pid) / 1e6
        )

    def _wait_until_idle(self, server: SideServer) -> None:
        """Wait until no work is left for earlier requests after their clients have disconnected."""
        deadline = time.monotonic() + SETTLE_TIMEOUT_SECONDS
        busy_seconds = IDLE_CPU_SECONDS + 1
        while busy_seconds > IDLE_CPU_SECONDS and time.monotonic() < deadline:
            before = processes.cpu_seconds(server.pid) + processes.cpu_seconds(self._postmaster_pid)
            time.sleep(0.1)
            busy_seconds = processes.cpu_seconds(server.pid) + processes.cpu_seconds(self._postmaster_pid) - before
