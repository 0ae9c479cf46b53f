"""The audit takes new rows and no other change; what is old is pruned; what is there is told on paper."""

from html.parser import HTMLParser

import asyncpg
import pytest

from tests.auth.support import PATIENTS
from tests.journal.conftest import Command
from tests.walls.conftest import Register

CHANGES = (
    "UPDATE audit SET principal = 'nobody'",
    "UPDATE audit SET ids = ids WHERE false",
    "DELETE FROM audit",
    "TRUNCATE audit",
    "MERGE INTO audit USING (SELECT 1) AS one ON true WHEN MATCHED THEN DELETE",
)


async def test_nobody_changes_it(connection: asyncpg.Connection) -> None:
    """Not even who owns the table, unless by what the commands for it do."""
    for statement in CHANGES:
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="the audit is append-only"):
            await connection.execute(statement)


async def test_the_serving_role_adds_to_it_only(serving_url: str) -> None:
    """It cannot say when, and cannot do what the commands do."""
    serving = await asyncpg.connect(serving_url)
    try:
        columns = await serving.fetch(
            "SELECT attname FROM pg_attribute WHERE attrelid = 'audit'::regclass AND attnum > 0"
            " AND has_column_privilege('audit', attname, 'INSERT')"
        )
        await serving.execute("SET patients.erasing = 'yes'")
        for statement in CHANGES:
            with pytest.raises(asyncpg.InsufficientPrivilegeError, match="permission denied"):
                await serving.execute(statement)
    finally:
        await serving.close()
    named = {column["attname"] for column in columns}
    assert named == {"principal", "method", "route", "status", "resource", "ids", "request_id", "reason", "version"}


async def test_what_is_old_is_pruned(
    connection: asyncpg.Connection, command: Command, serving_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the days of the setting; by the owner of the table only."""
    await connection.execute(
        "INSERT INTO audit (time, principal, method, route, status, resource, ids)"
        " SELECT now() - make_interval(days => days), 'me', 'GET', '/', 200, 'patients', ARRAY['pat123']"
        " FROM unnest(ARRAY[0, 29, 31, 2191]) days"
    )
    assert (await command("audit", "prune")).out == "Removed 1 entry of more than 2190 days ago.\n"
    monkeypatch.setenv("PATIENTS_AUDIT_DAYS", "30")
    refused = await command("audit", "prune", url=serving_url)
    assert (refused.status, refused.err.count("\n")) == (1, 1)
    assert (await command("audit", "prune")).out == "Removed 1 entry of more than 30 days ago.\n"
    assert await connection.fetchval("SELECT count(*) FROM audit") == 2
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await connection.execute("DELETE FROM audit")


class Cells(HTMLParser):
    """The texts of a page's table."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.feed(page)
        self.close()

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append(data.strip())


async def test_the_report_is_a_page(register: Register, command: Command) -> None:
    """Everything that the route tells, escaped, and nothing to load from elsewhere; printing it is on record too."""
    await register.a.get(f"{PATIENTS}pat-a/")
    await register.b.get(f"{PATIENTS}pat-a/")  # refused
    first = await command("access-report", "pat-a")
    assert first.status == 0
    texts = Cells(first.out).texts
    assert texts.count("Looked at the record") == 1
    assert "key:a" in texts
    assert "Printed a report of who has seen the record" in texts
    assert "http" not in first.out
    assert "2 entries" not in first.out
    entries = (await register.free.get(f"{PATIENTS}pat-a/access/")).json()
    assert entries[0]["principal"] == "access-report"


@pytest.mark.usefixtures("register")
async def test_the_report_tells_of_the_deleted_and_not_of_nobody(command: Command) -> None:
    """Who was deleted may ask as well; whom there never was is an error."""
    assert "Deleted the record" in Cells((await command("access-report", "pat-gone")).out).texts
    for unique_id in ("pat-never", "not an id"):
        never = await command("access-report", unique_id)
        assert (never.status, never.err) == (1, "There is no patient of this unique_id.\n")


@pytest.mark.usefixtures("register")
async def test_reasons_are_escaped(connection: asyncpg.Connection, command: Command) -> None:
    """They are what somebody typed."""
    await connection.execute(
        "INSERT INTO audit (principal, method, route, status, resource, ids, reason) VALUES"
        " ('key:<x>', 'GET', '/patients/patients/{unique_id}/', 200, 'patients', ARRAY['pat-a'], '<b>fell & broke</b>')"
    )
    page = (await command("access-report", "pat-a")).out
    assert "<b>" not in page
    assert "Reason given: <b>fell & broke</b>" in Cells(page).texts
    assert "key:<x>" in Cells(page).texts


async def test_who_is_erased_leaves_the_audit(
    register: Register, command: Command, connection: asyncpg.Connection
) -> None:
    """That somebody looked stays, at whom does not."""
    await register.a.get(f"{PATIENTS}pat-a/")
    await register.a.get(PATIENTS)
    assert (await command("erase", "patient", "pat-a", "--reason", "asked for it", "--yes")).status == 0
    rows = await connection.fetch("SELECT ids, reason FROM audit WHERE principal = 'key:a' ORDER BY id")
    token = rows[0]["ids"][0]
    assert token.startswith("erased_")
    assert [row["ids"] for row in rows] == [[token], [token, "pat-shared"]]
