"""Definition and export of the Prometheus metrics. `docs/observability.md` explains each metric.

If there are several workers, each of them writes its values to its own files in the directory that
`app.observability.multiprocess` creates, so that any worker can report the values of all workers. Label values are path
templates, names and codes that this program defines. They never contain content of a request.
"""

import os
import platform
from functools import cache
from importlib.metadata import version

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from app.observability.multiprocess import MULTIPROCESS_DIRECTORY_ENV, shared_directory

disable_created_metrics()  # type: ignore[no-untyped-call]  # these metrics are not available with several processes
REGISTRY = CollectorRegistry()

_KNOWN_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_OTHER_METHOD = "_OTHER"
"""The value of the `method` label for methods outside `_KNOWN_METHODS`. OpenTelemetry uses the same value."""
_NO_STATUS = "none"
"""The value of the `status` label for requests that got no response because the client had disconnected."""

_REQUEST_COUNT = Counter("http_requests", "Completed requests.", ["route", "method", "status"], registry=REGISTRY)
_REQUEST_DURATION = Histogram(
    "http_request_duration_seconds",
    "Time from a request's arrival until its response was sent.",
    ["route", "method"],
    buckets=(0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
    registry=REGISTRY,
)
_INCOMPLETE_RESPONSES = Counter(
    "http_responses_incomplete", "Responses that were cut short or never sent.", ["route", "method"], registry=REGISTRY
)
_STATEMENT_DURATION = Histogram(
    "database_statement_duration_seconds",
    "Time from sending a statement to PostgreSQL until its result or failure.",
    ["operation", "table"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5),
    registry=REGISTRY,
)
CONNECTIONS_IN_USE = Gauge(
    "database_connections_in_use",
    "Connections that are in use by requests.",
    registry=REGISTRY,
    multiprocess_mode="livesum",
)
REQUESTS_WAITING = Gauge(
    "database_requests_waiting",
    "Requests that wait for a free connection.",
    registry=REGISTRY,
    multiprocess_mode="livesum",
)
CHANGES_WAITING = Gauge(
    "changes_waiting_clients",
    "Clients that wait for changes.",
    registry=REGISTRY,
    multiprocess_mode="livesum",
)
WEBHOOK_ATTEMPTS = Counter(
    "webhook_attempts", "Attempts to deliver a change to a webhook.", ["webhook", "outcome"], registry=REGISTRY
)
WEBHOOK_LAG_CHANGES = Gauge(
    "webhook_lag_changes",
    "Numbered changes after the position of a webhook.",
    ["webhook"],
    registry=REGISTRY,
    multiprocess_mode="livemostrecent",
)
WEBHOOK_LAG_SECONDS = Gauge(
    "webhook_lag_seconds",
    "Age of the oldest numbered change after the position of a webhook.",
    ["webhook"],
    registry=REGISTRY,
    multiprocess_mode="livemostrecent",
)
WEBHOOK_STOPPED = Gauge(
    "webhook_stopped",
    "Whether a webhook has stopped by itself: failed, gone or expired.",
    ["webhook"],
    registry=REGISTRY,
    multiprocess_mode="livemostrecent",
)
COMPARISON_FAILURES = Counter(
    "patient_comparison_failures",
    "Failed attempts to compare a patient with others in the background.",
    registry=REGISTRY,
)
CONNECTIONS_MAX = Gauge(
    "database_connections_max",
    "Maximum number of connections in use.",
    registry=REGISTRY,
    multiprocess_mode="livesum",
)
_BUILD_INFO = Gauge(
    "patients_api_build_info",
    "Always 1; the labels are the versions of the service and of Python.",
    ["version", "python"],
    registry=REGISTRY,
    multiprocess_mode="livemax",
)
_BUILD_INFO.labels(version("patients-api"), platform.python_version()).set(1)

# these collectors describe only this process, so their metrics are not exported if there are several processes
ProcessCollector(registry=REGISTRY)
PlatformCollector(registry=REGISTRY)
GCCollector(registry=REGISTRY)


def observe_request(method: str, route: str, status: int | None, seconds: float, *, is_complete: bool) -> None:
    """Update the metrics with a request that has ended.

    `route` is the path template of the route. `status` is None if no response was sent. `is_complete` states whether
    the whole response was sent.
    """
    method = method if method in _KNOWN_METHODS else _OTHER_METHOD
    requests, duration = _request_metrics(route, method, status)
    requests.inc()
    duration.observe(seconds)
    if not is_complete:
        _INCOMPLETE_RESPONSES.labels(route, method).inc()


@cache  # looking up a metric by its labels takes longer than incrementing it
def _request_metrics(route: str, method: str, status: int | None) -> tuple[Counter, Histogram]:
    requests = _REQUEST_COUNT.labels(route, method, _NO_STATUS if status is None else status)
    return requests, _REQUEST_DURATION.labels(route, method)


@cache
def statement_histogram(operation: str, table: str) -> Histogram:
    """Return the histogram of the durations of all statements with this operation and table."""
    return _STATEMENT_DURATION.labels(operation, table)


def render_metrics(accept: str) -> tuple[bytes, str]:
    """Return the metrics of all workers as encoded text, and the media type of this text.

    `accept` is the `Accept` header of the request, which determines the format. This function reads files, so it must
    not run in the event loop.
    """
    registry = REGISTRY
    if directory := shared_directory():
        registry = CollectorRegistry()
        MultiProcessCollector(registry, directory)  # type: ignore[no-untyped-call]
    encode, media_type = choose_encoder(accept)
    return encode(registry), media_type


def mark_worker_dead(pid: int) -> None:
    """Remove the gauges of a worker that has ended, because it no longer uses connections. Its counters are kept."""
    mark_process_dead(pid, os.environ[MULTIPROCESS_DIRECTORY_ENV])  # type: ignore[no-untyped-call]
