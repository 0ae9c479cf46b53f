"""Migrations on a real server: they create the schema of the models, can be undone, and keep the rows."""

import asyncio
import os
import re
import secrets
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from alembic import command
from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory
from sqlalchemy import text

import migrations
from app.db.base import Base
from app.db.migrate import create_engine, migrate
from app.db.schema_version import REVISIONS as KNOWN_REVISIONS
from tests.processes import wait_until_migrators_queue
from tests.support import database_url_for

SCRIPTS = ScriptDirectory(str(Path(migrations.__file__).parent))
REVISIONS = [script.revision for script in SCRIPTS.walk_revisions()]
"""All revisions, the newest first."""
ADVISORY_LOCK = 0x70617469656E7473
"""The lock that all versions of the service share, so it never changes."""

SELECT_COLUMNS = """
    SELECT format('%s.%s', t.relname, a.attname), format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attgenerated,
        c.collname, pg_get_expr(d.adbin, d.adrelid)
    FROM pg_attribute a
    JOIN pg_class t ON t.oid = a.attrelid
    LEFT JOIN pg_collation c ON c.oid = a.attcollation
    LEFT JOIN pg_attrdef d ON d.adrelid = t.oid AND d.adnum = a.attnum
    WHERE t.relnamespace = 'public'::regnamespace AND t.relkind IN ('r', 'p') AND NOT t.relispartition
        AND t.relname <> 'alembic_version'
        AND a.attnum > 0 AND NOT a.attisdropped
"""
SELECT_CONSTRAINTS = """
    SELECT conname, conrelid::regclass::text, contype, pg_get_constraintdef(oid)
    FROM pg_constraint
    WHERE connamespace = 'public'::regnamespace AND conrelid <> 0 AND contype <> 'n'
        AND conrelid IS DISTINCT FROM to_regclass('alembic_version')
        AND NOT EXISTS (SELECT FROM pg_class WHERE oid = conrelid AND relispartition)
"""
SELECT_INDEXES = """
    SELECT indexname, tablename, indexdef FROM pg_indexes
    WHERE schemaname = 'public' AND tablename <> 'alembic_version'
        AND NOT EXISTS (SELECT FROM pg_class WHERE oid = CAST(tablename AS regclass) AND relispartition)
"""
"""Indexes, except those of partitions, which follow from their tables and have names chosen by PostgreSQL."""
INSERT_ROWS = (
    "INSERT INTO hospitals (unique_id, hospital_name) SELECT 'hos' || n, 'Hospital ' || n FROM generate_series(1, 9) n",
    "INSERT INTO doctors (unique_id, doctor_first_name) SELECT 'doc' || n, 'Zoë ' || n FROM generate_series(1, 9) n",
    "INSERT INTO profiles (unique_id, email) SELECT 'prof' || n, n || '@example.com' FROM generate_series(1, 100) n",
    """
    INSERT INTO patients (unique_id, profile_id, patient_last_name, patient_mobile_number, patient_latitude, version)
    SELECT 'pat' || n, 'prof' || n % 100 + 1, 'Müller ' || n, '+27 82 ' || 1000 + n, n / 100.0, n
    FROM generate_series(1, 1000) n
    """,
    "INSERT INTO patient_hospitals SELECT 'pat' || n, 'hos' || n % 9 + 1 FROM generate_series(1, 1000) n",
    "INSERT INTO patient_doctors SELECT 'pat' || n, 'doc' || n % 7 + 1 FROM generate_series(1, 1000) n",
    "INSERT INTO journal (resource, unique_id, version, action, actor) VALUES ('patients', 'pat0', 2, 'deleted', 'me')",
    """
    INSERT INTO audit (time, principal, method, route, status, resource, ids)
    SELECT now() - n * interval '1 day', 'key:me', 'GET', '/', 200, 'patients', ARRAY['pat' || n, 'pat1']
    FROM generate_series(0, 500) n
    """,
)
Row = dict[str, Any]


def alembic_config(url: str) -> Config:
    config = Config()
    config.set_main_option("script_location", SCRIPTS.dir)
    config.attributes["url"] = url
    return config


async def run_alembic(alembic_command: Callable[..., Any], url: str, *arguments: str) -> None:
    """Run an Alembic command in a thread, because its environment starts an event loop."""
    await asyncio.to_thread(alembic_command, alembic_config(url), *arguments)


@pytest.fixture
async def empty_url(postgres_url: str) -> AsyncIterator[str]:
    """Return the URL of a database without tables."""
    name = f"empty_{secrets.token_hex(4)}"
    connection = await asyncpg.connect(database_url_for(postgres_url, "postgres"))
    await connection.execute(f"CREATE DATABASE {name} TEMPLATE template0")
    yield database_url_for(postgres_url, name)
    await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await connection.close()


async def describe_schema(url: str) -> dict[str, set[tuple[Any, ...]]]:
    """Return the columns, constraints and indexes of a database, as PostgreSQL describes them."""
    connection = await asyncpg.connect(url)
    try:
        described = {}
        for kind, query in {
            "columns": SELECT_COLUMNS,
            "constraints": SELECT_CONSTRAINTS,
            "indexes": SELECT_INDEXES,
        }.items():
            rows = await connection.fetch(query)
            described[kind] = {tuple(row) for row in rows}
        return described
    finally:
        await connection.close()


async def function_definitions(url: str) -> list[str]:
    """Return the statements that create the functions of `public`. A function comes after those that its body calls."""
    connection = await asyncpg.connect(url)
    try:
        rows = await connection.fetch(
            """
            WITH function AS (SELECT * FROM pg_proc WHERE pronamespace = 'public'::regnamespace)
            SELECT pg_get_functiondef(oid) FROM function
            ORDER BY EXISTS (
                SELECT FROM pg_depend
                WHERE objid = function.oid AND refobjid <> objid AND refobjid IN (SELECT oid FROM function)
            ), oid
            """
        )
        return [definition for (definition,) in rows]
    finally:
        await connection.close()


async def all_rows(connection: asyncpg.Connection) -> dict[str, list[Row]]:
    """Return all rows of all tables, each table ordered by its key."""
    tables = [
        row[0]
        for row in await connection.fetch("SELECT DISTINCT tablename FROM pg_indexes WHERE schemaname = 'public'")
    ]
    return {
        table: sorted(map(dict, await connection.fetch(f"SELECT * FROM {table}")), key=_sort_key)  # noqa: S608
        for table in tables
        if table != "alembic_version"
    }


def _sort_key(row: Row) -> list[Any]:
    return list(row.values())[:2]


def with_columns_of(rows: list[Row], other_rows: list[Row]) -> list[Row]:
    """Return `rows` with only the columns that `other_rows` have too."""
    column_names = other_rows[0].keys() if other_rows else ()
    return [{name: value for name, value in row.items() if name in column_names} for row in rows]


async def test_models_and_migrations_agree(database_url: str) -> None:
    """Alembic finds no difference between models and migrations."""
    await run_alembic(command.check, database_url)


async def test_migrations_create_the_schema_of_the_models(database_url: str, empty_url: str) -> None:
    """CHECKs, collations, defaults and names, which Alembic does not compare, are those of the models."""
    engine = create_engine(empty_url)
    async with engine.begin() as connection:
        # only the migrations create the functions
        await connection.execute(text("CREATE SCHEMA extensions"))
        for extension in ("fuzzystrmatch", "pg_trgm", "unaccent"):
            await connection.execute(text(f"CREATE EXTENSION {extension} SCHEMA extensions"))
        for function in await function_definitions(database_url):
            await connection.exec_driver_sql(function)
        await connection.run_sync(Base.metadata.create_all)
    await engine.dispose()
    migrated, modelled = await describe_schema(database_url), await describe_schema(empty_url)
    assert modelled["columns"], "the comparison below would be empty"
    for kind, described in modelled.items():
        assert migrated[kind] - described == set(), f"{kind} that only the migrations create"
        assert described - migrated[kind] == set(), f"{kind} that only the models have: write a migration"


async def test_all_migrations_can_be_undone_and_redone(empty_url: str, database_url: str) -> None:
    """All migrations can be undone, leave nothing behind, and can be applied again."""
    await run_alembic(command.upgrade, empty_url, "head")
    await run_alembic(command.downgrade, empty_url, "base")
    assert await describe_schema(empty_url) == {"columns": set(), "constraints": set(), "indexes": set()}
    await run_alembic(command.upgrade, empty_url, "head")
    assert await describe_schema(empty_url) == await describe_schema(database_url)


async def test_rows_survive_each_downgrade_and_upgrade(
    database_url: str, connection: asyncpg.Connection, subtests: pytest.Subtests, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A downgrade by one revision and an upgrade back keep all rows, as far as the older schema can hold them.

    The last upgrade is one from the oldest revision to the newest. The oldest revision creates the first tables:
    `test_all_migrations_can_be_undone_and_redone` undoes it.
    """
    # loading all revisions for each of a hundred commands would take longer than running them
    monkeypatch.setattr(ScriptDirectory, "from_config", lambda _: SCRIPTS)
    for statement in INSERT_ROWS:
        await connection.execute(statement)
    head = at_revision = await all_rows(connection)
    assert len(head["patients"]) == 1000
    for revision in REVISIONS[:-1]:
        below = SCRIPTS.get_revision(revision).down_revision
        assert isinstance(below, str)
        await run_alembic(command.downgrade, database_url, below)
        down = await all_rows(connection)
        await run_alembic(command.upgrade, database_url, revision)
        up = await all_rows(connection)
        await run_alembic(command.downgrade, database_url, below)
        down_again = await all_rows(connection)
        with subtests.test(revision=revision):
            assert_same_rows(at_revision, down, f"the downgrade of {revision}")
            assert up.keys() == at_revision.keys()
            assert_same_rows(up, down, f"the upgrade to {revision}")
            assert down_again.keys() == down.keys()
            assert_same_rows(down_again, down, f"the second downgrade of {revision}")
        at_revision = down
    assert len(at_revision["patients"]) == 1000
    await run_alembic(command.upgrade, database_url, "head")
    up = await all_rows(connection)
    assert up.keys() == head.keys()
    assert_same_rows(up, at_revision, "the upgrade of the oldest schema")


def assert_same_rows(newer: dict[str, list[Row]], older: dict[str, list[Row]], change: str) -> None:
    """Check that rows of an older schema are those of a newer one, in the tables and columns that both have."""
    for table in (older.keys() & newer.keys()) - {"stale_words"}:  # a queue, which an upgrade fills
        rows = older[table]
        assert rows == with_columns_of(newer[table], rows), f"{table}: {change} changes rows"


async def test_constraints_are_named_by_the_convention(database_url: str) -> None:
    """Each constraint and index is named after its table and columns, so that migrations can name what they change."""
    described = await describe_schema(database_url)
    wrong = []
    for name, table, kind, definition in described["constraints"]:
        columns = re.findall(r"\w+", definition.partition("(")[2].partition(")")[0])
        expected = {
            b"p": f"pk_{table}$",
            b"u": f"uq_{table}_{'_'.join(columns)}$",
            b"f": f"fk_{table}_{columns[0]}$",
            b"c": f"ck_{table}_",
        }[kind]
        if not re.match(expected, name):
            wrong.append(f"{table}: {name}, expected {expected}")
    for name, table, definition in described["indexes"]:
        columns = re.findall(r"\w+", definition.partition(" WITH ")[0].partition("(")[2])
        # a partial index is named after its condition
        expected = f"ix_{table}_" if " WHERE " in definition else f"ix_{table}_{'_'.join(columns)}$"
        if not re.match(f"pk_|uq_|{expected}", name):
            wrong.append(f"{table}: {name}, expected {expected}")
    assert wrong == []


async def test_every_text_column_declares_its_collation(connection: asyncpg.Connection) -> None:
    """Ids sort by their bytes and people's text by `pg_c_utf8`, whatever the server's locale."""
    collations = {
        (row["table_name"], row["column_name"]): row["collation_name"]
        for row in await connection.fetch(
            "SELECT * FROM information_schema.columns "
            "WHERE table_schema = 'public' AND data_type = 'text' AND table_name <> 'alembic_version'"
        )
    }
    people = {
        (table.name, column.name)
        for table in Base.metadata.tables.values()
        for column in table.columns
        if "max_length" in column.info
    }
    ids = {place for place in collations if place[1].endswith("_id")}
    assert len(ids) > len(people & ids) == 0
    assert {place: collations[place] for place in people} == dict.fromkeys(people, "pg_c_utf8")
    assert {place: collations[place] for place in ids} == dict.fromkeys(ids, "C")
    unnamed = sorted(".".join(place) for place, collation in collations.items() if collation is None)
    assert unnamed == [], 'text without a collation sorts by the server\'s locale: Text(collation="C")'


async def test_concurrent_migrations_of_an_empty_database_succeed(empty_url: str, database_url: str) -> None:
    """If two processes find an empty database, one migrates, the other waits for it, and both succeed."""
    held = await asyncpg.connect(empty_url)
    await held.execute("SELECT pg_advisory_lock($1)", ADVISORY_LOCK)
    environment = {**os.environ, "DATABASE_URL": empty_url}
    replicas = [
        await asyncio.create_subprocess_exec(sys.executable, "-m", "app.cli", "migrate", env=environment)
        for _ in range(2)
    ]
    await wait_until_migrators_queue(held, len(replicas))
    assert [replica.returncode for replica in replicas] == [None, None]
    await held.close()
    assert [await asyncio.wait_for(replica.wait(), 30) for replica in replicas] == [0, 0]
    assert await describe_schema(empty_url) == await describe_schema(database_url)


async def test_a_migration_does_not_wait_long_for_locks(database_url: str) -> None:
    """A revision runs with a `lock_timeout`, because traffic queues behind a migration that waits for a lock."""
    seen: list[str] = []

    def revisions(_: object, context: Any) -> list[Any]:
        seen.append(context.connection.execute(text("SHOW lock_timeout")).scalar_one())
        return []

    with EnvironmentContext(alembic_config(database_url), SCRIPTS, fn=revisions):
        await asyncio.to_thread(SCRIPTS.run_env)
    assert seen == ["5s"]


async def test_migrating_twice_changes_nothing(database_url: str) -> None:
    """Migrating a database at the head revision changes nothing."""
    before = await describe_schema(database_url)
    await asyncio.to_thread(migrate, database_url)
    assert await describe_schema(database_url) == before


def test_known_revisions_are_those_of_alembic() -> None:
    """The revisions that the service knows, and the one it takes for the newest, are Alembic's."""
    assert KNOWN_REVISIONS[::-1] == REVISIONS
    assert KNOWN_REVISIONS[-1] == SCRIPTS.get_current_head()


async def test_functions_of_generated_columns_are_not_inlined(connection: asyncpg.Connection) -> None:
    """PostgreSQL would parse a function in SQL anew for each column and statement, so generated columns use none."""
    in_sql = await connection.fetch(
        """
        SELECT DISTINCT proname FROM pg_attrdef
        JOIN pg_depend ON classid = 'pg_attrdef'::regclass AND objid = pg_attrdef.oid
        JOIN pg_proc ON refclassid = 'pg_proc'::regclass AND refobjid = pg_proc.oid
        JOIN pg_language ON pg_language.oid = prolang
        WHERE lanname = 'sql' AND pronamespace = 'public'::regnamespace
        """
    )
    assert [row["proname"] for row in in_sql] == []
