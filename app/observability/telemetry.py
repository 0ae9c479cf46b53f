"""OpenTelemetry: traces and metrics over OTLP, where the standard `OTEL_…` variables ask for them.

FastAPI makes the spans and metrics of requests, `statements` makes the spans of the database, and `exporting` redacts.
Nothing is registered globally: no other library's spans go out with ours, and an application is like the next.
"""

import asyncio
import importlib
import os
import threading
from importlib.metadata import version
from typing import Any

import structlog
from fastapi.telemetry import TelemetryConfig
from opentelemetry.trace import Tracer
from starlette.types import Scope

from app.observability.logging import QUIET, describe

log = structlog.get_logger()

CLOSING = 2.0
"""Seconds that a process which ends has for what is not exported yet: the collector may be away."""


class Telemetry:
    """What this process exports; where the environment asks for nothing, nothing."""

    def __init__(self) -> None:
        """Read the environment and begin. What cannot be used is logged, and the service goes without."""
        self._traces = _pipeline("traces")
        self._metrics = _pipeline("metrics")

    @property
    def config(self) -> TelemetryConfig:
        """What FastAPI is to do."""
        return {
            "tracing": self._traces is not None,
            "tracer_provider": self._traces and self._traces.provider,
            "metrics": self._metrics is not None,
            "meter_provider": self._metrics and self._metrics.provider,
            "logs": False,  # they hold messages and stack traces of errors
            "operation_spans": False,  # the request's and the database's tell where the time goes
            "auto_configure": False,  # its exporters would neither redact nor end in time
            "exclude": _is_quiet,
        }

    @property
    def tracer(self) -> Tracer | None:
        """What makes our own spans, where traces are exported."""
        if self._traces is None:
            return None
        tracer: Tracer = self._traces.provider.get_tracer("patients-api", version("patients-api"))
        return tracer

    async def close(self) -> None:
        """Export what is left, for no longer than `CLOSING`."""
        pipelines = [pipeline for pipeline in (self._traces, self._metrics) if pipeline is not None]
        threads = [threading.Thread(target=pipeline.finish, daemon=True) for pipeline in pipelines]
        for thread in threads:
            thread.start()
        await asyncio.gather(*(asyncio.to_thread(thread.join, CLOSING) for thread in threads))
        for pipeline in pipelines:
            pipeline.give_up()


def _pipeline(signal: str) -> Any:
    """The `Pipeline` of `traces` or `metrics`; none where none is wanted, or it cannot be had."""
    if not _is_wanted(signal.upper()):
        return None
    exporting = importlib.import_module("app.observability.exporting")
    try:
        return getattr(exporting, signal)()
    except (OSError, ValueError) as error:
        log.warning("telemetry is not exported: a variable OTEL_… is of no use", signal=signal, **describe(error))
        return None


def _is_wanted(signal: str) -> bool:
    """Whether the environment asks for `TRACES` or `METRICS` to be exported.

    As the standard has it, but that nothing is exported where it names neither an exporter nor an endpoint
    (https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/).
    """
    if _variable("OTEL_SDK_DISABLED") == "true":
        return False
    endpoint = _variable(f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT") or _variable("OTEL_EXPORTER_OTLP_ENDPOINT")
    exporter = _variable(f"OTEL_{signal}_EXPORTER") or ("otlp" if endpoint else "none")
    if exporter == "none":
        return False
    protocol = _variable(f"OTEL_EXPORTER_OTLP_{signal}_PROTOCOL") or _variable("OTEL_EXPORTER_OTLP_PROTOCOL")
    if exporter != "otlp" or protocol not in {"", "http/protobuf"}:
        log.warning("telemetry is not exported: only otlp by http/protobuf is there", signal=signal.lower())
        return False
    return True


def _variable(name: str) -> str:
    return os.environ.get(name, "").strip().lower()


def _is_quiet(scope: Scope) -> bool:
    return scope.get("path", "").rstrip("/") in QUIET
