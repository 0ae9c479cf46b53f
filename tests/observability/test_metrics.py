"""`/metrics`: the metrics, and that their values are correct whichever worker responds."""

import asyncio
import os
import platform
import signal
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version
from pathlib import Path

import asyncpg
import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from app.auth.scopes import Scope
from app.embedded.server import EmbeddedPostgres
from tests.auth.support import make_key
from tests.observability.support import Metrics, connections_in_use, has_values, scrape
from tests.processes import (
    RawRequest,
    postgres_pid,
    send_concurrently,
    wait_until_blocked,
    worker_pids,
)
from tests.support import ServiceProcess, eventually

HOSPITALS = "/hospitals/hospitals/"
DOCTORS = "/doctors/doctors/"
HOSPITAL_ROUTE = "/hospitals/hospitals/{unique_id}/"
PATIENTS = "/patients/patients/"
Serve = Callable[..., ServiceProcess]


def repeated_scrapes(served: ServiceProcess) -> Iterator[Metrics]:
    """Yield several scrapes, so that some reach each worker: the kernel spreads connections."""
    return (scrape(served.url) for _ in range(12))


@pytest.mark.crowd
async def test_counts_are_exact_whichever_worker_is_asked(serve: Serve, database_url: str) -> None:
    """Each of two workers reports exact totals for both, also after one was killed and replaced.

    Concurrent requests share statements, so there are fewer of these, but every worker reports the same number.
    """
    served = serve("--workers", "2", DATABASE_URL=database_url)
    missing = [RawRequest("GET", f"{HOSPITALS}none/")]
    expected = 0

    def exact() -> bool:
        scraped = list(repeated_scrapes(served))
        statements = {
            metrics.value("database_statement_duration_seconds_count", operation="SELECT", table="hospitals")
            for metrics in scraped
        }
        return (len(statements) == 1 and 0 < statements.pop() <= expected) and all(
            metrics.value("http_requests_total", route=HOSPITAL_ROUTE, method="GET", status="404") == expected
            and metrics.value("http_request_duration_seconds_count", route=HOSPITAL_ROUTE, method="GET") == expected
            for metrics in scraped
        )

    async def ask() -> None:
        nonlocal expected
        await send_concurrently(served.url, missing * 40)
        expected += 40
        await asyncio.to_thread(eventually, exact)

    await ask()
    before = worker_pids(served.process.pid)
    os.kill(min(before), signal.SIGKILL)
    await asyncio.to_thread(eventually, lambda: len(worker_pids(served.process.pid) - before) == 1, within_seconds=60)
    await ask()
    (fresh,) = worker_pids(served.process.pid) - before
    await asyncio.to_thread(eventually, lambda: any(shared_value_files(fresh)), within_seconds=60)
    await ask()
    (directory,) = {path.parent for path in shared_value_files(fresh)}
    assert len(list(directory.glob("gauge_live*"))) == 6, "two files for each of two workers and the supervisor"
    assert not list(directory.glob(f"gauge_live*_{min(before)}.db")), "files of the killed worker remain"
    served.process.terminate()
    await asyncio.to_thread(served.process.wait, 30)
    assert not directory.exists(), "the directory must be removed"


def shared_value_files(pid: int) -> list[Path]:
    """Return the files that a process maps into its memory to share its values."""
    lines = [line.split(maxsplit=5) for line in Path(f"/proc/{pid}/maps").read_text().splitlines()]
    return [Path(fields[5]) for fields in lines if fields[-1].endswith(f"_{pid}.db")]


@pytest.mark.crowd
async def test_connections_of_killed_workers_are_not_counted(
    serve: Serve, database_url: str, connection: asyncpg.Connection
) -> None:
    """Connections of killed workers are no longer counted, and the log names these workers and their replacements."""
    served = serve("--workers", "2", DATABASE_URL=database_url, PATIENTS_POOL_SIZE="3")
    async with connection.transaction(), httpx.AsyncClient(base_url=served.url, timeout=30) as client:
        await connection.execute("LOCK TABLE hospitals IN ACCESS EXCLUSIVE MODE")
        request = asyncio.create_task(client.get(f"{HOSPITALS}none/"))
        await wait_until_blocked(connection)
        # a background task may use another one just after the start
        await asyncio.to_thread(eventually, partial(has_values, served.url, database_connections_in_use=1))
        killed = worker_pids(served.process.pid)
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        with pytest.raises(httpx.TransportError):
            await request

    def connections_released() -> bool:
        try:
            return has_values(served.url, database_connections_in_use=0, database_connections_max=6)
        except httpx.TransportError:  # not serving yet
            return False

    await asyncio.to_thread(eventually, connections_released, within_seconds=60)
    fresh = worker_pids(served.process.pid)

    def logged(event: str) -> list[tuple[str, int, int | None]]:
        lines = [line for line in served.log_entries() if line["event"] == event]
        return sorted((line["level"], line["pid"], line.get("exit_code")) for line in lines)

    def both_logged() -> bool:
        return len(logged("worker started")) == 2

    await asyncio.to_thread(eventually, both_logged)
    assert logged("worker ended") == [("warning", pid, -signal.SIGKILL) for pid in sorted(killed)]
    assert logged("worker started") == [("info", pid, None) for pid in sorted(fresh)]


async def test_pool_metrics_count_connections_in_use_and_waiting_requests(
    serve: Serve, database_url: str, connection: asyncpg.Connection
) -> None:
    """The pool metrics count the connections in use and the requests that wait for one, and both return to zero."""
    served = serve(DATABASE_URL=database_url, PATIENTS_POOL_SIZE="4")
    async with connection.transaction():
        await connection.execute("LOCK TABLE hospitals IN ACCESS EXCLUSIVE MODE")
        deletion = RawRequest("DELETE", f"{HOSPITALS}none/")
        requests = asyncio.create_task(send_concurrently(served.url, [deletion] * 5))
        await wait_until_blocked(connection, 3)
        # three are the limit for one principal's transactions
        full = {"database_connections_max": 4, "database_connections_in_use": 3, "database_requests_waiting": 2}
        await asyncio.to_thread(eventually, partial(has_values, served.url, **full))
    assert {response.status for response in await requests} == {404}
    free = {"database_connections_in_use": 0, "database_requests_waiting": 0}
    await asyncio.to_thread(eventually, partial(has_values, served.url, **free))


async def test_failed_and_cancelled_statements_are_timed_too(
    client: httpx.AsyncClient, connection: asyncpg.Connection
) -> None:
    """A lock timeout counts as time of the statement, and its connection is no longer in use afterwards."""
    await client.post(DOCTORS, json={"unique_id": "doc1", "doctor_first_name": "General"})
    before = Metrics((await client.get("/metrics")).text)
    async with connection.transaction():
        await connection.execute("SELECT FROM doctors FOR UPDATE")
        response = await client.put(f"{DOCTORS}doc1/", json={"doctor_first_name": "New"})
    assert response.status_code == 503
    after = Metrics((await client.get("/metrics")).text)
    spent = {
        name: after.value(name, operation="SELECT", table="doctors")
        - before.value(name, operation="SELECT", table="doctors")
        for name in ("database_statement_duration_seconds_sum", "database_statement_duration_seconds_count")
    }
    assert spent["database_statement_duration_seconds_count"] == 1
    assert 1.4 < spent["database_statement_duration_seconds_sum"] < 2
    await asyncio.to_thread(eventually, lambda: connections_in_use() == 0)


async def test_statement_metrics_are_labelled_by_operation_and_table(client: httpx.AsyncClient) -> None:
    """Each statement is counted once by operation and table, including the commit."""
    names = {("INSERT", "doctors"): 1, ("COMMIT", ""): 1}
    before = Metrics((await client.get("/metrics")).text)
    assert (await client.post(DOCTORS, json={"doctor_first_name": "General"})).status_code == 201
    after = Metrics((await client.get("/metrics")).text)
    name = "database_statement_duration_seconds_count"
    changed = {
        (dict(labels)["operation"], dict(labels)["table"]): value - before.samples.get((sample, labels), 0)
        for (sample, labels), value in after.samples.items()
        if sample == name and value != before.samples.get((sample, labels), 0)
    }
    assert changed == names


async def test_labels_are_bounded(client: httpx.AsyncClient) -> None:
    """Unknown methods and paths create no new label values."""
    for number in range(5):
        await client.request(f"BREW{number}", f"/nowhere/{number}")
        await client.get(f"{HOSPITALS}made-up-{number}/", params={"made-up": str(number)})
    metrics = Metrics((await client.get("/metrics")).text)
    assert metrics.value("http_requests_total", route="(none)", method="_OTHER", status="404") >= 5
    assert "BREW" not in metrics.text
    assert "made-up" not in metrics.text
    assert "nowhere" not in metrics.text
    app_routes = {route for route in metrics.labels("route") if route != "(none)"}
    assert {HOSPITAL_ROUTE, "/metrics"} <= app_routes


async def test_interrupted_responses_are_counted_as_incomplete(
    serve: Serve, database_url: str, connection: asyncpg.Connection
) -> None:
    """A request abandoned by its client before the response counts as incomplete, with the status `none`."""
    served = serve(DATABASE_URL=database_url)
    async with connection.transaction():
        await connection.execute("LOCK TABLE hospitals IN ACCESS EXCLUSIVE MODE")
        _, writer = await asyncio.open_connection("127.0.0.1", int(served.url.rpartition(":")[2]))
        writer.write(RawRequest("GET", f"{HOSPITALS}none/").to_bytes())
        await wait_until_blocked(connection)
        writer.close()

        def broken() -> bool:
            metrics = scrape(served.url)
            return (
                metrics.value("http_responses_incomplete_total", route=HOSPITAL_ROUTE, method="GET") == 1
                and metrics.value("http_requests_total", route=HOSPITAL_ROUTE, method="GET", status="none") == 1
            )

        await asyncio.to_thread(eventually, broken)


async def test_text_and_openmetrics_formats_parse(client: httpx.AsyncClient) -> None:
    """`/metrics` returns the text format by default, and OpenMetrics if Prometheus asks for it."""
    await client.get(HOSPITALS)
    plain = await client.get("/metrics")
    assert plain.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert (
        Metrics(plain.text).value(
            "patients_api_build_info", version=version("patients-api"), python=platform.python_version()
        )
        == 1
    )
    prometheus = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
    response = await client.get("/metrics", headers={"Accept": prometheus})
    assert response.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    parsed = text_string_to_metric_families(response.text)  # type: ignore[no-untyped-call]
    families = {family.name: family for family in parsed}
    assert {"http_requests", "http_request_duration_seconds", "database_connections_in_use"} <= families.keys()
    assert all(family.documentation for family in families.values())


def test_a_single_worker_exports_process_metrics(serve: Serve, database_url: str) -> None:
    """A single worker exports its memory and CPU time, even if PROMETHEUS_MULTIPROC_DIR is set."""
    served = serve(DATABASE_URL=database_url, PROMETHEUS_MULTIPROC_DIR="/nowhere")
    metrics = scrape(served.url)
    assert metrics.value("process_resident_memory_bytes") > 10_000_000
    assert metrics.value("process_cpu_seconds_total") > 0


async def test_successful_scrapes_and_probes_are_not_logged(serve: Serve, database_url: str) -> None:
    """A successful scrape is not logged, like a probe, but a refused one is."""
    served = serve(DATABASE_URL=database_url, PATIENTS_AUTH="required")
    key = await make_key(database_url, Scope.METRICS_READ)
    scrape(served.url, Authorization=f"Bearer {key}")
    with pytest.raises(AssertionError, match="Send an API key"):
        scrape(served.url)
    await asyncio.to_thread(eventually, lambda: len(served.log_entries()) > 1)
    served.process.terminate()
    await asyncio.to_thread(served.process.wait, 30)
    start, *others = served.log_entries()
    assert start["event"] == "service starting"
    assert [(line["route"], line["status"]) for line in others] == [("/metrics", 401)]


@pytest.mark.crowd
async def test_a_metrics_key_works_while_the_database_is_down(serve: Serve, migrated_data_dir: Path) -> None:
    """A key for metrics only that was valid before still works while the database is down, and no other key does."""
    with EmbeddedPostgres(migrated_data_dir, options={"fsync": "off"}) as database:
        scraper, admin, unknown = [
            await make_key(database.url, scope, name=name)
            for name, scope in {"a": Scope.METRICS_READ, "b": Scope.ADMIN, "c": Scope.METRICS_READ}.items()
        ]
        served = serve(DATABASE_URL=database.url, PATIENTS_AUTH="required")

        def status(key: str) -> int:
            return httpx.get(f"{served.url}/metrics", headers={"X-API-Key": key}).status_code

        assert [status(scraper), status(admin)] == [200, 200]
        os.kill(postgres_pid(migrated_data_dir), signal.SIGKILL)
        eventually(lambda: status(admin) == 503, within_seconds=20)  # its cached verification has expired
        assert [status(scraper), status(unknown)] == [200, 503]
