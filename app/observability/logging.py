"""Log lines: JSON on stdout, one a line, ours and the server's alike."""

import logging
import logging.config
import traceback
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import structlog

_SHARED: list[structlog.typing.Processor] = [
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]


def describe(error: BaseException) -> dict[str, object]:
    """An error for the log: its type, its causes' types, and where, without messages, which may hold patient data."""
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
    """Have the lines of the server and of libraries tell of an exception as ours do: its text may hold patient data."""
    if isinstance(exception := event.pop("exc_info", None), tuple) and exception[1] is not None:
        event.update(describe(exception[1]))
    return event


def configure_logging() -> None:
    """Send everything to stdout as JSON. uvicorn's access log is off: its lines hold paths and queries."""
    structlog.configure(
        processors=[*_SHARED, structlog.processors.JSONRenderer()],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        # a line in one piece: several workers write to one stdout
        logger_factory=structlog.WriteLoggerFactory(),
        cache_logger_on_first_use=True,
    )
    formatter = {
        "()": structlog.stdlib.ProcessorFormatter,
        "foreign_pre_chain": _SHARED,
        "processors": [
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            _describe_exception,
            structlog.processors.JSONRenderer(),
        ],
    }
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"json": formatter},
            "handlers": {
                "stdout": {"class": "logging.StreamHandler", "stream": "ext://sys.stdout", "formatter": "json"}
            },
            "root": {"handlers": ["stdout"], "level": "WARNING"},
            "loggers": {
                "uvicorn": {"level": "WARNING"},
                "uvicorn.access": {"propagate": False},
            },
        }
    )
