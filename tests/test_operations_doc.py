"""What docs/operations.md tells operators to look at is there; its commands are run where they belong."""

import re

import asyncpg
import pytest

from tests.doc_commands import REPOSITORY_ROOT, code_blocks

OPERATIONS_DOC = (REPOSITORY_ROOT / "docs/operations.md").read_text()
APP_SOURCE = "".join(path.read_text() for path in REPOSITORY_ROOT.glob("app/**/*.py"))


@pytest.mark.parametrize("block", code_blocks("operations.md", "When an alert fires", "sql"))
async def test_alert_queries_run_with_the_documented_grants(block: str, connection: asyncpg.Connection) -> None:
    """Each statement is one that PostgreSQL and our tables understand, also of an owner with the rights named there."""
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
    """Every event that the document names is one that the service logs."""
    named = set(re.findall(r'`"event": "([^"]+)"`', OPERATIONS_DOC))
    assert len(named) > 4
    assert [event for event in named if f'"{event}"' not in APP_SOURCE] == []


def test_internal_links_resolve() -> None:
    """Every link to a chapter of this page is the anchor of one."""
    headings = re.findall("^#+ (.*)$", OPERATIONS_DOC, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
    assert set(re.findall(r"\]\(#([^)]+)\)", OPERATIONS_DOC)) <= anchors


def test_each_alert_rule_has_a_row_in_the_table() -> None:
    """Every rule of docs/alerts.yml has a line in the table, and no other has."""
    rules = re.findall("- alert: (.*)$", (REPOSITORY_ROOT / "docs/alerts.yml").read_text(), re.MULTILINE)
    assert sorted(re.findall("`(PatientsApi[A-Za-z]+)`", OPERATIONS_DOC)) == sorted(rules)
