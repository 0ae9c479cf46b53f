"""How fast records are imported and exported: `python -m benchmarks.transfer`.

`patients-api import` of a register's patients is compared with a raw COPY of the same rows into the same tables (with
links and profiles, without journal), with this COPY before all indexes and foreign keys are built, and with posting the
patients one by one; `patients-api export` with COPY of the same JSON. All are measured in turns, and each import starts
on a database with hospitals and doctors only.
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
from benchmarks.command import print_progress
from benchmarks.measurement import Meter, require_wrk
from benchmarks.operations import operations_on
from benchmarks.peers.limit.statements import SELECT_ALL_PATIENTS
from benchmarks.register import Patient, Profile
from benchmarks.sides import PYTHON_EXECUTABLE, SIDES, SideError, running_sides

TABLE_COLUMNS: Mapping[str, Sequence[str]] = {
    "hospitals": ("unique_id", "hospital_name"),
    "doctors": ("unique_id", "doctor_first_name", "doctor_last_name"),
    "profiles": Profile._fields,
    "patients": Patient._fields,
    "patient_hospitals": ("patient_id", "hospital_id"),
    "patient_doctors": ("patient_id", "doctor_id"),
}
REFERENCE_RESOURCES = ("hospitals", "doctors")
BASELINES = {
    "export": ("COPY (SELECT json)",),
    "export, once started": ("COPY (SELECT json)",),
    "import": ("COPY, then indexes", "COPY", "posting"),
}
HEADINGS = ("", "patients/s", "ratio", "client CPU µs", "PostgreSQL CPU µs", "memory MB")
CONNECTION_COUNT = 16
POSTING_SECONDS = 10
READ_SIZE_BYTES = 1024 * 1024


class TransferSample(NamedTuple):
    """The result of one run."""

    per_second: float
    """Patients per second."""
    client_cpu: float
    """Microseconds of CPU time per patient, of the client process (for posting: of the service)."""
    database_cpu: float
    """The same for PostgreSQL."""
    memory: float = 0
    """The peak memory in megabytes, if the work runs in a separate process."""


def main() -> int:
    """Run the measurements of the command line and return 0, or 1 if they failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.transfer", description="Measure imports and exports.")
    parser.add_argument("--patients", type=int, default=100_000, help="in the register (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="each measures every way once (%(default)s)")
    parser.add_argument("--out", action="store_true", help="measure exports only")
    parser.add_argument("--no-posting", action="store_true", help="measure no requests, and do without wrk")
    return command.run(partial(_run_benchmark, parser.parse_args()))


def _run_benchmark(arguments: argparse.Namespace) -> None:
    if not (arguments.out or arguments.no_posting):
        require_wrk()
    print_progress(f"a register of {arguments.patients:,} patients")
    samples: dict[str, list[TransferSample]] = {}
    directory = database.ensure_register(arguments.patients)
    with database.register_server(directory, {}) as database_server, tempfile.TemporaryDirectory() as scratch:
        benchmark = _TransferBenchmark(database_server, Path(scratch), arguments.patients)
        measurements: dict[str, Callable[[], TransferSample]] = {
            "export": benchmark.run_export,
            "export, once started": partial(benchmark.run_export, once_started=True),
            "COPY (SELECT json)": benchmark.copy_out,
        }
        if not arguments.out:
            benchmark.write_files()
            measurements |= {
                "import": benchmark.run_import,
                "COPY, then indexes": partial(benchmark.copy_in, indexes_last=True),
                "COPY": benchmark.copy_in,
            }
            if not arguments.no_posting:
                measurements["posting"] = benchmark.post
        for number in range(arguments.rounds):
            for name, measure in measurements.items():
                print_progress(f"round {number + 1}: {name}")
                samples.setdefault(name, []).append(measure())
    print(_table(samples))


class _TransferBenchmark:
    """The imports and exports of one register."""

    def __init__(self, database_server: database.DatabaseServer, scratch: Path, patient_count: int) -> None:
        self._database_server = database_server
        self._scratch = scratch
        self._patient_count = patient_count

    def write_files(self) -> None:
        """Write the register's rows for COPY, and its patients for `import`."""
        asyncio.run(self._copy_to_files())
        for name in ("patients", *REFERENCE_RESOURCES):
            file = self._scratch / f"{name}.ndjson"
            self._measure_command(self._database_server.url, "export", "--resource", name, "--output", str(file))

    async def _copy_to_files(self) -> None:
        connection = await asyncpg.connect(self._database_server.url)
        for table, columns in TABLE_COLUMNS.items():
            await connection.copy_from_table(table, columns=columns, output=self._scratch / f"{table}.copy")
        await connection.close()

    def run_export(self, *, once_started: bool = False) -> TransferSample:
        """Measure `patients-api export`, from its start or from the first bytes of its output."""
        return self._measure_command(self._database_server.url, "export", from_first_output=once_started)

    def copy_out(self) -> TransferSample:
        """Measure COPY of the same JSON, by a client that discards it."""

        async def copy() -> None:
            connection = await asyncpg.connect(self._database_server.url)
            await connection.copy_from_query(SELECT_ALL_PATIENTS, output="/dev/null")
            await connection.close()

        return self._measure(copy)

    def run_import(self) -> TransferSample:
        """Measure `patients-api import`."""
        with self._empty_database() as url:
            return self._measure_command(url, "import", str(self._scratch / "patients.ndjson"))

    def copy_in(self, *, indexes_last: bool = False) -> TransferSample:
        """Measure COPY of the same rows in one transaction, which may drop and rebuild all indexes and foreign keys."""
        tables = [table for table in TABLE_COLUMNS if table not in REFERENCE_RESOURCES]
        with self._empty_database() as url:

            async def copy() -> None:
                connection = await asyncpg.connect(url)
                async with connection.transaction():
                    rebuild = await _drop_indexes(connection, tables) if indexes_last else []
                    for table in tables:
                        source = self._scratch / f"{table}.copy"
                        await connection.copy_to_table(table, source=source, columns=TABLE_COLUMNS[table])
                    await connection.execute("SET LOCAL maintenance_work_mem = '256MB'")
                    for statement in rebuild:
                        await connection.execute(statement)
                await connection.close()

            return self._measure(copy)

    def post(self) -> TransferSample:
        """Measure POST requests on 16 connections to two workers for some seconds."""
        with (
            self._empty_database() as url,
            tempfile.TemporaryDirectory() as logs,
            running_sides([SIDES["service"]], url, Path(logs)) as [server],
        ):
            [create] = [operation for operation in operations_on(url, None) if operation.name == "create"]
            files = {server.side.name: create.write_files(Path(logs) / "requests")}
            sample = Meter(self._database_server.postmaster_pid).measure_load(
                server, files, CONNECTION_COUNT, POSTING_SECONDS
            )
        return TransferSample(sample.per_second, sample.server_cpu * 1000, sample.database_cpu * 1000, sample.memory)

    @contextmanager
    def _empty_database(self) -> Iterator[str]:
        """Create a database with only hospitals and doctors, and yield its URL."""
        parts = urlsplit(self._database_server.url)
        postgres, url = (urlunsplit(parts._replace(path=f"/{name}")) for name in ("postgres", "transfer"))
        asyncio.run(
            database.execute(postgres, "DROP DATABASE IF EXISTS transfer WITH (FORCE)", "CREATE DATABASE transfer")
        )
        migrate(url)
        for name in REFERENCE_RESOURCES:
            self._measure_command(url, "import", str(self._scratch / f"{name}.ndjson"))
        asyncio.run(database.execute(postgres, "CHECKPOINT"))
        yield url
        asyncio.run(database.execute(postgres, "DROP DATABASE transfer WITH (FORCE)"))

    def _measure_command(self, url: str, *arguments: str, from_first_output: bool = False) -> TransferSample:
        before = processes.cpu_seconds(self._database_server.postmaster_pid)
        started, first_output_at = time.perf_counter(), 0.0
        environment = {**os.environ, "DATABASE_URL": url}
        with subprocess.Popen(
            (PYTHON_EXECUTABLE, "-m", "app.cli", *arguments),
            env=environment,
            stdout=subprocess.PIPE if from_first_output else subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        ) as process:
            if process.stdout is not None:
                while os.read(process.stdout.fileno(), READ_SIZE_BYTES):
                    first_output_at = first_output_at or time.perf_counter()
            stderr = process.stderr.read() if process.stderr is not None else b""
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            raise SideError(f"{arguments[0]} failed: {stderr.decode()}")
        seconds = time.perf_counter() - (first_output_at or started)
        return self._sample(seconds, usage.ru_utime + usage.ru_stime, before, usage.ru_maxrss / 1000)

    def _measure(self, work: Callable[[], Coroutine[Any, Any, None]]) -> TransferSample:
        before, own_cpu_before = processes.cpu_seconds(self._database_server.postmaster_pid), time.process_time()
        started = time.perf_counter()
        asyncio.run(work())
        return self._sample(time.perf_counter() - started, time.process_time() - own_cpu_before, before)

    def _sample(self, seconds: float, client: float, before: float, memory: float = 0) -> TransferSample:
        server = processes.cpu_seconds(self._database_server.postmaster_pid) - before
        return TransferSample(
            self._patient_count / seconds,
            client / self._patient_count * 1e6,
            server / self._patient_count * 1e6,
            memory,
        )


async def _drop_indexes(connection: asyncpg.Connection, tables: Sequence[str]) -> list[str]:
    """Drop all indexes and foreign keys of these tables, and return the statements that create them again."""
    constraints = await connection.fetch(
        """
        SELECT format('ALTER TABLE %s DROP CONSTRAINT %I', conrelid::regclass, conname),
            format('ALTER TABLE %s ADD CONSTRAINT %I %s', conrelid::regclass, conname, pg_get_constraintdef(oid))
        FROM pg_constraint WHERE conrelid = ANY($1::text[]::regclass[]) AND contype IN ('p', 'f')
        ORDER BY contype -- foreign keys before the primary keys that they need
        """,
        tables,
    )
    indexes = await connection.fetch(
        """
        SELECT format('DROP INDEX %s', indexrelid::regclass), pg_get_indexdef(indexrelid)
        FROM pg_index WHERE indrelid = ANY($1::text[]::regclass[]) AND NOT indisprimary
        """,
        tables,
    )
    dropped = [*constraints, *indexes]
    for drop, _ in dropped:
        await connection.execute(drop)
    return [create for _, create in reversed(dropped)]


def _table(samples_by_name: Mapping[str, Sequence[TransferSample]]) -> str:
    rates = {
        name: statistics.median(sample.per_second for sample in samples) for name, samples in samples_by_name.items()
    }
    lines = report.table_head(HEADINGS)
    for name, samples in samples_by_name.items():
        ratios = [f"{rates[name] / rates[other]:.2f} of {other}" for other in BASELINES.get(name, ()) if other in rates]
        cpu_times = [statistics.median(sample[place] for sample in samples) for place in (1, 2)]
        memory = max(sample.memory for sample in samples)
        lines.append(
            report.table_row(
                [
                    name,
                    report.format_spread([sample.per_second for sample in samples]),
                    ", ".join(ratios),
                    *(f"{each:.0f}" for each in cpu_times),
                    f"{memory:.0f}" if memory else "",
                ]
            )
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
