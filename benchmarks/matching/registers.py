"""Measurements on the generated register: who is found, how fast, and what a creation costs."""

import argparse
import asyncio
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from statistics import median, quantiles
from typing import Any

import asyncpg
import httpx

from app.db.connection import Connection
from app.db.database import Database
from app.matching.matches import Match, find_matches
from app.matching.pending import COMPARISON_INTERVAL_SECONDS
from app.matching.scan import SCAN_POOL_SIZE, scan
from app.matching.similar_words import SimilarWords
from app.matching.weights import Grade
from benchmarks.command import print_progress
from benchmarks.database import DatabaseServer, ensure_register, fetch_rows, register_copy_server, register_server
from benchmarks.matching.registrations import KINDS, REGISTERED_FIELDS, Registrar
from benchmarks.processes import cpu_seconds
from benchmarks.report import table_head, table_row
from benchmarks.sides import SideServer, running_sides, service_side

SELECT_PATIENTS = f"SELECT unique_id, {', '.join(REGISTERED_FIELDS)} FROM patients ORDER BY md5(unique_id) LIMIT $1"  # noqa: S608  # our own constants
MILLISECONDS = 1000
IDLE_SECONDS = 5


def run_quality(arguments: argparse.Namespace) -> None:
    """Print, for each kind of registration, who is found and with which grade, and how long it takes."""
    grades = [f"best is {grade}" for grade in Grade]
    print(*table_head(["registration", "person found", *grades, "candidates (median)", "p50, ms", "p99, ms"]), sep="\n")
    with register_server(ensure_register(arguments.patients), {}) as server:
        for kind in KINDS:
            print(asyncio.run(_measure_kind(server.url, kind, arguments.count)), flush=True)


async def _measure_kind(url: str, kind: str, count: int) -> str:
    driver = await asyncpg.connect(url)
    connection, registrar, similar_words = Connection(driver), Registrar(), SimilarWords()
    found, best, numbers, seconds = 0, Counter[Grade | None](), list[int](), list[float]()
    try:
        for patient in await driver.fetch(SELECT_PATIENTS, count):
            fields = KINDS[kind](registrar, patient)
            began = time.perf_counter()
            matches = await find_matches(connection, fields, similar_words)
            seconds.append(time.perf_counter() - began)
            found += any(match.unique_id == patient["unique_id"] for match in matches)
            best[_best_grade(matches)] += 1
            numbers.append(len(matches))
    finally:
        await driver.close()
    grades = [f"{best[grade] / count:.2%}" for grade in Grade]
    times = [f"{MILLISECONDS * value:.1f}" for value in (median(seconds), quantiles(seconds, n=100)[-1])]
    return table_row([kind, f"{found / count:.2%}", *grades, f"{median(numbers):g}", *times])


def _best_grade(matches: list[Match]) -> Grade | None:
    return matches[0].comparison.grade if matches else None


def run_scan(arguments: argparse.Namespace) -> None:
    """Print how long a scan of the register takes, and the CPU time of the command and of PostgreSQL."""
    with register_copy_server(ensure_register(arguments.patients), {}) as server:
        before, began = cpu_seconds(server.postmaster_pid), time.perf_counter()
        command_before = time.process_time()
        compared = asyncio.run(_scan(server.url))
        seconds, command = time.perf_counter() - began, time.process_time() - command_before
        postgresql = cpu_seconds(server.postmaster_pid) - before
        print(f"{compared:,} patients in {seconds:.0f} s; CPU: command {command:.0f} s, PostgreSQL {postgresql:.0f} s")


async def _scan(url: str) -> int:
    async with Database(url, pool_size=SCAN_POOL_SIZE, with_timeouts=False) as database:
        return await scan(database, lambda compared: print_progress(f"{compared:,}"))


def run_creations(arguments: argparse.Namespace) -> None:
    """Print the CPU time of a creation with all that follows from it: of the services with PostgreSQL.

    Nobody is compared by the first side, everybody in the background by the second one, and before by the third, too.
    """
    with register_copy_server(ensure_register(arguments.patients), {}) as server:
        sides = [
            service_side("nobody", workers=1, DATABASE_URL=f"{server.url}&patients.compare_patients=never"),
            service_side("queue", workers=1),
            service_side("refuse", workers=1, PATIENTS_DUPLICATE_CHECK="refuse"),
        ]
        registrar = Registrar()
        bodies = [_body(registrar.new({})) for _ in range(arguments.count * (arguments.rounds + 1) * len(sides))]
        spent: dict[str, list[float]] = {side.name: [] for side in sides}
        with running_sides(sides, server.url, arguments.logs) as servers:
            roots = [server.postmaster_pid, *(side.pid for side in servers)]
            for number in range(arguments.rounds + 1):
                idle = _idle_cpu(roots)
                for side in servers:
                    batch, bodies = bodies[: arguments.count], bodies[arguments.count :]
                    seconds = _cpu_of_creations(side, server, roots, idle, batch) / len(batch)
                    if number:  # statements are prepared in the first round
                        spent[side.side.name].append(seconds)
    print(*table_head(["compared", "CPU of a creation, ms", "beside nobody", "beside queue"]), sep="\n")
    for name, values in spent.items():
        ratios = [
            median(one / other for one, other in zip(values, spent[base], strict=True)) for base in list(spent)[:2]
        ]
        print(table_row([name, f"{MILLISECONDS * median(values):.2f}", *(f"{ratio:.2f}" for ratio in ratios)]))


def _body(fields: Mapping[str, Any]) -> dict[str, Any]:
    born = fields["patient_date_of_birth"]
    return {**fields, "patient_date_of_birth": born and born.isoformat()}


def _idle_cpu(roots: Sequence[int]) -> float:
    """Return the CPU time that the processes take each second without requests."""
    before = sum(map(cpu_seconds, roots))
    time.sleep(IDLE_SECONDS)
    return (sum(map(cpu_seconds, roots)) - before) / IDLE_SECONDS


def _cpu_of_creations(
    side: SideServer, server: DatabaseServer, roots: Sequence[int], idle: float, bodies: list[dict[str, Any]]
) -> float:
    """Return the CPU time that creations take, and the comparisons that they cause in the background."""
    before, began = sum(map(cpu_seconds, roots)), time.perf_counter()
    with httpx.Client(base_url=f"http://127.0.0.1:{side.port}") as client:
        for body in bodies:
            response = client.post("/patients/patients/", json=body)
            if response.status_code != HTTPStatus.CONFLICT:  # a possible duplicate
                response.raise_for_status()
    while fetch_rows(server.url, "SELECT FROM pending_comparisons LIMIT 1"):
        time.sleep(COMPARISON_INTERVAL_SECONDS)
    return sum(map(cpu_seconds, roots)) - before - idle * (time.perf_counter() - began)
