"""The audit is append-only, its old months are pruned, and its entries about a patient can be printed."""

import asyncio
from html.parser import HTMLParser

import asyncpg
import pytest

from app.audit.retention import add_months
from app.background_tasks import BACKGROUND_TASKS
from tests.auth.support import PATIENTS, secured_app
from tests.hospital_scope.conftest import ScopedClients
from tests.journal.conftest import Command

FORBIDDEN_STATEMENTS = (
    "UPDATE audit SET principal = 'nobody'",
    "UPDATE audit SET ids = ids WHERE false",
    "DELETE FROM audit",
    "TRUNCATE audit",
    "MERGE INTO audit USING (SELECT 1) AS one ON true WHEN MATCHED THEN DELETE",
)


async def test_audit_rows_cannot_be_changed_even_by_the_owner(connection: asyncpg.Connection) -> None:
    """Nobody can change audit rows, not even the table's owner, except through the commands for it."""
    for statement in FORBIDDEN_STATEMENTS:
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="the audit is append-only"):
            await connection.execute(statement)


async def test_serving_role_can_only_insert_audit_rows(serving_url: str) -> None:
    """The serving role can neither set the time of audit rows nor do what the commands do."""
    serving = await asyncpg.connect(serving_url)
    try:
        columns = await serving.fetch(
            "SELECT attname FROM pg_attribute WHERE attrelid = 'audit'::regclass AND attnum > 0"
            " AND has_column_privilege('audit', attname, 'INSERT')"
        )
        await serving.execute("SET patients.erasing = 'yes'")
        for statement in FORBIDDEN_STATEMENTS:
            with pytest.raises(asyncpg.InsufficientPrivilegeError, match="permission denied"):
                await serving.execute(statement)
    finally:
        await serving.close()
    named = {column["attname"] for column in columns}
    assert named == {"principal", "method", "route", "status", "resource", "ids", "request_id", "reason", "version"}


MONTH_START_SQL = "(date_trunc('month', now(), 'UTC') - make_interval(months => {}))"
"""SQL for the start of the month that was so many months ago."""


async def start_monthly_partitions(connection: asyncpg.Connection, months_ago: int) -> None:
    """Change the audit as if it had been partitioned by month since `months_ago`."""
    for partition in await audit_partitions(connection):
        if partition.startswith("audit_2"):
            await connection.execute(f"DROP TABLE {partition}")
    ends = await connection.fetchval(f"SELECT CAST({MONTH_START_SQL.format(months_ago)} AS text)")
    await connection.execute(
        "ALTER TABLE audit DETACH PARTITION audit_before;"
        f"ALTER TABLE audit ATTACH PARTITION audit_before FOR VALUES FROM (MINVALUE) TO ('{ends}');"
        "SELECT add_audit_months()"
    )


async def audit_partitions(connection: asyncpg.Connection) -> list[str]:
    """Return the names of the audit's partitions."""
    rows = await connection.fetch(
        "SELECT CAST(CAST(inhrelid AS regclass) AS text) AS name FROM pg_inherits"
        " WHERE inhparent = CAST('audit' AS regclass) ORDER BY name"
    )
    return [row["name"] for row in rows]


async def insert_audit_row(connection: asyncpg.Connection, time_sql: str) -> str:
    """Insert a row with this time, and return the name of its partition."""
    row = f"{time_sql}, 'me', 'GET', '/', 200, 'patients', ARRAY['pat123']"
    partition: str = await connection.fetchval(
        "INSERT INTO audit (time, principal, method, route, status, resource, ids)"
        f" SELECT {row} RETURNING CAST(CAST(tableoid AS regclass) AS text)"
    )
    return partition


async def test_prune_removes_whole_months_past_retention(
    connection: asyncpg.Connection, command: Command, serving_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pruning removes months whose newest row is older than the retention, no other rows, and only for the owner."""
    await start_monthly_partitions(connection, 6)
    for months_ago in range(12):
        for time in ("{} + interval '1 hour'", "{} + interval '1 month - 1 hour'"):
            await insert_audit_row(connection, f"least(now(), {time.format(MONTH_START_SQL.format(months_ago))})")
    old = "SELECT count(*) FROM audit WHERE time < {}"
    assert (await command("audit", "prune")).out == "Removed 0 months with about 0 entries older than 2190 days.\n"
    # rows from before the fourth month ago are older than this
    since = MONTH_START_SQL.format(4)
    days = await connection.fetchval(f"SELECT CAST(extract(day FROM now() - {since}) AS int)")  # noqa: S608
    monkeypatch.setenv("PATIENTS_AUDIT_DAYS", str(days))
    refused = await command("audit", "prune", url=serving_url)
    assert (refused.status, refused.err.count("\n")) == (1, 1)
    assert await connection.fetchval(old.format("now()")) >= 22
    # the first partition has five months, and the next two are the sixth and the fifth month ago
    done = await command("audit", "prune")
    assert done.out == f"Removed 3 months with about 14 entries older than {days} days.\n", done.err
    assert await connection.fetchval(old.format(since)) == 0
    assert await connection.fetchval("SELECT count(*) FROM audit") == 10
    assert "audit_before" not in await audit_partitions(connection)
    assert (await command("audit", "prune")).out.startswith("Removed 0 months with about 0 entries")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await connection.execute("DELETE FROM audit")


async def test_prune_gives_up_while_the_audit_is_in_use(
    connection: asyncpg.Connection, database_url: str, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pruning during a long dump gives up, says what to do, and removes nothing."""
    await start_monthly_partitions(connection, 6)
    await insert_audit_row(connection, MONTH_START_SQL.format(5))
    monkeypatch.setenv("PATIENTS_AUDIT_DAYS", "30")
    other = await asyncpg.connect(database_url)
    async with other.transaction():
        await other.fetch("SELECT count(*) FROM audit")
        refused = await command("audit", "prune")
    await other.close()
    assert (refused.status, refused.out) == (1, "")
    assert refused.err.startswith("Nothing was removed: the audit is in use")
    assert await connection.fetchval("SELECT count(*) FROM audit") == 1
    assert (await command("audit", "prune")).out.endswith("with about 1 entry older than 30 days.\n")


async def test_monthly_partitions_are_created_ahead(connection: asyncpg.Connection, serving_url: str) -> None:
    """This month and the next three have partitions, and rows without one move to theirs when it is created."""
    attempt = connection.transaction()
    await attempt.start()
    for months_ahead in range(4):
        assert await insert_audit_row(connection, MONTH_START_SQL.format(-months_ahead)) != "audit_default"
    await attempt.rollback()
    await start_monthly_partitions(connection, 1)
    for partition in await audit_partitions(connection):
        if partition not in {"audit_before", "audit_default"}:
            await connection.execute(f"DROP TABLE {partition}")
    assert [await insert_audit_row(connection, MONTH_START_SQL.format(months)) for months in (1, 0, -1)] == [
        "audit_default"
    ] * 3
    serving = await asyncpg.connect(serving_url)
    assert await serving.fetchval("SELECT add_audit_months()") == 5
    assert await serving.fetchval("SELECT add_audit_months()") == 0
    await serving.close()
    assert await connection.fetchval("SELECT count(*) FROM audit_default") == 0
    assert await connection.fetchval("SELECT count(DISTINCT tableoid) FROM audit") == 3
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await connection.execute("DELETE FROM audit")  # moving rows does not permit other deletions


async def test_adding_months_blocks_no_writer(connection: asyncpg.Connection, database_url: str) -> None:
    """A dump delays adding months, and writers do not wait meanwhile."""
    await start_monthly_partitions(connection, 1)
    name = await connection.fetchval("SELECT to_char(now() + interval '3 months', '\"audit_\"YYYY_MM')")
    await connection.execute(f"DROP TABLE {name}")
    reader, writer = await asyncpg.connect(database_url), await asyncpg.connect(database_url)
    async with reader.transaction():
        await reader.fetch("SELECT count(*) FROM audit")
        adding = asyncio.create_task(connection.execute("SELECT add_audit_months()"))
        while not await writer.fetchval("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)"):
            assert not adding.done()
        await writer.execute("SET lock_timeout = '100ms'")
        assert await insert_audit_row(writer, "now()") != "audit_default"
        with pytest.raises(asyncpg.LockNotAvailableError):
            await adding
    assert await connection.fetchval("SELECT add_audit_months()") == 1
    await reader.close()
    await writer.close()


async def test_partitions_are_append_only_and_closed_to_the_serving_role(
    connection: asyncpg.Connection, serving_url: str
) -> None:
    """Triggers refuse changes of each partition by its name, and the serving role has no rights on partitions."""
    await connection.execute("ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO PUBLIC")
    await start_monthly_partitions(connection, 1)
    names = await audit_partitions(connection)
    assert len(names) == 7
    serving = await asyncpg.connect(serving_url)
    await serving.execute("SET patients.erasing = 'yes'")
    for name in names:
        for statement in FORBIDDEN_STATEMENTS:
            with pytest.raises(asyncpg.InsufficientPrivilegeError, match="the audit is append-only"):
                await connection.execute(statement.replace("audit", name))
        row = "(time, principal, method, route, status, resource, ids) VALUES (now(), 'x', 'GET', '/', 200, 'x', '{}')"
        for statement in (f"SELECT 1 FROM {name}", f"INSERT INTO {name} {row}", f"DROP TABLE {name}"):  # noqa: S608
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await serving.execute(statement)
    await serving.close()


class TableTexts(HTMLParser):
    """The texts of a page, including those of its table."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.feed(page)
        self.close()

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append(data.strip())


async def test_access_report_is_a_self_contained_html_page(scoped_clients: ScopedClients, command: Command) -> None:
    """The page has all entries of the route, escaped and without external resources, and printing it is audited."""
    await scoped_clients.a.get(f"{PATIENTS}pat-a/")
    await scoped_clients.b.get(f"{PATIENTS}pat-a/")  # refused
    first = await command("access-report", "pat-a")
    assert first.status == 0
    texts = TableTexts(first.out).texts
    assert texts.count("Viewed the record") == 1
    assert "key:a" in texts
    assert "Printed a report of who has seen or changed the record" in texts
    assert "http" not in first.out
    assert "2 entries" not in first.out
    entries = (await scoped_clients.free.get(f"{PATIENTS}pat-a/access/")).json()
    assert entries[0]["principal"] == "access-report"


@pytest.mark.usefixtures("scoped_clients")
@pytest.mark.parametrize(
    ("settings", "statement"),
    [
        ({}, "The system remembers for 6 years who has seen the record"),
        ({"PATIENTS_AUDIT_DAYS": "400"}, "The system remembers for 400 days who has seen the record"),
        ({"PATIENTS_AUTH": "off"}, "This system does not record who has seen the record without changing it"),
        ({"PATIENTS_AUDIT_READS": "false"}, "This system does not record who has seen the record without changing it"),
    ],
    ids=str,
)
async def test_access_report_says_whether_reads_are_audited(
    settings: dict[str, str], statement: str, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The access report says for how long reads are kept, or that they are not audited."""
    monkeypatch.delenv("PATIENTS_AUTH")
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    page = (await command("access-report", "pat-a")).out
    assert statement in page
    assert page.count("who has seen the record") == 1


@pytest.mark.usefixtures("scoped_clients")
async def test_access_report_covers_deleted_patients_and_refuses_unknown_ids(command: Command) -> None:
    """A deleted patient has a report, and an unknown id is an error."""
    assert "Deleted the record" in TableTexts((await command("access-report", "pat-gone")).out).texts
    for unique_id in ("pat-never", "not an id"):
        never = await command("access-report", unique_id)
        assert (never.status, never.err) == (1, "There is no patient with this unique_id.\n")


@pytest.mark.usefixtures("scoped_clients")
async def test_access_report_escapes_reasons_and_principals(connection: asyncpg.Connection, command: Command) -> None:
    """Reasons and principals, which people typed, are escaped."""
    await connection.execute(
        "INSERT INTO audit (principal, method, route, status, resource, ids, reason) VALUES"
        " ('key:<x>', 'GET', '/patients/patients/{unique_id}/', 200, 'patients', ARRAY['pat-a'], '<b>fell & broke</b>')"
    )
    page = (await command("access-report", "pat-a")).out
    assert "<b>" not in page
    assert "Reason given: <b>fell & broke</b>" in TableTexts(page).texts
    assert "key:<x>" in TableTexts(page).texts


async def test_erasure_replaces_the_id_in_the_audit(
    scoped_clients: ScopedClients, command: Command, connection: asyncpg.Connection
) -> None:
    """An erasure keeps the accesses in the audit, but replaces the patient's id."""
    await scoped_clients.a.get(f"{PATIENTS}pat-a/")
    await scoped_clients.a.get(PATIENTS)
    assert (await command("erase", "patient", "pat-a", "--reason", "asked for it", "--yes")).status == 0
    rows = await connection.fetch("SELECT ids, reason FROM audit WHERE principal = 'key:a' ORDER BY id")
    token = rows[0]["ids"][0]
    assert token.startswith("erased_")
    assert [row["ids"] for row in rows] == [[token], [token, "pat-shared"]]


async def test_service_start_and_migrate_add_months(
    connection: asyncpg.Connection, database_url: str, serving_url: str, command: Command
) -> None:
    """A service that starts as the serving role and `migrate` both add missing months, and so does an hourly task."""
    await start_monthly_partitions(connection, 1)
    complete = await audit_partitions(connection)
    for url in (serving_url, None):
        await connection.execute(f"DROP TABLE {complete[-3]}, {complete[-4]}")
        if url is None:
            assert (await command("migrate", url=database_url)).status == 0
        else:
            async with secured_app(url):
                pass
        assert await audit_partitions(connection) == complete
    assert add_months in BACKGROUND_TASKS


async def test_erasure_replaces_the_id_in_every_audit_partition(
    connection: asyncpg.Connection, command: Command
) -> None:
    """An erasure replaces the id by a token in old months, in the current one, and where no month has a partition."""
    await start_monthly_partitions(connection, 3)
    assert (await command("migrate")).status == 0
    await connection.execute(
        "INSERT INTO journal (resource, unique_id, version, action, actor, record)"
        " VALUES ('patients', 'pat123', 1, 'created', 'me', '{}'), ('patients', 'pat123', 2, 'deleted', 'me', NULL)"
    )
    used_partitions = {
        await insert_audit_row(connection, MONTH_START_SQL.format(months)) for months in (9, 2, 0, -2, -30)
    }
    assert len(used_partitions) == 5
    done = await command("erase", "patient", "pat123", "--yes", "--reason", "asked for")
    assert done.status == 0, done.err
    assert await connection.fetchval("SELECT count(*) FROM audit WHERE 'pat123' = ANY (ids)") == 0
    assert await connection.fetchval("SELECT count(*) FROM audit WHERE ids[1] LIKE 'erased%'") >= 5
