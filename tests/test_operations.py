"""What docs/operations.md tells operators to look at is there; its commands are run where they belong."""

import re

import asyncpg
import pytest

from tests.documents import ROOT, commands

TEXT = (ROOT / "docs/operations.md").read_text()
CODE = "".join(path.read_text() for path in ROOT.glob("app/**/*.py"))


@pytest.mark.parametrize("block", commands("operations.md", "When an alert fires", "sql"))
async def test_what_an_alert_has_one_ask_can_be_asked(block: str, connection: asyncpg.Connection) -> None:
    """Each statement is one that PostgreSQL and our tables understand, also of an owner with the rights named there."""
    (rights,) = re.findall("`GRANT (.*) TO`", TEXT)
    undone = connection.transaction()
    await undone.start()
    await connection.execute(
        f"""
        CREATE ROLE watching;
        GRANT SELECT ON ALL TABLES IN SCHEMA public TO watching;
        GRANT {rights} TO watching;
        SET LOCAL ROLE watching;
        """
    )
    await connection.execute(block)
    await undone.rollback()


def test_log_lines_are_called_so() -> None:
    """Every event that the document names is one that the service logs."""
    named = set(re.findall(r'`"event": "([^"]+)"`', TEXT))
    assert len(named) > 4
    assert [event for event in named if f'"{event}"' not in CODE] == []


def test_links_within_lead_somewhere() -> None:
    """Every link to a chapter of this page is the anchor of one."""
    headings = re.findall("^#+ (.*)$", TEXT, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
    assert set(re.findall(r"\]\(#([^)]+)\)", TEXT)) <= anchors


def test_each_alert_is_explained() -> None:
    """Every rule of docs/alerts.yml has a line in the table, and no other has."""
    rules = re.findall("- alert: (.*)$", (ROOT / "docs/alerts.yml").read_text(), re.MULTILINE)
    assert sorted(re.findall("`(PatientsApi[A-Za-z]+)`", TEXT)) == sorted(rules)
