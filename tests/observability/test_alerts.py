"""The alert rules in `docs/alerts.yml` use existing metrics and labels, and say what to do."""

import asyncio
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from app.observability.metrics import WEBHOOK_LAG_SECONDS, WEBHOOK_STOPPED
from tests.observability.support import (
    RULES_FILE,
    Metrics,
    alert_rules,
    expression_names,
    needs_promtool,
    promtool_errors,
    series_names,
    unknown_names,
    unmatched_alternatives,
)

INSTANCE_LABELS = 'instance="api:8000",job="patients-api"'
REQUEST_LABELS = f'{INSTANCE_LABELS},method="GET",route="/patients/patients/{{unique_id}}/"'
HEALTHY_SERIES = {
    f"up{{{INSTANCE_LABELS}}}": "1x60",
    f'http_requests_total{{{REQUEST_LABELS},status="200"}}': "0+600x60",
    f"database_requests_waiting{{{INSTANCE_LABELS}}}": "0x60",
}
"""Series of an hour without problems, with a value per minute, in promtool's notation."""


def slow_series(name: str, labels: str, le: str) -> dict[str, str]:
    """Return the series of a histogram in which all observations are longer than `le`."""
    counts = {le: "0x60", "2.5": "0+600x60", "+Inf": "0+600x60"}
    return {f'{name}{{{labels},le="{bound}"}}': values for bound, values in counts.items()}


STATEMENT_BUCKET_METRIC = "database_statement_duration_seconds_bucket"
FAILURE_SERIES: dict[str, dict[str, str]] = {
    "PatientsApiDown": {f"up{{{INSTANCE_LABELS}}}": "1x40 0x20"},
    "PatientsApiUnavailable": {f'http_requests_total{{{REQUEST_LABELS},status="503"}}': "0+12x60"},
    "PatientsApiUnexpectedErrors": {f'http_requests_total{{{REQUEST_LABELS},status="500"}}': "_x55 1x5"},
    "PatientsApiSlow": slow_series("http_request_duration_seconds_bucket", REQUEST_LABELS, "1"),
    "PatientsApiWaiting": {f"database_requests_waiting{{{INSTANCE_LABELS}}}": "0x40 3x20"},
    "PatientsApiDatabaseSlow": slow_series(
        STATEMENT_BUCKET_METRIC, f'{INSTANCE_LABELS},operation="SELECT",table="patients"', "0.5"
    ),
    "PatientsApiCommitsSlow": slow_series(
        STATEMENT_BUCKET_METRIC, f'{INSTANCE_LABELS},operation="COMMIT",table=""', "0.25"
    ),
    "PatientsApiAnswersBreakOff": {f"http_responses_incomplete_total{{{REQUEST_LABELS}}}": "0+60x60"},
    "PatientsApiWebhookBehind": {f'webhook_lag_seconds{{{INSTANCE_LABELS},webhook="hook_1"}}': "0+60x60"},
    "PatientsApiWebhookStopped": {f'webhook_stopped{{{INSTANCE_LABELS},webhook="hook_1"}}': "0x40 1x20"},
    "PatientsApiRefused": {f'http_requests_total{{{REQUEST_LABELS},status="401"}}': "0+120x60"},
}
"""The series of a failure, by the alert that it triggers."""


@pytest.fixture(scope="module")
def rules() -> list[dict[str, Any]]:
    return alert_rules()


async def test_rules_use_existing_metrics_and_labels(client: httpx.AsyncClient, rules: list[dict[str, Any]]) -> None:
    """Each name in an expression is a metric, a label of one, or one of Prometheus itself."""
    await client.get("/hospitals/hospitals/")
    for gauge in (WEBHOOK_LAG_SECONDS, WEBHOOK_STOPPED):
        gauge.labels("hook_1").set(0)
    metrics = Metrics((await client.get("/metrics")).text)
    asked = set()
    for rule in rules:
        names = expression_names(rule["expr"])
        assert names & series_names(metrics), rule["alert"]
        assert not unknown_names(rule["expr"], metrics), rule["alert"]
        asked |= names
    assert {"http_requests_total", "database_requests_waiting", "up"} <= asked, "the test must extract the names"


async def test_rules_match_existing_routes(client: httpx.AsyncClient, rules: list[dict[str, Any]]) -> None:
    """Each route that a rule selects or excludes exists."""
    document = (await client.get("/openapi.json")).json()
    assert not unmatched_alternatives([rule["expr"] for rule in rules], "route", document["paths"])


def test_rules_have_severity_and_description(rules: list[dict[str, Any]]) -> None:
    """Each rule has a unique name, a severity, a runbook URL, a summary and a description."""
    assert len({rule["alert"] for rule in rules}) == len(rules)
    for rule in rules:
        assert re.fullmatch(r"PatientsApi[A-Za-z]+", rule["alert"])
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert rule["annotations"].keys() == {"runbook_url", "summary", "description"}
        assert len(rule["annotations"]["description"]) > 80


@needs_promtool
async def test_promtool_accepts_rules_and_metrics(client: httpx.AsyncClient) -> None:
    """The rules and the names of the metrics pass promtool."""
    await client.get("/hospitals/hospitals/")
    metrics = (await client.get("/metrics")).content
    assert await asyncio.to_thread(promtool_errors, b"", "check", "rules", str(RULES_FILE)) == ""
    assert await asyncio.to_thread(promtool_errors, metrics, "check", "metrics") == ""


@needs_promtool
@pytest.mark.parametrize("failing_alert", ["", *FAILURE_SERIES])
def test_each_alert_fires_only_on_its_failure(rules: list[dict[str, Any]], tmp_path: Path, failing_alert: str) -> None:
    """Each alert fires on its own failure, even on a single 500, and on no other."""
    assert {rule["alert"] for rule in rules} == set(FAILURE_SERIES)
    series = HEALTHY_SERIES | FAILURE_SERIES.get(failing_alert, {})
    quiet = [
        {"eval_time": "60m", "alertname": name, "exp_alerts": []} for name in FAILURE_SERIES if name != failing_alert
    ]
    cases = tmp_path / "cases.yml"
    case = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "alert_rule_test": quiet,
        "promql_expr_test": [
            {
                "expr": f'count(ALERTS{{alertname="{failing_alert}",alertstate="firing"}})',
                "eval_time": "60m",
                "exp_samples": [{"labels": "{}", "value": 1}] if failing_alert else [],
            }
        ],
    }
    cases.write_text(yaml.safe_dump({"rule_files": [str(RULES_FILE)], "evaluation_interval": "1m", "tests": [case]}))
    assert promtool_errors(b"", "test", "rules", str(cases)) == ""
