"""The queries, log events, links and alerts in docs/runbook.md and the links in docs/operations.md work.

The commands in docs/operations.md are tested by their subjects.
"""

import re

import asyncpg
import pytest
import yaml

from tests.doc_commands import REPOSITORY_ROOT, code_blocks

RUNBOOK = (REPOSITORY_ROOT / "docs/runbook.md").read_text()
LINKED_DOCS = ("operations.md", "runbook.md", "writing-migrations.md", "observability.md")
APP_SOURCE = "".join(path.read_text() for path in REPOSITORY_ROOT.glob("app/**/*.py"))
QUERIES = [*code_blocks("runbook.md", "Alerts", "sql"), *code_blocks("runbook.md", "Other problems", "sql")]


@pytest.mark.parametrize("block", QUERIES)
async def test_runbook_queries_run_with_the_documented_grants(block: str, connection: asyncpg.Connection) -> None:
    """Each query runs on our tables as a role that may read them and has the documented grants."""
    (rights,) = re.findall("`GRANT (.*) TO`", RUNBOOK)
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
    """Every event that the runbook names is logged by the service."""
    named = set(re.findall(r'`"event": "([^"]+)"`', RUNBOOK))
    assert len(named) > 4
    assert [event for event in named if f'"{event}"' not in APP_SOURCE] == []


def heading_anchors(document: str) -> set[str]:
    """Return the anchors that GitHub gives to the headings of a file in `docs/`."""
    headings = re.findall("^#+ (.*)$", (REPOSITORY_ROOT / "docs" / document).read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", LINKED_DOCS)
def test_links_between_the_documents_resolve(document: str) -> None:
    """Every link to a section of the same document or of another file in `docs/` leads to one of its headings."""
    text = (REPOSITORY_ROOT / "docs" / document).read_text()
    links = re.findall(r"\]\(([a-z-]+\.md)?#([^)]+)\)", text)
    assert links
    broken = [(target, anchor) for target, anchor in links if anchor not in heading_anchors(target or document)]
    assert broken == []


def test_each_alert_rule_has_a_section_in_the_runbook() -> None:
    """Every rule in docs/alerts.yml names its section of the runbook, and there are no sections for other alerts."""
    (group,) = yaml.safe_load((REPOSITORY_ROOT / "docs/alerts.yml").read_text())["groups"]
    urls = {rule["alert"]: rule["annotations"]["runbook_url"] for rule in group["rules"]}
    assert sorted(re.findall("^### (PatientsApi[A-Za-z]+)$", RUNBOOK, re.MULTILINE)) == sorted(urls)
    for alert, url in urls.items():
        page, _, anchor = url.partition("#")
        assert page == "https://REPOSITORY-URL/docs/runbook.md"
        assert anchor == alert.lower()
        assert anchor in heading_anchors("runbook.md")
