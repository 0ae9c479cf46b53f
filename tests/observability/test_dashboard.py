"""The Grafana dashboard in `docs/grafana-dashboard.json` uses existing metrics, and has a panel for each alert."""

import asyncio
import json
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from app.observability.metrics import (
    WEBHOOK_ATTEMPTS,
    WEBHOOK_LAG_CHANGES,
    WEBHOOK_LAG_SECONDS,
    WEBHOOK_STOPPED,
)
from tests.observability.support import (
    PROMETHEUS_SERIES,
    Metrics,
    Selector,
    alert_rules,
    expression_names,
    needs_promtool,
    promtool_errors,
    selectors,
    series_names,
    unknown_names,
    unmatched_alternatives,
)

DASHBOARD_FILE = Path(__file__).parents[2] / "docs" / "grafana-dashboard.json"
GRID_WIDTH = 24
GRAFANA_VARIABLES = {"__rate_interval", "__all"}
VARIABLE_VALUES = {"$__rate_interval": "1m", "$job": "patients-api", "$instance": ".*"}
ALERT_NAME = re.compile(r"PatientsApi[A-Za-z]+")


@pytest.fixture(scope="module")
def dashboard() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(DASHBOARD_FILE.read_text())
    return content


@pytest.fixture(scope="module")
def charts(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    """The panels that have expressions."""
    charts = [panel for panel in dashboard["panels"] if panel["type"] not in {"row", "text"}]
    assert len(charts) > 20
    return charts


def expressions(*panels: dict[str, Any]) -> list[str]:
    """Return the expressions of panels."""
    return [target["expr"] for panel in panels for target in panel["targets"]]


def conditions(*expressions: str) -> set[tuple[str, ...]]:
    """Return the conditions of the selectors of expressions, without those that choose instances."""
    return {
        (selector.metric, *matcher)
        for expression in expressions
        for selector in selectors(expression)
        for matcher in selector.matchers
        if matcher.label not in {"job", "instance"}
    }


def exact_values(selector: Selector) -> set[tuple[str, str]]:
    """Return the values of labels that a selector asks for exactly. Not every status occurs in a test."""
    return {
        (matcher.label, matcher.value)
        for matcher in selector.matchers
        if selector.metric not in PROMETHEUS_SERIES
        and matcher.operator == "="
        and matcher.label not in {"job", "instance", "status"}
    }


async def test_panels_use_existing_metrics_labels_and_values(
    client: httpx.AsyncClient, charts: list[dict[str, Any]]
) -> None:
    """Names are metrics or their labels, also in legends; exact values of labels occur; each metric has a panel."""
    created = await client.post("/patients/patients/", json={"patient_last_name": "Zulu"})
    await client.delete(created.headers["Location"])  # in a transaction, which writes to the audit by itself
    for gauge in (WEBHOOK_LAG_CHANGES, WEBHOOK_LAG_SECONDS, WEBHOOK_STOPPED):
        gauge.labels("hook_1").set(0)
    WEBHOOK_ATTEMPTS.labels("hook_1", "delivered").inc()
    await client.get("/metrics")
    metrics = Metrics((await client.get("/metrics")).text)
    samples = [(name, set(pairs)) for name, pairs in metrics.samples]
    asked = set()
    for panel in charts:
        for target in panel["targets"]:
            names = expression_names(target["expr"])
            assert names & series_names(metrics), panel["title"]
            assert not unknown_names(target["expr"], metrics), panel["title"]
            assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) <= names | {"instance"}, panel["title"]
            asked |= names
            for selector in selectors(target["expr"]):
                values = exact_values(selector)
                assert not values or any(name == selector.metric and values <= labels for name, labels in samples), (
                    f"{panel['title']}: {selector}"
                )
    own = {
        name
        for name in series_names(metrics)
        if name.startswith(("http_", "database_", "changes_", "webhook_", "patients_api_"))
    }
    without_panel = own - asked
    assert without_panel == {"http_request_duration_seconds_sum", "http_request_duration_seconds_count"}


async def test_panels_select_existing_routes_and_statuses(
    client: httpx.AsyncClient, charts: list[dict[str, Any]]
) -> None:
    """Each route and each status that a panel selects or excludes is in the OpenAPI document."""
    paths = (await client.get("/openapi.json")).json()["paths"]
    statuses = {
        status
        for path in paths.values()
        for operation in path.values()
        if isinstance(operation, dict)
        for status in operation.get("responses", {})
    }
    assert not unmatched_alternatives(expressions(*charts), "route", paths)
    assert not unmatched_alternatives(expressions(*charts), "status", statuses)


def test_panels_have_title_description_and_unit(dashboard: dict[str, Any], charts: list[dict[str, Any]]) -> None:
    """Each panel says in words what it shows, has a unit, and does not repeat the queries of another."""
    assert len({json.dumps(panel["targets"]) for panel in charts}) == len(charts)
    for panel in charts:
        assert panel["title"], panel["id"]
        assert re.fullmatch(r"[A-Z0-9].{30,}\.", panel["description"]), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}, panel["title"]
        assert [target["refId"] for target in panel["targets"]] == list("ABC"[: len(panel["targets"])])
    assert [panel["id"] for panel in dashboard["panels"]] == list(range(1, len(dashboard["panels"]) + 1))


def test_panels_fill_the_grid_without_overlap(dashboard: dict[str, Any]) -> None:
    """No two panels cover the same cell of the grid, and none is empty."""
    cells = {
        panel["id"]: {
            (x, y)
            for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
            for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
        }
        for panel in dashboard["panels"]
    }
    for one, other in combinations(cells, 2):
        assert not cells[one] & cells[other], f"panels {one} and {other} overlap"
    covered = set().union(*cells.values())
    assert covered == {(x, y) for x in range(GRID_WIDTH) for y in range(1 + max(y for _, y in covered))}


def test_each_alert_has_panels_with_its_threshold(charts: list[dict[str, Any]]) -> None:
    """A panel that names an alert has the alert's metrics, conditions and threshold, and each alert is named."""
    named: dict[str, list[dict[str, Any]]] = {}
    for panel in charts:
        for alert in ALERT_NAME.findall(panel["description"]):
            named.setdefault(alert, []).append(panel)
    rules = {rule["alert"]: rule["expr"] for rule in alert_rules()}
    assert named.keys() == rules.keys()
    for alert, expression in rules.items():
        (bound,) = {float(bound) for bound in re.findall(r"(?:[<>]|==) ([\d.]+)", expression)}
        for panel in named[alert]:
            queries = expressions(panel)
            assert expression_names(expression) - {"route", "instance", "le"} <= set().union(
                *map(expression_names, queries)
            ), f"{alert}: {panel['title']}"
            assert conditions(expression) <= conditions(*queries), f"{alert}: {panel['title']}"
            _, step = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
            assert step["value"] == (bound or 1), f"{alert}: {panel['title']}: counts above 0 start at 1"


def test_variables_are_declared_and_used(dashboard: dict[str, Any], charts: list[dict[str, Any]]) -> None:
    """Each variable is declared, none is superfluous, and every selector chooses the job and the instances."""
    declared = {variable["name"] for variable in dashboard["templating"]["list"]}
    assert set(re.findall(r"\$\{?(\w+)", DASHBOARD_FILE.read_text())) == declared | GRAFANA_VARIABLES
    for expression in expressions(*charts):
        assert not re.search(r"\b(up|(http|database|patients_api|process)_\w+)\b(?!\{)", expression), expression
        for selector in selectors(expression):
            chosen = {tuple(matcher) for matcher in selector.matchers}
            assert selector.metric == "ALERTS" or chosen >= {("job", "=", "$job"), ("instance", "=~", "$instance")}


@needs_promtool
async def test_promtool_accepts_expressions(charts: list[dict[str, Any]], tmp_path: Path) -> None:
    """Each expression is valid once the variables have values."""
    records = []
    for number, expression in enumerate(expressions(*charts)):
        for name, value in VARIABLE_VALUES.items():
            expression = expression.replace(name, value)  # noqa: PLW2901
        assert "$" not in expression
        records.append({"record": f"panel:{number}", "expr": expression})
    rules = tmp_path / "rules.yml"
    rules.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": records}]}))
    assert await asyncio.to_thread(promtool_errors, b"", "check", "rules", str(rules)) == ""
