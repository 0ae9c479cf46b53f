"""Instrumentation of database statements. Each statement is measured once, for the metrics, the log and the trace.

Only the text of a statement is recorded. In this text, placeholders stand for the values.
"""

import hashlib
import re
import time
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

import structlog
from opentelemetry import trace
from opentelemetry.trace import SpanKind, StatusCode, Tracer

from app.observability import metrics
from app.request_state import current_request

log = structlog.get_logger()

_WRITE_PATTERN = re.compile(r"\b(?:(INSERT)\s+INTO\s+(\w+)|(DELETE)\s+FROM\s+(\w+)|(UPDATE)\s+(\w+)\s+SET)\b")
_FROM_PATTERN = re.compile(r"\bFROM\s+(\w+)")
_MAX_LOGGED_DIGESTS = 1000
"""Maximum number of slow statements whose text each process logs. The number is limited because filters can produce any
number of different texts."""


class _StatementName(NamedTuple):
    """The short name of a statement in metrics, logs and traces: one operation and its table.

    Many statements contain further operations and tables. `table` is the empty string if a statement has no table.
    """

    operation: str
    table: str

    def __str__(self) -> str:
        return f"{self.operation} {self.table}".rstrip()


@lru_cache(maxsize=256)
def _statement_name(text: str, table_names: frozenset[str]) -> _StatementName:
    """Return the name of the statement with this text. If the statement writes, its first write determines the name.

    Otherwise, the operation is `SELECT`, and the table is the first of `table_names` that the statement reads. A COMMIT
    has no table.
    """
    if text == "COMMIT":
        return _StatementName(text, "")
    if (write := _WRITE_PATTERN.search(text)) is not None:
        operation, table = filter(None, write.groups())
        return _StatementName(operation, table)
    tables = (table for table in _FROM_PATTERN.findall(text) if table in table_names)
    return _StatementName("SELECT", next(tables, ""))


class StatementInstrumentation:
    """Measures the statements of all connections of a database.

    A statement that takes at least `slow_threshold_seconds` is logged as a warning. If there is a `tracer`, each
    statement of a traced request becomes a span of the request.
    """

    def __init__(self, table_names: Iterable[str], slow_threshold_seconds: float, tracer: Tracer | None = None) -> None:
        self._table_names = frozenset(table_names)
        self._slow_threshold_seconds = slow_threshold_seconds
        self._tracer = tracer
        self._logged_digests: set[str] = set()

    def record(self, text: str, began: float, error: Exception | None) -> None:
        """Record that a statement or a COMMIT has ended. `began` is its start by `time.perf_counter`."""
        seconds = time.perf_counter() - began
        name = _statement_name(text, self._table_names)
        metrics.statement_histogram(*name).observe(seconds)
        if seconds >= self._slow_threshold_seconds:
            self._warn_slow(name, text, seconds)
        if self._tracer is not None and trace.get_current_span().is_recording():
            self._write_span(self._tracer, name, seconds, error)

    def _warn_slow(self, name: _StatementName, text: str, seconds: float) -> None:
        """Log a slow statement. Its text may be long, so only the first log line about it contains the text."""
        digest = hashlib.sha256(text.encode()).hexdigest()[:12]
        first_time_fields = {}
        if digest not in self._logged_digests and len(self._logged_digests) < _MAX_LOGGED_DIGESTS:
            self._logged_digests.add(digest)
            first_time_fields = {"text": " ".join(text.split())}
        state = current_request.get(None)
        log.warning(
            "slow statement",
            request_id=state and state.request_id,
            route=state and state.route,
            statement=str(name),
            digest=digest,
            duration_ms=round(seconds * 1000, 1),
            **first_time_fields,
        )

    @staticmethod
    def _write_span(tracer: Tracer, name: _StatementName, seconds: float, error: Exception | None) -> None:
        """Create the span of a statement that has just ended, following OpenTelemetry's conventions for databases."""
        attributes = {
            "db.system.name": "postgresql",
            "db.operation.name": name.operation,
            "db.query.summary": str(name),
            **({"db.collection.name": name.table} if name.table else {}),
        }
        ended = time.time_ns()
        span = tracer.start_span(
            str(name), kind=SpanKind.CLIENT, attributes=attributes, start_time=ended - int(seconds * 1e9)
        )
        if error is not None:
            if sqlstate := getattr(error, "sqlstate", None):
                span.set_attribute("db.response.status_code", sqlstate)
            span.set_attribute("error.type", sqlstate or f"{type(error).__module__}.{type(error).__qualname__}")
            span.set_status(StatusCode.ERROR)
        span.end(ended)
