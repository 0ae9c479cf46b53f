"""Show where the time of a lone request goes: `python -m benchmarks.lone`.

The application runs in this process, without a server and a client, so the table has only what its own code, the driver
and PostgreSQL take. Times are medians, because the machine may be shared.
"""

import argparse
import asyncio
import os
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from itertools import count, islice
from pathlib import Path
from statistics import median
from typing import Any

import structlog
import uvloop
from fastapi import FastAPI

from app.db.pool import DriverConnection
from app.main import create_app
from app.observability.logging import configure_logging
from app.settings import Settings
from benchmarks import command, database
from benchmarks.operations import WHOLE_LIST, Operation, operations_on
from benchmarks.report import table_head, table_row
from benchmarks.sides import SideError

WARM_UP_REQUESTS = 50
MIN_STATEMENTS_PER_REQUEST = 0.5
"""Statements that are sent less often are those of background tasks."""
MICROSECONDS = 1e6


@contextmanager
def _timed_statements() -> Iterator[dict[str, list[float]]]:
    """Yield the seconds that each text sent to PostgreSQL took, until its result was there."""
    seconds: dict[str, list[float]] = defaultdict(list)

    def timed(method: Callable[..., Any]) -> Callable[..., Any]:
        async def call(connection: DriverConnection, text: str, *values: Any) -> Any:
            began = time.perf_counter()
            try:
                return await method(connection, text, *values)
            finally:
                seconds[text].append(time.perf_counter() - began)

        return call

    originals = {name: getattr(DriverConnection, name) for name in ("fetch", "execute")}
    for name, method in originals.items():
        setattr(DriverConnection, name, timed(method))
    try:
        yield seconds
    finally:
        for name, method in originals.items():
            setattr(DriverConnection, name, method)


async def _send(app: FastAPI, operation: Operation, number: int) -> None:
    path, _, query = operation.paths[number % len(operation.paths)].partition("?")
    body = operation.bodies[number % len(operation.bodies)] if operation.bodies else ""
    messages = [{"type": "http.request", "body": body.replace("UNIQUE", f"lone-{time.time_ns()}").encode()}]
    statuses: list[int] = []

    async def receive() -> Any:
        if messages:
            return messages.pop()
        return await asyncio.Event().wait()  # the client stays connected

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "scheme": "http",
        "root_path": "",
        "method": operation.method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": [(b"host", b"patients.test"), (b"content-type", b"application/json")],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
        "state": {},
    }
    await app(scope, receive, send)
    if not statuses or statuses[0] >= HTTPStatus.BAD_REQUEST:
        raise SideError(f"{operation.name} fails: {statuses}")


async def _measure(app: FastAPI, operation: Operation, request_count: int) -> Iterator[str]:
    numbers = count()
    for number in islice(numbers, WARM_UP_REQUESTS):
        await _send(app, operation, number)
    wall_seconds, cpu_seconds = [], []
    with _timed_statements() as statements:
        for number in islice(numbers, request_count):
            wall, cpu = time.perf_counter(), time.process_time()
            await _send(app, operation, number)
            wall_seconds.append(time.perf_counter() - wall)
            cpu_seconds.append(time.process_time() - cpu)
    rows = [
        [operation.name, "all", "1", *(f"{median(each) * MICROSECONDS:.0f}" for each in (wall_seconds, cpu_seconds))]
    ]
    for text, seconds in statements.items():
        per_request = len(seconds) / request_count
        if per_request > MIN_STATEMENTS_PER_REQUEST:
            name = f"`{' '.join(text.split())[:40]}` ({len(text)} characters)"
            rows.append(["", name, f"{per_request:.2f}", f"{median(seconds) * MICROSECONDS:.0f}", ""])
    return map(table_row, rows)


async def _run(url: str, request_count: int) -> None:
    app = create_app(Settings.model_validate({"database_url": url, "auth": "off"}))
    print("\n".join(table_head(["operation", "part", "per request", "µs", "CPU µs of the service"])))
    async with app.router.lifespan_context(app):
        for operation in await asyncio.to_thread(operations_on, url, None):
            if operation != WHOLE_LIST:
                print("\n".join(await _measure(app, operation, request_count)))


def main() -> int:
    """Print the table for the register of the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lone", description=__doc__.partition("\n")[0])
    parser.add_argument("--patients", type=int, default=100_000, help="in the register (100,000)")
    parser.add_argument("--requests", type=int, default=1_000, help="of each operation (1,000)")
    arguments = parser.parse_args()

    def work() -> None:
        with (
            Path(os.devnull).open("w") as log_file,
            database.register_copy_server(database.ensure_register(arguments.patients), {}) as server,
        ):
            configure_logging()
            structlog.configure(logger_factory=structlog.WriteLoggerFactory(log_file))
            uvloop.run(_run(server.url, arguments.requests))

    return command.run(work)


if __name__ == "__main__":
    sys.exit(main())
