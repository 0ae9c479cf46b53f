"""A collector that keeps what it receives, and metrics as Prometheus scrapes them."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

import httpx
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import ResourceMetrics
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from prometheus_client.parser import text_string_to_metric_families


class ReceivedSpan(NamedTuple):
    """A span, with the resource attributes of the process that sent it."""

    span: Span
    resource: dict[str, Any]

    @property
    def attributes(self) -> dict[str, Any]:
        return attribute_values(self.span.attributes)


def attribute_values(attributes: Any) -> dict[str, Any]:
    """Convert attributes to a dictionary."""
    result: dict[str, Any] = {}
    attribute: KeyValue
    for attribute in attributes:
        kind = attribute.value.WhichOneof("value")
        assert kind is not None
        result[attribute.key] = getattr(attribute.value, kind)
    return result


class Collector:
    """Receives OTLP over HTTP and keeps every byte."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.received: list[tuple[str, bytes]] = []

    def environment(self, **more: str) -> dict[str, str]:
        """Return environment variables that make a service export to this collector with short delays."""
        return {
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.url,
            "OTEL_BSP_SCHEDULE_DELAY": "50",
            "OTEL_METRIC_EXPORT_INTERVAL": "100",
            **more,
        }

    def spans(self) -> list[ReceivedSpan]:
        """Return all spans received so far."""
        return [
            ReceivedSpan(span, attribute_values(batch.resource.attributes))
            for path, body in list(self.received)
            if path == "/v1/traces"
            for batch in ExportTraceServiceRequest.FromString(body).resource_spans
            for scope in batch.scope_spans
            for span in scope.spans
        ]

    def metrics(self) -> dict[str, list[dict[str, Any]]]:
        """Return the attributes of all points received so far, by the name of the metric."""
        result: dict[str, list[dict[str, Any]]] = {}
        for batch in self._metrics():
            for metric in (metric for scope in batch.scope_metrics for metric in scope.metrics):
                points = getattr(metric, metric.WhichOneof("data") or "").data_points
                result.setdefault(metric.name, []).extend(attribute_values(point.attributes) for point in points)
        return result

    def metric_instances(self) -> set[str]:
        """Return the instances that have sent metrics so far."""
        return {attribute_values(batch.resource.attributes)["service.instance.id"] for batch in self._metrics()}

    def _metrics(self) -> Iterator[ResourceMetrics]:
        for path, body in list(self.received):
            if path == "/v1/metrics":
                yield from ExportMetricsServiceRequest.FromString(body).resource_metrics


@pytest.fixture
def collector() -> Iterator[Collector]:
    """Run a collector on its own port."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            receiver.received.append((self.path, body))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Write nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        receiver = Collector(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield receiver
        server.shutdown()
        thread.join()


Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


class Metrics:
    """The result of one scrape."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.families = {family.name: family for family in text_string_to_metric_families(text)}
        self.samples: Samples = {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in self.families.values()
            for sample in family.samples
        }

    def value(self, name: str, **labels: str) -> float:
        """Return one value, or 0 if there is none yet."""
        return self.samples.get((name, tuple(sorted(labels.items()))), 0)

    def labels(self, label: str) -> set[str]:
        """Return all values of a label."""
        return {dict(labels)[label] for _, labels in self.samples if label in dict(labels)}


def scrape(url: str, **headers: str) -> Metrics:
    """Scrape the metrics of a service on a new connection, which reaches any worker."""
    response = httpx.get(f"{url}/metrics", headers=headers)
    assert response.status_code == 200, response.text
    return Metrics(response.text)
