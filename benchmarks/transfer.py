"""How fast records come in and go out: `python -m benchmarks.transfer`.

Coming in: `patients-api import` of a register's patients, beside a raw COPY of the same rows into the same tables
(links and profiles too, no journal) and beside posting them one by one. Going out: `patients-api export`, beside COPY
of the same JSON. All in turns; each round of coming in begins with hospitals and doctors alone.
"""

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from app.db.migrate import migrate
from benchmarks import command, database, processes, report
from benchmarks.command import say
from benchmarks.measuring import Meter, require_wrk
from benchmarks.operations import operations_on
from benchmarks.peers.limit.statements import ALL
from benchmarks.register import Patient, Profile
from benchmarks.sides import PYTHON, SIDES, SideError, running

TABLES: Mapping[str, Sequence[str]] = {
    "hospitals": ("unique_id", "hospital_name"),
    "doctors": ("unique_id", "doctor_first_name", "doctor_last_name"),
    "profiles": Profile._fields,
    "patients": Patient._fields,
    "patient_hospitals": ("patient_id", "hospital_id"),
    "patient_doctors": ("patient_id", "doctor_id"),
}
DIRECTORY = ("hospitals", "doctors")
BESIDE = {"export": ("COPY (SELECT json)",), "import": ("COPY", "posting")}
HEADINGS = ("", "patients/s", "ratio", "client CPU µs", "PostgreSQL CPU µs", "memory MB")
CONNECTIONS = 16
POSTING_SECONDS = 10


class Sample(NamedTuple):
    """What one run took."""

    per_second: float
    """Patients."""
    client_cpu: float
    """Microseconds of CPU time a patient, of the process that asks (of posting: of the service)."""
    database_cpu: float
    """The same of PostgreSQL."""
    memory: float = 0
    """Megabytes that the process had at most, where it is one of its own."""


def main() -> int:
    """Measure what the command line asks for; 0, or 1 where that cannot be done."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.transfer", description="Measure imports and exports.")
    parser.add_argument("--patients", type=int, default=100_000, help="in the register (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="in which each way is measured once (%(default)s)")
    parser.add_argument("--out", action="store_true", help="measure exports alone")
    return command.run(partial(_run, parser.parse_args()))


def _run(arguments: argparse.Namespace) -> None:
    require_wrk()
    say(f"a register of {arguments.patients:,} patients")
    found: dict[str, list[Sample]] = {}
    directory = database.register(arguments.patients)
    with database.served(directory, {}) as served, tempfile.TemporaryDirectory() as scratch:
        bench = _Bench(served, Path(scratch), arguments.patients)
        ways = {"export": bench.export, "COPY (SELECT json)": bench.copy_out}
        if not arguments.out:
            bench.write_files()
            ways |= {"import": bench.load, "COPY": bench.copy_in, "posting": bench.post}
        for number in range(arguments.rounds):
            for name, measure in ways.items():
                say(f"round {number + 1}: {name}")
                found.setdefault(name, []).append(measure())
    print(_table(found))


class _Bench:
    """The ways in and out of one register."""

    def __init__(self, served: database.Served, scratch: Path, patients: int) -> None:
        self._served = served
        self._scratch = scratch
        self._patients = patients

    def write_files(self) -> None:
        """Write the register's rows, as COPY reads them, and its patients, as `import` does."""
        asyncio.run(self._copy_to_files())
        for name in ("patients", *DIRECTORY):
            file = self._scratch / f"{name}.ndjson"
            self._command(self._served.url, "export", "--resource", name, "--output", str(file))

    async def _copy_to_files(self) -> None:
        connection = await asyncpg.connect(self._served.url)
        for table, columns in TABLES.items():
            await connection.copy_from_table(table, columns=columns, output=self._scratch / f"{table}.copy")
        await connection.close()

    def export(self) -> Sample:
        """`patients-api export`."""
        return self._command(self._served.url, "export")

    def copy_out(self) -> Sample:
        """The same JSON by COPY, by a client that throws it away."""

        async def copy() -> None:
            connection = await asyncpg.connect(self._served.url)
            await connection.copy_from_query(ALL, output="/dev/null")
            await connection.close()

        return self._timed(copy)

    def load(self) -> Sample:
        """`patients-api import`."""
        with self._empty() as url:
            return self._command(url, "import", str(self._scratch / "patients.ndjson"))

    def copy_in(self) -> Sample:
        """COPY of the same rows in one transaction."""
        with self._empty() as url:

            async def copy() -> None:
                connection = await asyncpg.connect(url)
                async with connection.transaction():
                    for table, columns in TABLES.items():
                        if table not in DIRECTORY:
                            source = self._scratch / f"{table}.copy"
                            await connection.copy_to_table(table, source=source, columns=columns)
                await connection.close()

            return self._timed(copy)

    def post(self) -> Sample:
        """POST by 16 connections, to two workers, for some seconds."""
        with (
            self._empty() as url,
            tempfile.TemporaryDirectory() as logs,
            running([SIDES["service"]], url, Path(logs)) as [run],
        ):
            [create] = [operation for operation in operations_on(url, None) if operation.name == "create"]
            files = {run.side.name: create.write(Path(logs) / "requests")}
            found = Meter(self._served.postmaster).load(run, files, CONNECTIONS, POSTING_SECONDS)
        return Sample(found.per_second, found.server_cpu * 1000, found.database_cpu * 1000, found.memory)

    @contextmanager
    def _empty(self) -> Iterator[str]:
        """The URL of a database with hospitals and doctors alone."""
        parts = urlsplit(self._served.url)
        postgres, url = (urlunsplit(parts._replace(path=f"/{name}")) for name in ("postgres", "transfer"))
        asyncio.run(
            database.execute(postgres, "DROP DATABASE IF EXISTS transfer WITH (FORCE)", "CREATE DATABASE transfer")
        )
        migrate(url)
        for name in DIRECTORY:
            self._command(url, "import", str(self._scratch / f"{name}.ndjson"))
        asyncio.run(database.execute(postgres, "CHECKPOINT"))
        yield url
        asyncio.run(database.execute(postgres, "DROP DATABASE transfer WITH (FORCE)"))

    def _command(self, url: str, *arguments: str) -> Sample:
        before = processes.cpu_seconds(self._served.postmaster)
        began = time.perf_counter()
        environment = {**os.environ, "DATABASE_URL": url}
        with subprocess.Popen(
            (PYTHON, "-m", "app.cli", *arguments), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        ) as process:
            told = process.stderr.read() if process.stderr is not None else b""
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            raise SideError(f"{arguments[0]} fails: {told.decode()}")
        seconds = time.perf_counter() - began
        return self._sample(seconds, usage.ru_utime + usage.ru_stime, before, usage.ru_maxrss / 1000)

    def _timed(self, work: Callable[[], Coroutine[Any, Any, None]]) -> Sample:
        before, own = processes.cpu_seconds(self._served.postmaster), time.process_time()
        began = time.perf_counter()
        asyncio.run(work())
        return self._sample(time.perf_counter() - began, time.process_time() - own, before)

    def _sample(self, seconds: float, client: float, before: float, memory: float = 0) -> Sample:
        server = processes.cpu_seconds(self._served.postmaster) - before
        return Sample(self._patients / seconds, client / self._patients * 1e6, server / self._patients * 1e6, memory)


def _table(found: Mapping[str, Sequence[Sample]]) -> str:
    rates = {name: statistics.median(sample.per_second for sample in samples) for name, samples in found.items()}
    lines = report.head(HEADINGS)
    for name, samples in found.items():
        against = [f"{rates[name] / rates[other]:.2f} of {other}" for other in BESIDE.get(name, ()) if other in rates]
        used = [statistics.median(sample[place] for sample in samples) for place in (1, 2)]
        memory = max(sample.memory for sample in samples)
        lines.append(
            report.row(
                [
                    name,
                    report.spread([sample.per_second for sample in samples]),
                    ", ".join(against),
                    *(f"{each:.0f}" for each in used),
                    f"{memory:.0f}" if memory else "",
                ]
            )
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
