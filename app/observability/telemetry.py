"""OpenTelemetry: the export of traces and metrics over OTLP, if the standard `OTEL_…` variables enable it.

FastAPI creates the spans and metrics of requests, and `app.observability.statements` creates the spans of database
statements. `app.observability.otlp` redacts and exports them. No provider is registered globally, so that spans of
other libraries are not exported and several applications in one process are independent of each other.
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
"""Maximum number of seconds that the last export of a stopping process may take if the collector is unavailable."""


class Telemetry:
    """The export of this process's traces and metrics, each of which is off unless environment variables enable it."""

    def __init__(self) -> None:
        """Start the exports that the environment enables. If a variable is invalid, log a warning and do not export."""
        self._trace_pipeline = _create_pipeline("traces")
        self._metric_pipeline = _create_pipeline("metrics")

    @property
    def config(self) -> TelemetryConfig:
        """The configuration with which FastAPI creates the spans and metrics of requests."""
        return {
            "tracing": self._trace_pipeline is not None,
            "tracer_provider": self._trace_pipeline and self._trace_pipeline.provider,
            "metrics": self._metric_pipeline is not None,
            "meter_provider": self._metric_pipeline and self._metric_pipeline.provider,
            "logs": False,  # they would contain messages and stack traces of errors
            "operation_spans": False,  # the spans of requests and statements show where time is spent
            "auto_configure": False,  # its exporters would neither redact nor shut down in time
            "exclude": _is_excluded,
        }

    @property
    def tracer(self) -> Tracer | None:
        """The tracer that creates this service's own spans, or None if traces are not exported."""
        if self._trace_pipeline is None:
            return None
        tracer: Tracer = self._trace_pipeline.provider.get_tracer("patients-api", version("patients-api"))
        return tracer

    async def close(self) -> None:
        """Export the remaining data, but stop after `FINAL_EXPORT_TIMEOUT_SECONDS`."""
        pipelines = [pipeline for pipeline in (self._trace_pipeline, self._metric_pipeline) if pipeline is not None]
        threads = [threading.Thread(target=pipeline.flush, daemon=True) for pipeline in pipelines]
        for thread in threads:
            thread.start()
        await asyncio.gather(*(asyncio.to_thread(thread.join, FINAL_EXPORT_TIMEOUT_SECONDS) for thread in threads))
        for pipeline in pipelines:
            pipeline.abort()


def _create_pipeline(signal: str) -> Any:
    """Return the `Pipeline` for `traces` or `metrics`, or None if its export is off or an OTEL variable is invalid."""
    if not _is_enabled(signal.upper()):
        return None
    otlp = importlib.import_module("app.observability.otlp")
    try:
        return getattr(otlp, signal)()
    except (OSError, ValueError) as error:
        log.warning("telemetry is not exported: an OTEL_… variable is invalid", signal=signal, **describe_error(error))
        return None


def _is_enabled(signal: str) -> bool:
    """Return whether the environment enables the export of `signal`, which is `TRACES` or `METRICS`.

    This follows the standard (https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/), with
    one exception: the export is off if the environment sets neither an exporter nor an endpoint.
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
        log.warning("telemetry is not exported: only otlp over http/protobuf is supported", signal=signal.lower())
        return False
    return True


def _environment_value(name: str) -> str:
    return os.environ.get(name, "").strip().lower()


def _is_excluded(scope: Scope) -> bool:
    return scope.get("path", "").rstrip("/") in UNLOGGED_ROUTES
