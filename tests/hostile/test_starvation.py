"""What one client can do to all others: honest clients are measured before, beside and after those that attack.

An attacker has a key of its own and keeps to its rate limit. Its load generator shares the machine with the service;
so honest clients are compared with themselves beside company of as many connections that ask as often, and for nothing
that is dear. `make chaos` runs this, and prints the table.
"""

import json
import secrets
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import asyncpg
import pytest

from app.auth.scopes import Scope
from benchmarks import register
from tests.auth.support import make_key
from tests.hostile.crowd import READY
from tests.processes import forget_peak, port_of, resident_bytes, workers
from tests.support import Served, database_named, eventually
from tests.transfer.support import imported, ndjson

pytestmark = pytest.mark.chaos

PATIENTS = 20_000
PHASE_SECONDS = 6
ATTACK_SECONDS = 12
HOLD_SECONDS = 40
"""How long lists are left unread."""
RECOVERY_SECONDS = 15
"""After which memory is to be back."""
MEGABYTE = 1024 * 1024
MOST_MEMORY_KEPT = 20 * MEGABYTE
"""Of all workers together."""
SCOPES = (Scope.PATIENTS_READ, Scope.PATIENTS_WRITE)


@dataclass(frozen=True)
class Attack:
    """Whom it meets, and what company these had before."""

    name: str
    crowd: str
    company: str | None
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


class Heard(NamedTuple):
    """What clients heard in one phase."""

    seconds: float
    heard: list[tuple[float, int]]

    @property
    def a_second(self) -> float:
        return len(self.heard) / self.seconds if self.seconds else 0.0

    def milliseconds(self, percent: int) -> float:
        """The time that so many per cent of the requests took at most."""
        times = sorted(seconds for seconds, _ in self.heard)
        return 1000 * times[min(len(times) - 1, len(times) * percent // 100)]

    @property
    def failures(self) -> Counter[int]:
        """Statuses that are no success; 0 is no answer."""
        return Counter(status for _, status in self.heard if not 200 <= status < 300)

    def __str__(self) -> str:
        failures = ", ".join(f"{number} x {status}" for status, number in sorted(self.failures.items())) or "none"
        return f"{self.milliseconds(50):8.1f} {self.milliseconds(99):9.1f} {self.a_second:9.1f}   {failures}"


@contextmanager
def crowd(name: str, port: int, key: str, seconds: float = 0) -> Iterator[subprocess.Popen[str]]:
    """Clients in a process of their own, which are ready to begin; they end after so many seconds, if not told to."""
    arguments = [sys.executable, "-m", "tests.hostile.crowd", name, str(port), key, str(seconds)]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == f"{READY}\n", f"the crowd '{name}' did not come to asking"
            yield process
        finally:
            process.kill()


def begin(process: subprocess.Popen[str]) -> None:
    """Have a crowd begin."""
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def heard_by(process: subprocess.Popen[str]) -> Heard:
    """What a crowd heard, when it has ended."""
    assert process.stdout is not None
    return Heard(**json.loads(process.stdout.readline()))


@dataclass
class Field:
    """A served process with two workers, and keys for who is honest and who is not."""

    served: Served
    honest_key: str
    other_key: str

    def measure(self, honest: str, seconds: float, beside: str | None = None) -> tuple[Heard, Heard | None]:
        """What honest clients hear in so many seconds, and what those beside them."""
        port = port_of(self.served.url)
        with ExitStack() as stack:
            measured = stack.enter_context(crowd(honest, port, self.honest_key, seconds))
            others = beside and stack.enter_context(crowd(beside, port, self.other_key))
            if others:
                begin(others)
            begin(measured)
            heard = heard_by(measured)
            if not others:
                return heard, None
            others.terminate()
            return heard, heard_by(others)

    @property
    def memory(self) -> int:
        """Of all workers."""
        return sum(map(resident_bytes, workers(self.served.process.pid)))

    def forget_peaks(self) -> None:
        for pid in workers(self.served.process.pid):
            forget_peak(pid)

    @property
    def peak(self) -> int:
        """The most that each worker had, taken together."""
        return sum(resident_bytes(pid, peak=True) for pid in workers(self.served.process.pid))


@pytest.fixture(scope="module")
async def filled(server: str) -> AsyncIterator[str]:
    """The name of a database with 20,000 patients, whose names are as frequent as real ones."""
    name = f"filled_{secrets.token_hex(4)}"
    administration = await asyncpg.connect(database_named(server, "postgres"))
    await administration.execute(f"CREATE DATABASE {name} TEMPLATE patients")
    url = database_named(server, name)
    hospitals = [{"unique_id": key, "hospital_name": value} for key, value in register.hospitals().items()]
    doctors = [{"unique_id": key, "doctor_first_name": value[0]} for key, value in register.doctors().items()]
    await imported(url, "-", "--resource", "hospitals", given=ndjson(hospitals))
    await imported(url, "-", "--resource", "doctors", given=ndjson(doctors))
    await imported(url, "-", "--resource", "patients", given=ndjson(map(body, register.patients(PATIENTS))))
    connection = await asyncpg.connect(url)
    await connection.execute("VACUUM ANALYZE")
    await connection.close()
    yield name
    await administration.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await administration.close()


def body(registered: register.Registered) -> dict[str, object]:
    """What creates a patient of the register, without its profile."""
    values = registered.patient._asdict()
    del values["profile_id"]
    return {**values, "hospital_ids": registered.hospital_ids, "doctor_ids": registered.doctor_ids}


@pytest.fixture
async def field(server: str, filled: str, serve: Callable[..., Served]) -> AsyncIterator[Field]:
    """A service on a copy of the database; its rate limit is the attackers' matter, as honest clients hurry here."""
    name = f"test_{secrets.token_hex(4)}"
    administration = await asyncpg.connect(database_named(server, "postgres"))
    await administration.execute(f"CREATE DATABASE {name} TEMPLATE {filled}")
    url = database_named(server, name)
    keys = [await make_key(url, *SCOPES, name=holder) for holder in ("honest", "attacker")]
    served = serve("--workers", "2", DATABASE_URL=url, PATIENTS_AUTH="required", PATIENTS_RATE_LIMIT="1000000/minute")
    yield Field(served, *keys)
    served.process.terminate()
    served.process.wait(60)
    await administration.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await administration.close()


@pytest.fixture(scope="module")
def table() -> Iterator[list[str]]:
    """Lines that are printed together at the end."""
    lines: list[str] = []
    yield lines
    print("\n" + "\n".join(lines))


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: f"{attack.name}: {attack.crowd}")
def test_others_are_served(field: Field, table: list[str], attack: Attack) -> None:
    """The slowest of honest clients' requests take at most twice as long, none fails, and memory comes back."""
    field.measure(attack.honest, 2)  # everything that is made at the first request has been made
    alone, _ = field.measure(attack.honest, PHASE_SECONDS)
    before = alone if attack.company is None else field.measure(attack.honest, PHASE_SECONDS, attack.company)[0]
    memory = field.memory
    field.forget_peaks()
    during, attackers = field.measure(attack.honest, attack.seconds, attack.crowd)
    ended = time.monotonic()
    after, _ = field.measure(attack.honest, PHASE_SECONDS)

    def is_back() -> bool:
        return field.memory <= memory + MOST_MEMORY_KEPT or time.monotonic() > ended + RECOVERY_SECONDS

    eventually(is_back, within=RECOVERY_SECONDS + 5)
    kept, peak = field.memory - memory, field.peak
    phases = {"alone": alone, "attacked": during, "after": after}
    if attack.company is not None:
        phases = {"alone": alone, f"beside {attack.company}": before, "attacked": during, "after": after}
    lines = [f"{attack.name}: {attack.crowd}".ljust(44) + "  p50 ms    p99 ms        /s   not 2xx"]
    lines += [f"  {attack.honest}, {when}".ljust(44) + str(heard) for when, heard in phases.items()]
    if attackers is not None and attackers.heard:
        statuses = Counter(status for _, status in attackers.heard)
        lines.append(f"  attackers: {attackers.a_second:.1f}/s, by status {dict(sorted(statuses.items()))}")
    lines.append(
        f"  memory of the workers: {memory / MEGABYTE:.0f} MB before, {peak / MEGABYTE:.0f} MB at most, "
        f"{(memory + kept) / MEGABYTE:.0f} MB {time.monotonic() - ended:.0f} s after"
    )
    table += lines
    print("\n" + "\n".join(lines))
    slower = during.milliseconds(99) / before.milliseconds(99)
    failures = sum((heard.failures for heard in phases.values()), Counter[int]())
    assert (slower <= 2, dict(failures), kept <= MOST_MEMORY_KEPT) == (True, {}, True), (
        f"p99 {slower:.1f} times as long, failures by status {dict(failures)}, {kept / MEGABYTE:.0f} MB kept"
    )
