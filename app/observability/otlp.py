"""Export of spans and metrics over OTLP. Data that may be personal are removed from the spans.

This module is imported only if spans or metrics are exported, because the OpenTelemetry SDK takes memory.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Generic, Protocol, TypeVar

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import SpanContext, Status

_EXPORTED_ATTRIBUTES = frozenset(
    {
        "db.collection.name",
        "db.operation.name",
        "db.query.summary",
        "db.response.status_code",
        "db.system.name",
        "error.type",
        "http.request.method",
        "http.response.status_code",
        "http.route",
        "network.protocol.version",
        "url.scheme",
    }
)
"""The span attributes that are exported unchanged. Others, such as `url.query` and `server.address`, are removed
because clients determine their values. `url.path` is replaced with the path template of the route."""

_INSTANCE_ID = str(uuid.uuid4())
"""The id of this process in traces and metrics. Each worker imports this module itself, so each worker has a different
id."""

P = TypeVar("P", bound="_Provider")


class _Provider(Protocol):
    def shutdown(self) -> None: ...


class _Exporter(Protocol):
    def shutdown(self) -> None: ...


@dataclass(frozen=True)
class Pipeline(Generic[P]):
    """A provider that creates spans or metrics, and an exporter that sends them in the background."""

    provider: P
    exporter: _Exporter

    def flush(self) -> None:
        """Export the remaining data and shut down. This blocks until the collector responds or the retries end."""
        self.provider.shutdown()

    def abort(self) -> None:
        """Stop retrying, so that a running `flush` ends soon."""
        self.exporter.shutdown()


def traces() -> Pipeline[TracerProvider]:
    """Return a new pipeline that exports redacted spans.

    Raises:
        OSError, ValueError: an environment variable is invalid.
    """
    exporter = OTLPSpanExporter()
    provider = TracerProvider(resource=_resource(), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(_RedactingExporter(exporter)))
    return Pipeline(provider, exporter)


def metrics() -> Pipeline[MeterProvider]:
    """Return a new pipeline that exports metrics.

    The attributes of metrics are path templates, methods, statuses and names of errors, so nothing is redacted.

    Raises:
        OSError, ValueError: an environment variable is invalid.
    """
    exporter = OTLPMetricExporter()
    reader = PeriodicExportingMetricReader(exporter)
    return Pipeline(MeterProvider([reader], resource=_resource(), shutdown_on_exit=False), exporter)


class _RedactingExporter(SpanExporter):
    """Exports spans without data that may be personal.

    It removes most attributes, the trace state, and all events, links and status messages.
    """

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return self._exporter.export([_redact_span(span) for span in spans])

    def shutdown(self) -> None:
        self._exporter.shutdown()


def _redact_span(span: ReadableSpan) -> ReadableSpan:
    context = span.get_span_context()
    attributes = {name: value for name, value in (span.attributes or {}).items() if name in _EXPORTED_ATTRIBUTES}
    if route := attributes.get("http.route"):
        attributes["url.path"] = route  # the semantic conventions require this attribute
    return ReadableSpan(
        span.name,
        # the trace state is left out, because it comes from the client
        context and SpanContext(context.trace_id, context.span_id, context.is_remote, context.trace_flags),
        parent=span.parent,
        resource=span.resource,
        attributes=attributes,
        kind=span.kind,
        status=Status(span.status.status_code),
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


def _resource() -> Resource:
    """Return the resource that describes this process. Attributes that the environment does not set have defaults."""
    configured = OTELResourceDetector().detect().attributes
    defaults = {
        "service.name": "patients-api",
        "service.version": version("patients-api"),
        "service.instance.id": _INSTANCE_ID,
    }
    return Resource.create({name: value for name, value in defaults.items() if name not in configured})
