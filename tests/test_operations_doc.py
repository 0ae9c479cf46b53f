"""The queries, log events, links and alerts in docs/operations.md work; its commands are tested by their subjects."""

import re

import asyncpg
import pytest

from tests.doc_commands import REPOSITORY_ROOT, code_blocks

OPERATIONS_DOC = (REPOSITORY_ROOT / "docs/operations.md").read_text()
APP_SOURCE = "".join(path.read_text() for path in REPOSITORY_ROOT.glob("app/**/*.py"))


@pytest.mark.parametrize("block", code_blocks("operations.md", "When an alert fires", "sql"))
async def test_alert_queries_run_with_the_documented_grants(block: str, connection: asyncpg.Connection) -> None:
    """Each query runs on our tables as a role that may read them and has the documented grants."""
    (rights,) = re.findall("`GRANT (.*) TO`", OPERATIONS_DOC)
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute(
        f"""
        CREATE ROLE watching;
        GRANT SELECT ON ALL TABLES IN SCHEMA public TO watching;
        GRANT {rights} TO watching;
        SET LOCAL ROLE watching;
        """
    )
    await connection.execute(block)
    await transaction.rollback()


def test_documented_log_events_exist_in_the_code() -> None:
    """Every event that the document names is logged by the service."""
    named = set(re.findall(r'`"event": "([^"]+)"`', OPERATIONS_DOC))
    assert len(named) > 4
    assert [event for event in named if f'"{event}"' not in APP_SOURCE] == []


def test_internal_links_resolve() -> None:
    """Every link within the page leads to one of its headings."""
    headings = re.findall("^#+ (.*)$", OPERATIONS_DOC, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
    assert set(re.findall(r"\]\(#([^)]+)\)", OPERATIONS_DOC)) <= anchors


def test_each_alert_rule_has_a_row_in_the_table() -> None:
    """Every rule in docs/alerts.yml has one row in the table, and the table has no other rows."""
    rules = re.findall("- alert: (.*)$", (REPOSITORY_ROOT / "docs/alerts.yml").read_text(), re.MULTILINE)
    assert sorted(re.findall("`(PatientsApi[A-Za-z]+)`", OPERATIONS_DOC)) == sorted(rules)
