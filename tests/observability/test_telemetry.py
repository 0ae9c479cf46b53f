"""OpenTelemetry: which data are exported, and that the service keeps serving whatever the collector does."""

import asyncio
import signal
import socket
import time
from collections.abc import Callable

import asyncpg
import httpx
import pytest

from tests.observability.support import Collector, ReceivedSpan, collector
from tests.processes import free_port
from tests.support import ServiceProcess, eventually

HOSPITALS = "/hospitals/hospitals/"
DOCTORS = "/doctors/doctors/"
HOSPITAL_ROUTE = "/hospitals/hospitals/{unique_id}/"
TRACE_ID, PARENT_SPAN_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE_ID}-{PARENT_SPAN_ID}-01"
"""The example of the W3C recommendation."""
SERVER_SPAN_KIND, CLIENT_SPAN_KIND = 2, 3
"""Kinds of spans."""
ERROR_STATUS_CODE = 2
Serve = Callable[..., ServiceProcess]
__all__ = ["collector"]


def stop(served: ServiceProcess) -> float:
    """Stop a service and return the seconds it took."""
    began = time.monotonic()
    served.process.send_signal(signal.SIGTERM)
    served.process.wait(30)
    return time.monotonic() - began


def spans_of_trace(collector: Collector, trace_id: str) -> list[ReceivedSpan]:
    return [sent for sent in collector.spans() if sent.span.trace_id.hex() == trace_id]


async def test_a_request_is_a_trace_with_its_statements(serve: Serve, database_url: str, collector: Collector) -> None:
    """A request continues the caller's trace with a span per statement and commit, and its log line names it."""
    served = serve(DATABASE_URL=database_url, **collector.environment())
    async with httpx.AsyncClient(base_url=served.url, headers={"traceparent": TRACEPARENT}) as client:
        body = {"unique_id": "doc1", "doctor_first_name": "General"}
        assert (await client.post(DOCTORS, json=body)).status_code == 201
    await asyncio.to_thread(stop, served)
    spans = spans_of_trace(collector, TRACE_ID)
    (request,) = [sent for sent in spans if sent.span.kind == SERVER_SPAN_KIND]
    assert request.span.name == f"POST {DOCTORS}"
    assert request.span.parent_span_id.hex() == PARENT_SPAN_ID
    assert request.attributes == {
        "http.request.method": "POST",
        "http.response.status_code": 201,
        "http.route": DOCTORS,
        "network.protocol.version": "1.1",
        "url.path": DOCTORS,
        "url.scheme": "http",
    }
    statements = sorted(
        (sent for sent in spans if sent is not request), key=lambda sent: sent.span.start_time_unix_nano
    )
    assert [sent.span.name for sent in statements] == ["INSERT doctors", "COMMIT"]
    for sent in statements:
        assert sent.span.kind == CLIENT_SPAN_KIND
        assert sent.span.parent_span_id == request.span.span_id
        assert request.span.start_time_unix_nano < sent.span.start_time_unix_nano < sent.span.end_time_unix_nano
    assert statements[0].attributes == {
        "db.system.name": "postgresql",
        "db.operation.name": "INSERT",
        "db.collection.name": "doctors",
        "db.query.summary": "INSERT doctors",
    }
    (line,) = [line for line in served.log_entries() if line["event"] == "request"]
    assert line["trace_id"] == TRACE_ID


async def test_a_statement_that_fails_is_an_error_without_its_message(
    serve: Serve, database_url: str, collector: Collector, connection: asyncpg.Connection
) -> None:
    """A failed statement's span has the SQLSTATE; the request's span has the status and no event with the message."""
    served = serve(DATABASE_URL=database_url, **collector.environment())
    await connection.execute("ALTER TABLE hospitals RENAME TO gone")
    async with httpx.AsyncClient(base_url=served.url, headers={"traceparent": TRACEPARENT}) as client:
        assert (await client.get(f"{HOSPITALS}M4rker/")).status_code == 500
    await asyncio.to_thread(stop, served)
    statement, request = sorted(spans_of_trace(collector, TRACE_ID), key=lambda sent: -sent.span.kind)
    assert statement.attributes["db.response.status_code"] == statement.attributes["error.type"] == "42P01"
    assert request.attributes["error.type"] == "500" or "Error" in request.attributes["error.type"]
    for sent in (statement, request):
        assert (sent.span.status.code, sent.span.status.message) == (ERROR_STATUS_CODE, "")
        assert not sent.span.events
    assert b"M4rker" not in b"".join(body for _, body in collector.received)


async def test_nothing_that_a_client_sends_is_exported(serve: Serve, database_url: str, collector: Collector) -> None:
    """Paths, queries, headers, trace state and baggage of clients are not exported, whatever the response."""
    served = serve(DATABASE_URL=database_url, **collector.environment())
    headers = {
        "Host": "m4rker.example.org",
        "User-Agent": "M4rker",
        "traceparent": TRACEPARENT,
        "tracestate": "m4rker=M4rker",
        "baggage": "m4rker=M4rker",
        "X-Request-ID": "M4rker",
        "X-Forwarded-For": "M4rker",
    }
    async with httpx.AsyncClient(base_url=served.url, headers=headers) as client:
        for method, path in (("GET", f"{HOSPITALS}M4rker/"), ("GET", "/M4rker"), ("PURGE", f"{HOSPITALS}M4rker/")):
            await client.request(method, path, params={"M4rker": "M4rker"})
        await client.post("/patients/patients/search/", json={"search": "M4rker"})
    await asyncio.to_thread(stop, served)
    names = sorted(sent.span.name for sent in spans_of_trace(collector, TRACE_ID) if sent.span.kind == SERVER_SPAN_KIND)
    assert names == ["GET", f"GET {HOSPITAL_ROUTE}", f"HTTP {HOSPITAL_ROUTE}", "POST /patients/patients/search/"]
    assert len({path for path, _ in collector.received}) == 2
    assert b"m4rker" not in b"".join(body for _, body in collector.received).lower()


async def test_exported_metrics_use_route_templates(serve: Serve, database_url: str, collector: Collector) -> None:
    """Exported metrics are those of FastAPI with route templates, and exclude probes."""
    served = serve(DATABASE_URL=database_url, **collector.environment(OTEL_TRACES_EXPORTER="none"))
    async with httpx.AsyncClient(base_url=served.url) as client:
        await client.get(f"{HOSPITALS}none/")
    await asyncio.to_thread(stop, served)
    assert {path for path, _ in collector.received} == {"/v1/metrics"}
    durations = collector.metrics()["http.server.request.duration"]
    assert {point["http.route"] for point in durations} == {HOSPITAL_ROUTE}
    assert durations[-1] == {
        "http.request.method": "GET",
        "http.response.status_code": 404,
        "http.route": HOSPITAL_ROUTE,
        "network.protocol.version": "1.1",
        "url.scheme": "http",
    }
    (line,) = [line for line in served.log_entries() if line["event"] == "request"]
    assert "trace_id" not in line


@pytest.mark.crowd
async def test_each_worker_exports_for_itself(serve: Serve, database_url: str, collector: Collector) -> None:
    """Two workers are two instances of one service, in traces and metrics alike, with the configured attributes."""
    served = serve(
        "--workers",
        "2",
        DATABASE_URL=database_url,
        **collector.environment(
            OTEL_SERVICE_NAME="clinic", OTEL_RESOURCE_ATTRIBUTES="deployment.environment.name=test"
        ),
    )

    def instances() -> set[str]:
        httpx.get(f"{served.url}{HOSPITALS}")
        return {sent.resource["service.instance.id"] for sent in collector.spans()}

    await asyncio.to_thread(eventually, lambda: len(instances()) == 2, within_seconds=30)
    await asyncio.to_thread(eventually, lambda: collector.metric_instances() == instances(), within_seconds=30)
    for sent in collector.spans():
        assert sent.resource["service.name"] == "clinic"
        assert sent.resource["deployment.environment.name"] == "test"
    await asyncio.to_thread(stop, served)


@pytest.mark.parametrize(
    "environment",
    [
        {"OTEL_SDK_DISABLED": "true"},
        {"OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "none"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
    ],
    ids=["disabled", "none", "no endpoint"],
)
async def test_telemetry_can_be_disabled(
    serve: Serve, database_url: str, collector: Collector, environment: dict[str, str]
) -> None:
    """If the environment disables telemetry, nothing is sent and no log line names a trace."""
    served = serve(DATABASE_URL=database_url, **{**collector.environment(), **environment})
    async with httpx.AsyncClient(base_url=served.url, headers={"traceparent": TRACEPARENT}) as client:
        await client.get(HOSPITALS)
    await asyncio.to_thread(stop, served)
    assert collector.received == []
    assert all("trace_id" not in line for line in served.log_entries())


async def test_unsampled_traces_are_not_exported(serve: Serve, database_url: str, collector: Collector) -> None:
    """Nothing of an unsampled trace is exported, and only the log has its id."""
    environment = collector.environment(OTEL_TRACES_SAMPLER="always_off", OTEL_METRICS_EXPORTER="none")
    served = serve(DATABASE_URL=database_url, **environment)
    async with httpx.AsyncClient(base_url=served.url, headers={"traceparent": TRACEPARENT}) as client:
        await client.get(HOSPITALS)
    await asyncio.to_thread(stop, served)
    assert collector.received == []
    assert [line["trace_id"] for line in served.log_entries() if line["event"] == "request"] == [TRACE_ID]


@pytest.mark.crowd
async def test_an_unreachable_collector_does_not_stop_the_service(serve: Serve, database_url: str) -> None:
    """With an unreachable collector requests succeed, the service stops in time, and the log states the problem."""
    away = f"http://127.0.0.1:{free_port()}"
    served = serve(
        DATABASE_URL=database_url,
        OTEL_EXPORTER_OTLP_ENDPOINT=away,
        OTEL_BSP_SCHEDULE_DELAY="50",
        OTEL_METRIC_EXPORT_INTERVAL="100",
        OTEL_EXPORTER_OTLP_TIMEOUT="1",
    )

    def failed() -> bool:
        assert httpx.get(f"{served.url}{HOSPITALS}M4rker/").status_code == 404
        events = "\n".join(line["event"] for line in served.log_entries())
        return "export spans batch" in events and "export metrics batch" in events

    await asyncio.to_thread(eventually, failed, within_seconds=30)
    assert await asyncio.to_thread(stop, served) < 10
    others = [line for line in served.log_entries() if line["event"] not in {"request", "service starting"}]
    assert {line["level"] for line in others} == {"error", "warning"}
    text = "".join(served.stdout_lines)
    assert "Traceback" not in text
    assert "M4rker" not in text


@pytest.mark.crowd
async def test_shutdown_does_not_wait_for_a_silent_collector(serve: Serve, database_url: str) -> None:
    """If the collector accepts connections but never responds, the service drops unsent data and stops in time."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        served = serve(
            DATABASE_URL=database_url, OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{silent.getsockname()[1]}"
        )
        async with httpx.AsyncClient(base_url=served.url) as client:
            assert (await client.get(HOSPITALS)).status_code == 200
        assert await asyncio.to_thread(stop, served) < 10


@pytest.mark.parametrize(
    "environment",
    [
        {"OTEL_TRACES_EXPORTER": "zipkin"},
        {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
        {"OTEL_EXPORTER_OTLP_TIMEOUT": "M4rker"},
        {"OTEL_BSP_MAX_QUEUE_SIZE": "-1"},
        {"OTEL_TRACES_SAMPLER": "M4rker"},
    ],
    ids=lambda environment: next(iter(environment)),
)
async def test_unusable_telemetry_variables_are_logged_and_ignored(
    serve: Serve, database_url: str, collector: Collector, environment: dict[str, str]
) -> None:
    """Unusable telemetry variables cause a warning and no failure, as the OpenTelemetry specification requires."""
    served = serve(DATABASE_URL=database_url, **{**collector.environment(), **environment})
    async with httpx.AsyncClient(base_url=served.url) as client:
        assert (await client.get(HOSPITALS)).status_code == 200
    await asyncio.to_thread(stop, served)
    assert any(word in line["event"] for line in served.log_entries() for word in ("telemetry", "sampler", "timeout"))
