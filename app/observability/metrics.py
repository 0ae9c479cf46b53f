"""Prometheus metrics: what is counted and measured, and how it is read (`docs/observability.md` explains each).

Each of several workers writes its values into files of its own, in the directory that `sharing` makes; whichever is
asked adds up all of them. Labels are templates, names and codes that this program has, never what a request holds.
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

from app.observability.multiprocess import MULTIPROCESS_DIRECTORY_ENV

disable_created_metrics()  # type: ignore[no-untyped-call]  # with several processes there are none
REGISTRY = CollectorRegistry()

_KNOWN_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_OTHER_METHOD = "_OTHER"
"""A method that no route has, by OpenTelemetry's word for it."""
_NO_STATUS = "none"
"""The status of what was not answered, because the client had gone."""

_REQUEST_COUNT = Counter(
    "http_requests", "Requests, when they ended.", ["route", "method", "status"], registry=REGISTRY
)
_REQUEST_DURATION = Histogram(
    "http_request_duration_seconds",
    "Time from a request's arrival until its answer was sent.",
    ["route", "method"],
    buckets=(0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
    registry=REGISTRY,
)
_INCOMPLETE_RESPONSES = Counter(
    "http_responses_incomplete", "Answers that broke off, or never came.", ["route", "method"], registry=REGISTRY
)
_STATEMENT_DURATION = Histogram(
    "database_statement_duration_seconds",
    "Time from sending a statement to PostgreSQL until its answer, or its failure.",
    ["operation", "table"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5),
    registry=REGISTRY,
)
CONNECTIONS_IN_USE = Gauge(
    "database_connections_in_use",
    "Connections that work for a request.",
    registry=REGISTRY,
    multiprocess_mode="livesum",
)
REQUESTS_WAITING = Gauge(
    "database_requests_waiting",
    "Requests that wait for a connection to come free.",
    registry=REGISTRY,
    multiprocess_mode="livesum",
)
CONNECTIONS_MAX = Gauge(
    "database_connections_max",
    "The most connections that may be in use.",
    registry=REGISTRY,
    multiprocess_mode="livesum",
)
_BUILD_INFO = Gauge(
    "patients_api_build_info",
    "1; which version it is, and of Python.",
    ["version", "python"],
    registry=REGISTRY,
    multiprocess_mode="livemax",
)
_BUILD_INFO.labels(version("patients-api"), platform.python_version()).set(1)

# of this process alone: where there are several, they are not shown
ProcessCollector(registry=REGISTRY)
PlatformCollector(registry=REGISTRY)
GCCollector(registry=REGISTRY)


def observe_request(method: str, route: str, status: int | None, seconds: float, *, is_complete: bool) -> None:
    """Count a request that has ended; `route` is a template."""
    method = method if method in _KNOWN_METHODS else _OTHER_METHOD
    requests, duration = _request_metrics(route, method, status)
    requests.inc()
    duration.observe(seconds)
    if not is_complete:
        _INCOMPLETE_RESPONSES.labels(route, method).inc()


@cache  # finding a metric by its labels takes longer than adding to it
def _request_metrics(route: str, method: str, status: int | None) -> tuple[Counter, Histogram]:
    requests = _REQUEST_COUNT.labels(route, method, _NO_STATUS if status is None else status)
    return requests, _REQUEST_DURATION.labels(route, method)


@cache
def statement_histogram(operation: str, table: str) -> Histogram:
    """Where the seconds of a statement are noted, by what it does first, and to which table."""
    return _STATEMENT_DURATION.labels(operation, table)


def render_metrics(accept: str) -> tuple[bytes, str]:
    """All metrics, of all workers, in the format that an `Accept` header asks for; and its media type.

    It reads files: not in the event loop.
    """
    registry = REGISTRY
    if directory := os.environ.get(MULTIPROCESS_DIRECTORY_ENV):
        registry = CollectorRegistry()
        MultiProcessCollector(registry, directory)  # type: ignore[no-untyped-call]
    encode, media_type = choose_encoder(accept)
    return encode(registry), media_type


def mark_worker_dead(pid: int) -> None:
    """Note that a process which shared its values has ended: it has nothing in use any more. What it counted stays."""
    mark_process_dead(pid, os.environ[MULTIPROCESS_DIRECTORY_ENV])  # type: ignore[no-untyped-call]
