"""The effect of one client on all others: honest clients are measured before, during and after each attack.

An attacker has its own key and keeps to its rate limit. Because the load generator shares the machine with the service,
honest clients are compared with themselves beside as many harmless connections at the same rate. `make chaos` runs this
and prints the table.
"""

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import urlsplit

import asyncpg
import pytest

from app.auth.scopes import Scope
from benchmarks import register
from tests.auth.support import make_key
from tests.hostile.load_generator import READY_MESSAGE
from tests.processes import port_of, reset_peak_memory, resident_bytes, worker_pids
from tests.support import ServiceProcess, eventually, temporary_database
from tests.transfer.support import ndjson, run_import

pytestmark = pytest.mark.chaos

PATIENT_COUNT = 20_000
WARM_UP_SECONDS = 10
"""How long patients are created before a measurement, so that the caches of names have most of what they will have."""
PHASE_SECONDS = 6
ATTACK_SECONDS = 12
HOLD_SECONDS = 40
"""How long lists are left unread."""
RECOVERY_SECONDS = 15
"""The time after which memory must be released."""
MEGABYTE = 1024 * 1024
MAX_RETAINED_MEMORY_BYTES = 20 * MEGABYTE
"""For all workers together."""
SCOPES = (Scope.PATIENTS_READ, Scope.PATIENTS_WRITE)


@dataclass(frozen=True)
class Attack:
    """The attackers, the honest clients they affect, and the harmless clients of the baseline."""

    name: str
    attackers: str
    baseline: str | None
    honest: str = "4 honest clients"
    seconds: int = ATTACK_SECONDS


ATTACKS = (
    Attack("a", "1 MiB of numbers", "4 well-behaved"),
    Attack("b", "8 words", "16 well-behaved"),
    Attack("c", "unread lists", None, seconds=HOLD_SECONDS),
    Attack("d1", "1 unknown hospital", "16 more creators", honest="16 honest creators"),
    Attack("d2", "290 unknown hospitals", "16 more creators", honest="16 honest creators"),
    Attack("e", "silence", None),
)


class PhaseResult(NamedTuple):
    """The results of one group of clients in one phase."""

    seconds: float
    heard: list[tuple[float, int]]

    @property
    def requests_per_second(self) -> float:
        return len(self.heard) / self.seconds if self.seconds else 0.0

    def latency_milliseconds(self, percent: int) -> float:
        """Return the given percentile of the latency."""
        times = sorted(seconds for seconds, _ in self.heard)
        return 1000 * times[min(len(times) - 1, len(times) * percent // 100)]

    @property
    def failures(self) -> Counter[int]:
        """The counts of statuses other than 2xx, where 0 is no response."""
        return Counter(status for _, status in self.heard if not 200 <= status < 300)

    def __str__(self) -> str:
        failures = ", ".join(f"{number} x {status}" for status, number in sorted(self.failures.items())) or "none"
        median, p99 = self.latency_milliseconds(50), self.latency_milliseconds(99)
        return f"{median:8.1f} {p99:9.1f} {self.requests_per_second:9.1f}   {failures}"


@contextmanager
def client_process(name: str, port: int, key: str, seconds: float = 0) -> Iterator[subprocess.Popen[str]]:
    """Start clients in a separate process, ready to begin; they end after `seconds`, or on SIGTERM if that is 0."""
    arguments = [sys.executable, "-m", "tests.hostile.load_generator", name, str(port), key, str(seconds)]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == f"{READY_MESSAGE}\n", f"the clients '{name}' did not become ready"
            yield process
        finally:
            process.kill()


def start_clients(process: subprocess.Popen[str]) -> None:
    """Make the clients begin."""
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def read_result(process: subprocess.Popen[str]) -> PhaseResult:
    """Wait for the clients to end and return their results."""
    assert process.stdout is not None
    return PhaseResult(**json.loads(process.stdout.readline()))


@dataclass
class LoadTarget:
    """A service with two workers, and keys for honest clients and attackers."""

    served: ServiceProcess
    honest_key: str
    attacker_key: str

    def measure(self, honest: str, seconds: float, beside: str | None = None) -> tuple[PhaseResult, PhaseResult | None]:
        """Measure honest clients for some seconds, optionally beside others, and return the results of both."""
        port = port_of(self.served.url)
        with ExitStack() as stack:
            measured = stack.enter_context(client_process(honest, port, self.honest_key, seconds))
            others = beside and stack.enter_context(client_process(beside, port, self.attacker_key))
            if others:
                start_clients(others)
            start_clients(measured)
            heard = read_result(measured)
            if not others:
                return heard, None
            others.terminate()
            return heard, read_result(others)

    @property
    def worker_memory_bytes(self) -> int:
        """The resident memory of all workers."""
        return sum(map(resident_bytes, worker_pids(self.served.process.pid)))

    def reset_memory_peaks(self) -> None:
        for pid in worker_pids(self.served.process.pid):
            reset_peak_memory(pid)

    @property
    def peak_memory_bytes(self) -> int:
        """The sum of the peak memory of all workers."""
        return sum(resident_bytes(pid, peak=True) for pid in worker_pids(self.served.process.pid))


@pytest.fixture(scope="module")
async def filled_database(module_database_url: str) -> str:
    """Return the name of a database with 20,000 patients whose names have realistic frequencies."""
    hospitals = [{"unique_id": key, "hospital_name": value} for key, value in register.hospital_names().items()]
    doctors = [{"unique_id": key, "doctor_first_name": value[0]} for key, value in register.doctor_names().items()]
    await run_import(module_database_url, "-", "--resource", "hospitals", stdin=ndjson(hospitals))
    await run_import(module_database_url, "-", "--resource", "doctors", stdin=ndjson(doctors))
    await run_import(
        module_database_url,
        "-",
        "--resource",
        "patients",
        stdin=ndjson(map(create_body, register.generate_patients(PATIENT_COUNT))),
    )
    connection = await asyncpg.connect(module_database_url)
    await connection.execute("VACUUM ANALYZE")
    await connection.close()
    return urlsplit(module_database_url).path.removeprefix("/")


def create_body(registered: register.RegisteredPatient) -> dict[str, object]:
    """Return the body that creates a patient of the register, without a profile."""
    values = registered.patient._asdict()
    del values["profile_id"]
    return {**values, "hospital_ids": registered.hospital_ids, "doctor_ids": registered.doctor_ids}


@pytest.fixture
async def load_target(
    postgres_url: str, filled_database: str, serve: Callable[..., ServiceProcess]
) -> AsyncIterator[LoadTarget]:
    """Run a service on a copy of the database, with a limit that only attackers keep to by themselves."""
    async with temporary_database(postgres_url, template=filled_database) as url:
        keys = [await make_key(url, *SCOPES, name=holder) for holder in ("honest", "attacker")]
        served = serve(
            "--workers", "2", DATABASE_URL=url, PATIENTS_AUTH="required", PATIENTS_RATE_LIMIT="1000000/minute"
        )
        yield LoadTarget(served, *keys)
        served.process.terminate()
        served.process.wait(60)


@pytest.fixture(scope="module")
def report_lines() -> Iterator[list[str]]:
    """Lines that are printed together at the end."""
    lines: list[str] = []
    yield lines
    print("\n" + "\n".join(lines))


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: f"{attack.name}: {attack.attackers}")
def test_honest_clients_are_served_during_an_attack(
    load_target: LoadTarget, report_lines: list[str], attack: Attack
) -> None:
    """During an attack no honest request fails, p99 latency at most doubles, and the memory is released afterwards."""
    load_target.measure("16 honest creators", WARM_UP_SECONDS)
    load_target.measure(attack.honest, 2)  # for everything that the first request creates
    alone, _ = load_target.measure(attack.honest, PHASE_SECONDS)
    before = alone if attack.baseline is None else load_target.measure(attack.honest, PHASE_SECONDS, attack.baseline)[0]
    memory = load_target.worker_memory_bytes
    load_target.reset_memory_peaks()
    during, attackers = load_target.measure(attack.honest, attack.seconds, attack.attackers)
    ended = time.monotonic()
    after, _ = load_target.measure(attack.honest, PHASE_SECONDS)

    def is_back() -> bool:
        return (
            load_target.worker_memory_bytes <= memory + MAX_RETAINED_MEMORY_BYTES
            or time.monotonic() > ended + RECOVERY_SECONDS
        )

    eventually(is_back, within_seconds=RECOVERY_SECONDS + 5)
    retained, peak = load_target.worker_memory_bytes - memory, load_target.peak_memory_bytes
    phases = {"alone": alone, "attacked": during, "after": after}
    if attack.baseline is not None:
        phases = {"alone": alone, f"beside {attack.baseline}": before, "attacked": during, "after": after}
    lines = [f"{attack.name}: {attack.attackers}".ljust(44) + "  p50 ms    p99 ms        /s   not 2xx"]
    lines += [f"  {attack.honest}, {when}".ljust(44) + str(heard) for when, heard in phases.items()]
    if attackers is not None and attackers.heard:
        statuses = Counter(status for _, status in attackers.heard)
        lines.append(f"  attackers: {attackers.requests_per_second:.1f}/s, by status {dict(sorted(statuses.items()))}")
    lines.append(
        f"  memory of the workers: {memory / MEGABYTE:.0f} MB before, {peak / MEGABYTE:.0f} MB at most, "
        f"{(memory + retained) / MEGABYTE:.0f} MB {time.monotonic() - ended:.0f} s after"
    )
    report_lines += lines
    print("\n" + "\n".join(lines))
    slower = during.latency_milliseconds(99) / before.latency_milliseconds(99)
    failures = sum((heard.failures for heard in phases.values()), Counter[int]())
    assert (slower <= 2, dict(failures), retained <= MAX_RETAINED_MEMORY_BYTES) == (True, {}, True), (
        f"p99 {slower:.1f} times as long, failures by status {dict(failures)}, {retained / MEGABYTE:.0f} MB retained"
    )
