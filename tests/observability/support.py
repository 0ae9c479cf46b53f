"""A collector that keeps what it receives, metrics as Prometheus scrapes them, and the names in PromQL expressions."""

import re
import shutil
import subprocess
import threading
from collections.abc import Iterable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
import yaml
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import ResourceMetrics
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from prometheus_client.parser import text_string_to_metric_families

from app.observability.metrics import CONNECTIONS_IN_USE


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


def has_values(url: str, **expected: float) -> bool:
    """Return whether all these metrics of a service have the expected values, in one scrape."""
    metrics = scrape(url)
    return all(metrics.value(name) == value for name, value in expected.items())


def connections_in_use() -> float:
    """Return the number of connections that the applications in this process are using."""
    return next(iter(CONNECTIONS_IN_USE.collect())).samples[0].value


RULES_FILE = Path(__file__).parents[2] / "docs" / "alerts.yml"
PROMETHEUS_SERIES = {"up": set[str](), "ALERTS": {"alertname", "alertstate"}}
"""The series that Prometheus itself creates, with their labels."""
PROMETHEUS_LABELS = {"instance", "job", "le"}
PROMQL_KEYWORDS = {
    *("by", "offset", "or", "unless"),
    *("count", "histogram_quantile", "increase", "max", "min_over_time", "rate", "resets", "sum", "vector"),
}
needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is missing: apt install prometheus"
)


class Matcher(NamedTuple):
    """A condition on a label in a PromQL selector, such as `status=~"401|429"`."""

    label: str
    operator: str
    value: str


class Selector(NamedTuple):
    """A metric in a PromQL expression, with the conditions on its labels."""

    metric: str
    matchers: list[Matcher]


def alert_rules() -> list[dict[str, Any]]:
    """Return the rules in `docs/alerts.yml`."""
    (group,) = yaml.safe_load(RULES_FILE.read_text())["groups"]
    assert group["name"] == "patients-api"
    rules: list[dict[str, Any]] = group["rules"]
    return rules


def series_names(metrics: Metrics) -> set[str]:
    """Return the names of the series of each metric, whether they have values yet or not."""
    endings = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
    return {
        name + ending for name, family in metrics.families.items() for ending in endings.get(family.type, ())
    } | PROMETHEUS_SERIES.keys()


def expression_names(expression: str) -> set[str]:
    """Return the names of the metrics and labels in a PromQL expression."""
    return set(re.findall(r"[A-Za-z_]{2,}", re.sub(r'"[^"]*"|\[[^]]*\]', "", expression))) - PROMQL_KEYWORDS


def unknown_names(expression: str, metrics: Metrics) -> set[str]:
    """Return the names in a PromQL expression that are neither metrics nor labels of the metrics in the expression."""
    names = expression_names(expression)
    used = names & series_names(metrics)
    labels = {label for name, pairs in metrics.samples if name in used for label, _ in pairs}
    return names - used - labels - PROMETHEUS_LABELS.union(*(PROMETHEUS_SERIES.get(name, ()) for name in used))


def selectors(expression: str) -> list[Selector]:
    """Return the selectors of a PromQL expression that have conditions."""
    return [
        Selector(name, [Matcher(*parts) for parts in re.findall(r'(\w+)(=~|!~|!=|=)"([^"]*)"', conditions)])
        for name, conditions in re.findall(r'(\w+)\{((?:"[^"]*"|[^"}])*)\}', expression)
    ]


def unmatched_alternatives(expressions: Iterable[str], label: str, values: Iterable[str]) -> set[str]:
    """Return the alternatives in the conditions on a label that match none of the values."""
    values = list(values)
    alternatives = {
        alternative
        for expression in expressions
        for selector in selectors(expression)
        for matcher in selector.matchers
        if matcher.label == label
        for alternative in matcher.value.split("|")
    }
    assert alternatives, f"no expression has a condition on {label}"
    return {
        alternative
        for alternative in alternatives
        if not any(re.fullmatch(alternative.replace("{", r"\{").replace("}", r"\}"), value) for value in values)
    }


def promtool_errors(stdin: bytes, *arguments: str) -> str:
    """Return the errors that promtool reports."""
    result = subprocess.run(["promtool", *arguments], input=stdin, check=False, capture_output=True)
    return "" if result.returncode == 0 else f"{result.stdout.decode()}{result.stderr.decode()}{result.returncode}"
