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

from app.observability.logging import UNLOGGED_ROUTES, describe_error

log = structlog.get_logger()

FINAL_EXPORT_TIMEOUT_SECONDS = 2.0
"""Seconds that a process which ends has for what is not exported yet: the collector may be away."""


class Telemetry:
    """What this process exports; where the environment asks for nothing, nothing."""

    def __init__(self) -> None:
        """Read the environment and begin. What cannot be used is logged, and the service goes without."""
        self._trace_pipeline = _create_pipeline("traces")
        self._metric_pipeline = _create_pipeline("metrics")

    @property
    def config(self) -> TelemetryConfig:
        """What FastAPI is to do."""
        return {
            "tracing": self._trace_pipeline is not None,
            "tracer_provider": self._trace_pipeline and self._trace_pipeline.provider,
            "metrics": self._metric_pipeline is not None,
            "meter_provider": self._metric_pipeline and self._metric_pipeline.provider,
            "logs": False,  # they hold messages and stack traces of errors
            "operation_spans": False,  # the request's and the database's tell where the time goes
            "auto_configure": False,  # its exporters would neither redact nor end in time
            "exclude": _is_excluded,
        }

    @property
    def tracer(self) -> Tracer | None:
        """What makes our own spans, where traces are exported."""
        if self._trace_pipeline is None:
            return None
        tracer: Tracer = self._trace_pipeline.provider.get_tracer("patients-api", version("patients-api"))
        return tracer

    async def close(self) -> None:
        """Export what is left, for no longer than `CLOSING`."""
        pipelines = [pipeline for pipeline in (self._trace_pipeline, self._metric_pipeline) if pipeline is not None]
        threads = [threading.Thread(target=pipeline.flush, daemon=True) for pipeline in pipelines]
        for thread in threads:
            thread.start()
        await asyncio.gather(*(asyncio.to_thread(thread.join, FINAL_EXPORT_TIMEOUT_SECONDS) for thread in threads))
        for pipeline in pipelines:
            pipeline.abort()


def _create_pipeline(signal: str) -> Any:
    """The `Pipeline` of `traces` or `metrics`; none where none is wanted, or it cannot be had."""
    if not _is_enabled(signal.upper()):
        return None
    otlp = importlib.import_module("app.observability.otlp")
    try:
        return getattr(otlp, signal)()
    except (OSError, ValueError) as error:
        log.warning("telemetry is not exported: a variable OTEL_… is of no use", signal=signal, **describe_error(error))
        return None


def _is_enabled(signal: str) -> bool:
    """Whether the environment asks for `TRACES` or `METRICS` to be exported.

    As the standard has it, but that nothing is exported where it names neither an exporter nor an endpoint
    (https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/).
    """
    if _environment_value("OTEL_SDK_DISABLED") == "true":
        return False
    endpoint = _environment_value(f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT") or _environment_value(
        "OTEL_EXPORTER_OTLP_ENDPOINT"
    )
    exporter = _environment_value(f"OTEL_{signal}_EXPORTER") or ("otlp" if endpoint else "none")
    if exporter == "none":
        return False
    protocol = _environment_value(f"OTEL_EXPORTER_OTLP_{signal}_PROTOCOL") or _environment_value(
        "OTEL_EXPORTER_OTLP_PROTOCOL"
    )
    if exporter != "otlp" or protocol not in {"", "http/protobuf"}:
        log.warning("telemetry is not exported: only otlp by http/protobuf is there", signal=signal.lower())
        return False
    return True


def _environment_value(name: str) -> str:
    return os.environ.get(name, "").strip().lower()


def _is_excluded(scope: Scope) -> bool:
    return scope.get("path", "").rstrip("/") in UNLOGGED_ROUTES
