"""Logging to stdout for the service, the server and libraries: JSON objects, one per line, or text on a terminal."""

import logging
import logging.config
import os
import re
import sys
import traceback
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import structlog
from opentelemetry import trace
from pydantic_core import to_json

UNLOGGED_ROUTES = frozenset({"/livez", "/readyz", "/metrics"})
"""Routes whose successful requests are not logged, because monitoring systems request them every few seconds."""


def _add_trace_id(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Add the id of the current trace to a log event, in the format of tracing tools, if there is a trace."""
    span = trace.get_current_span()
    if span is not trace.INVALID_SPAN:
        event["trace_id"] = trace.format_trace_id(span.get_span_context().trace_id)
    return event


_SHARED_PROCESSORS: list[structlog.typing.Processor] = [
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    _add_trace_id,
]


def describe_error(error: BaseException) -> dict[str, object]:
    """Return fields that describe an error in the log: its type, the types of its causes, and where it was raised.

    The error messages are left out, because they may contain patient data.
    """
    types = []
    cause: BaseException | None = error
    while cause is not None:
        types.append(f"{type(cause).__module__}.{type(cause).__qualname__}")
        cause = cause.__cause__ or cause.__context__
    frames = traceback.extract_tb(error.__traceback__)[-5:]
    return {
        "error": " from ".join(types),
        "at": [f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames],
    }


def _describe_exception(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Replace the exception in a log event of the server or a library with the fields of `describe_error`.

    The text of the exception may contain patient data.
    """
    if isinstance(exception := event.pop("exc_info", None), tuple) and exception[1] is not None:
        event.update(describe_error(exception[1]))
    return event


class TerminalRenderer:
    """Renders log events as text: a request as one short line, every other event as structlog does.

    A request looks like `GET /patients/patients/*/ 200 4 ms req_…`. The longest of them fits 80 columns, because `*`
    stands for each parameter of the route.
    """

    def __init__(self, *, has_colors: bool) -> None:
        self._has_colors = has_colors
        self._render_event = structlog.dev.ConsoleRenderer(colors=has_colors)

    def __call__(self, logger: Any, name: str, event: MutableMapping[str, Any]) -> str:
        """Return the line, or the lines, of a log event."""
        if event.get("event") != "request":
            return self._render_event(logger, name, event)
        route = _ROUTE_PARAMETER_PATTERN.sub("*", event["route"])
        note = "" if event["complete"] else " incomplete"
        line = f"{event['method']} {route} {event['status'] or '-'} {event['duration_ms']:.0f} ms {event['request_id']}"
        color = _STATUS_COLORS.get((event["status"] or 500) // 100, "") if self._has_colors else ""
        return f"{color}{line}{note}{structlog.dev.RESET_ALL if color else ''}"


_ROUTE_PARAMETER_PATTERN = re.compile(r"\{[^}]*\}")
_STATUS_COLORS = {2: structlog.dev.GREEN, 3: structlog.dev.CYAN, 4: structlog.dev.YELLOW, 5: structlog.dev.RED}
"""Color of the line of a request by the first digit of its status."""


def _renderer() -> structlog.typing.Processor:
    """Return the renderer of log lines: text if stdout is a terminal, otherwise JSON.

    The text is coloured unless NO_COLOR is set (no-color.org) or the terminal has no colours.
    """
    if sys.stdout.isatty():
        return TerminalRenderer(has_colors=not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb")
    return structlog.processors.JSONRenderer(_dump_json)


def _dump_json(event: object, **_: object) -> str:
    """Serialise a log event as JSON. Pydantic takes a fifth of the time that the `json` module takes."""
    return to_json(event, fallback=repr).decode()


def configure_logging() -> None:
    """Make all loggers write to stdout. uvicorn's access log is turned off, because it contains paths and queries."""
    renderer = _renderer()
    structlog.configure(
        processors=[*_SHARED_PROCESSORS, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        # each line is written in one call, because several workers share one stdout
        logger_factory=structlog.WriteLoggerFactory(),
        cache_logger_on_first_use=True,
    )
    formatter = {
        "()": structlog.stdlib.ProcessorFormatter,
        "foreign_pre_chain": _SHARED_PROCESSORS,
        "processors": [
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            _describe_exception,
            renderer,
        ],
    }
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"line": formatter},
            "handlers": {
                "stdout": {"class": "logging.StreamHandler", "stream": "ext://sys.stdout", "formatter": "line"}
            },
            "root": {"handlers": ["stdout"], "level": "WARNING"},
            "loggers": {
                "uvicorn": {"level": "WARNING"},
                "uvicorn.access": {"propagate": False},
                # they warn about each failed attempt, but their final error is enough
                "opentelemetry.exporter.otlp.proto.http.trace_exporter": {"level": "ERROR"},
                "opentelemetry.exporter.otlp.proto.http.metric_exporter": {"level": "ERROR"},
            },
        }
    )
