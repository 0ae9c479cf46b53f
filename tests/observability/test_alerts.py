"""The rules for alerts, `docs/alerts.yml`: they ask for metrics and labels that there are, and say what to do."""

import asyncio
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.observability.support import Metrics

RULES = Path(__file__).parents[2] / "docs" / "alerts.yml"
OF_PROMETHEUS = {"up"}
LABELS_OF_PROMETHEUS = {"instance", "job", "le"}
WORDS = {"rate", "increase", "sum", "by", "histogram_quantile", "min_over_time", "or", "unless", "offset"}
INSTANCE = 'instance="api:8000",job="patients-api"'
ONE = f'{INSTANCE},method="GET",route="/patients/patients/{{unique_id}}/"'
FINE = {
    f"up{{{INSTANCE}}}": "1x60",
    f'http_requests_total{{{ONE},status="200"}}': "0+600x60",
    f"database_requests_waiting{{{INSTANCE}}}": "0x60",
}
"""Series of an hour in which all is well, a value a minute, in promtool's notation."""


def slow(name: str, labels: str, le: str) -> dict[str, str]:
    """Series of a histogram in which everything takes longer than `le`."""
    counts = {le: "0x60", "2.5": "0+600x60", "+Inf": "0+600x60"}
    return {f'{name}{{{labels},le="{bound}"}}': values for bound, values in counts.items()}


STATEMENT = "database_statement_duration_seconds_bucket"
WRONG: dict[str, dict[str, str]] = {
    "PatientsApiDown": {f"up{{{INSTANCE}}}": "1x40 0x20"},
    "PatientsApiUnavailable": {f'http_requests_total{{{ONE},status="503"}}': "0+12x60"},
    "PatientsApiUnexpectedErrors": {f'http_requests_total{{{ONE},status="500"}}': "_x55 1x5"},
    "PatientsApiSlow": slow("http_request_duration_seconds_bucket", ONE, "1"),
    "PatientsApiWaiting": {f"database_requests_waiting{{{INSTANCE}}}": "0x40 3x20"},
    "PatientsApiDatabaseSlow": slow(STATEMENT, f'{INSTANCE},operation="SELECT",table="patients"', "0.5"),
    "PatientsApiCommitsSlow": slow(STATEMENT, f'{INSTANCE},operation="COMMIT",table=""', "0.25"),
    "PatientsApiAnswersBreakOff": {f"http_responses_incomplete_total{{{ONE}}}": "0+60x60"},
    "PatientsApiRefused": {f'http_requests_total{{{ONE},status="401"}}': "0+120x60"},
}
"""What goes wrong beside, by the alert that it sets off."""


needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is missing: apt install prometheus"
)


@pytest.fixture(scope="module")
def rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    assert group["name"] == "patients-api"
    found: list[dict[str, Any]] = group["rules"]
    return found


def names(metrics: Metrics) -> set[str]:
    """The names under which values of each metric are found, whether there are values yet or not."""
    endings = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
    return {
        name + ending for name, family in metrics.families.items() for ending in endings.get(family.type, ())
    } | OF_PROMETHEUS


async def test_rules_ask_for_what_there_is(client: httpx.AsyncClient, rules: list[dict[str, Any]]) -> None:
    """Each name in an expression is a metric, a label of one, or Prometheus' own."""
    await client.get("/hospitals/hospitals/")
    metrics = Metrics((await client.get("/metrics")).text)
    labels = {label for _, pairs in metrics.samples for label, _ in pairs} | LABELS_OF_PROMETHEUS
    asked = set()
    for rule in rules:
        words = set(re.findall(r"[a-z_]{2,}", re.sub(r'"[^"]*"|\[\w+\]', "", rule["expr"]))) - WORDS
        assert words & names(metrics), rule["alert"]
        assert words <= names(metrics) | labels, rule["alert"]
        asked |= words
    assert {"http_requests_total", "database_requests_waiting", "up"} <= asked, "the test sees the words"


async def test_rules_name_routes_that_there_are(client: httpx.AsyncClient, rules: list[dict[str, Any]]) -> None:
    """Where a rule picks routes or leaves some out, there are such."""
    document = (await client.get("/openapi.json")).json()
    patterns = {pattern for rule in rules for pattern in re.findall(r'route(?:=~|!~|=)"([^"]*)"', rule["expr"])}
    assert patterns
    for pattern in patterns:
        for alternative in pattern.split("|"):
            expression = alternative.replace("{unique_id}", r"\{unique_id\}")
            assert any(re.fullmatch(expression, path) for path in document["paths"]), alternative


def test_rules_say_what_they_mean(rules: list[dict[str, Any]]) -> None:
    """Each has a name of its own, how urgent it is, what is wrong, and what to look at."""
    assert len({rule["alert"] for rule in rules}) == len(rules)
    for rule in rules:
        assert re.fullmatch(r"PatientsApi[A-Za-z]+", rule["alert"])
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert rule["annotations"].keys() == {"summary", "description"}
        assert len(rule["annotations"]["description"]) > 80


def promtool(told: bytes, *what: str) -> str:
    """What Prometheus' own tool finds wrong."""
    found = subprocess.run(["promtool", *what], input=told, check=False, capture_output=True)
    return "" if found.returncode == 0 else f"{found.stdout.decode()}{found.stderr.decode()}{found.returncode}"


@needs_promtool
async def test_prometheus_takes_them(client: httpx.AsyncClient) -> None:
    """It finds nothing wrong with the rules, nor with the names of the metrics."""
    await client.get("/hospitals/hospitals/")
    metrics = (await client.get("/metrics")).content
    assert await asyncio.to_thread(promtool, b"", "check", "rules", str(RULES)) == ""
    assert await asyncio.to_thread(promtool, metrics, "check", "metrics") == ""


@needs_promtool
@pytest.mark.parametrize("wrong", ["", *WRONG])
def test_alerts_go_off_when_they_should(rules: list[dict[str, Any]], tmp_path: Path, wrong: str) -> None:
    """Each when what it is about goes wrong, and only then; a single 500 too."""
    assert {rule["alert"] for rule in rules} == set(WRONG)
    series = FINE | WRONG.get(wrong, {})
    quiet = [{"eval_time": "60m", "alertname": name, "exp_alerts": []} for name in WRONG if name != wrong]
    cases = tmp_path / "cases.yml"
    case = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "alert_rule_test": quiet,
        "promql_expr_test": [
            {
                "expr": f'count(ALERTS{{alertname="{wrong}",alertstate="firing"}})',
                "eval_time": "60m",
                "exp_samples": [{"labels": "{}", "value": 1}] if wrong else [],
            }
        ],
    }
    cases.write_text(yaml.safe_dump({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": [case]}))
    assert promtool(b"", "test", "rules", str(cases)) == ""
