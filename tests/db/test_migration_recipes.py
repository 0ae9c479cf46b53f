"""The recipes in docs/writing-migrations.md: each step passes `make check` and works under write load."""

import asyncio
import re
import textwrap
from collections.abc import Callable
from pathlib import Path

import asyncpg
import httpx
import pytest
from alembic import command as alembic

from migrations import lint
from tests.chaos.load import PATIENTS, Writers
from tests.db.test_lint import HEAD_REVISION, REVISION_TEMPLATE
from tests.processes import run_cli, wait_until_blocked
from tests.support import ServiceProcess

ROOT = Path(__file__).parents[2]
RECIPES_DOC = (ROOT / "docs/writing-migrations.md").read_text()
RECIPE_STEPS = re.findall(r"^```python\n(.*?)^```", RECIPES_DOC, re.DOTALL | re.MULTILINE)
"""The body of `upgrade` in each documented revision: a constraint, its validation, an index, a backfill."""
STEP_MARKERS = ("NOT VALID", "VALIDATE", "INDEX CONCURRENTLY", "DO $$")
"""What the SQL of each step contains."""

UPDATE_PATIENT_STATEMENT = """
    WITH changed AS (
        UPDATE patients SET patient_title = 'Dr.', version = 2 WHERE unique_id = 'pat1'
    )
    INSERT INTO journal (resource, unique_id, version, action, actor, record)
    SELECT resource, unique_id, 2, 'updated', 'somebody', (record::jsonb || '{"patient_title": "Dr."}')::json
    FROM journal WHERE unique_id = 'pat1'
"""


@pytest.fixture
def recipe_revisions(tmp_path: Path) -> Path:
    """Write one revision per step, each following the previous one, and return their directory."""
    before = HEAD_REVISION
    for number, step in enumerate(RECIPE_STEPS, 1):
        # a small batch size, so that the backfill takes several transactions
        upgrade = textwrap.indent(step.replace("LIMIT 1000", "LIMIT 7"), " " * 4).strip()
        name = f"29991231_{number:02}"
        text = REVISION_TEMPLATE.format(revision=name, head=before, upgrade=upgrade)
        (tmp_path / f"{name}_step.py").write_text(text)
        before = name
    return tmp_path


def test_documented_migration_steps_pass_the_linter(recipe_revisions: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The documented steps pass the linter, and they are the ones that this file expects."""
    assert lint.main(recipe_revisions) == 0, capsys.readouterr().out
    directory = lint.script_directory(recipe_revisions)
    later = [script for script in directory.walk_revisions() if script.revision.startswith("2999")]
    written = [lint.upgrade_sql(script, directory) for script in reversed(later)]
    assert [mark in sql for mark, sql in zip(STEP_MARKERS, written, strict=True)] == [True] * len(STEP_MARKERS)


@pytest.mark.crowd
async def test_documented_migration_steps_work_under_write_load(
    serve: Callable[..., ServiceProcess], recipe_revisions: Path, database_url: str, connection: asyncpg.Connection
) -> None:
    """Under write load no request fails, and the check, the index and each record's journal entry are in place."""
    config = lint.alembic_config(recipe_revisions)
    config.attributes["url"] = database_url
    async with Writers(serve(DATABASE_URL=database_url).url, clients=4) as writers:
        await writers.await_acknowledged(60)
        await asyncio.to_thread(alembic.upgrade, config, "heads")
        await writers.await_acknowledged(20)
    assert writers.write_log.statuses.keys() == {200, 201, 204}
    assert await connection.fetchval("SELECT bool_and(convalidated) FROM pg_constraint WHERE contype = 'c'")
    assert await connection.fetchval("SELECT bool_and(indisvalid) FROM pg_index")
    filled = "SELECT count(*) FROM journal WHERE actor = 'migration' AND record ->> 'patient_race' = 'Unknown'"
    assert await connection.fetchval(filled) > 10
    verified = run_cli("journal", "verify", DATABASE_URL=database_url)
    assert verified.returncode == 0, verified.stdout


async def test_a_backfill_applies_after_the_concurrent_change_it_waited_for(
    recipe_revisions: Path, client: httpx.AsyncClient, database_url: str, connection: asyncpg.Connection
) -> None:
    """A record that another transaction is changing gets its value after that change, and both have their entries."""
    for number in range(3):
        body = {"unique_id": f"pat{number}", "patient_last_name": "Doe"}
        assert (await client.post(PATIENTS, json=body)).status_code == 201
    config = lint.alembic_config(recipe_revisions)
    config.attributes["url"] = database_url
    await asyncio.to_thread(alembic.upgrade, config, "29991231_03")
    async with connection.transaction():
        await connection.execute(UPDATE_PATIENT_STATEMENT)
        migrating = asyncio.create_task(asyncio.to_thread(alembic.upgrade, config, "heads"))
        await wait_until_blocked(connection)
    await migrating
    entries = await connection.fetch("SELECT actor, version FROM journal WHERE unique_id = 'pat1' ORDER BY version")
    assert [tuple(entry) for entry in entries] == [("local", 1), ("somebody", 2), ("migration", 3)]
    verified = run_cli("journal", "verify", DATABASE_URL=database_url)
    assert verified.returncode == 0, verified.stdout


async def test_a_backfill_can_clear_a_field(
    client: httpx.AsyncClient, tmp_path: Path, database_url: str, connection: asyncpg.Connection
) -> None:
    """The backfill, adapted as documented, removes a field from records and their newest entries."""
    step = RECIPE_STEPS[-1].replace("= 'Unknown'", "= NULL").replace("patient_race IS NULL", "patient_race IS NOT NULL")
    step = step.replace("|| jsonb_build_object('patient_race', patient_race)", "- 'patient_race'")
    text = REVISION_TEMPLATE.format(
        revision="29991231_01", head=HEAD_REVISION, upgrade=textwrap.indent(step, " " * 4).strip()
    )
    (tmp_path / "29991231_01_empty.py").write_text(text)
    for race in ("Unknown", None):
        await client.post(PATIENTS, json={"patient_last_name": "Doe", "patient_race": race})
    config = lint.alembic_config(tmp_path)
    config.attributes["url"] = database_url
    await asyncio.to_thread(alembic.upgrade, config, "heads")
    assert await connection.fetchval("SELECT array_agg(version ORDER BY version) FROM patients") == [1, 2]
    assert await connection.fetchval("SELECT count(patient_race) FROM patients") == 0
    verified = run_cli("journal", "verify", DATABASE_URL=database_url)
    assert verified.returncode == 0, verified.stdout


async def test_a_backfill_that_is_repeated_changes_nothing(
    recipe_revisions: Path, database_url: str, connection: asyncpg.Connection
) -> None:
    """A backfill that was interrupted can be run again."""
    await connection.execute(
        "INSERT INTO patients (unique_id, patient_last_name) SELECT n, n FROM generate_series(1, 20) n"
    )
    config = lint.alembic_config(recipe_revisions)
    config.attributes["url"] = database_url
    await asyncio.to_thread(alembic.upgrade, config, "heads")
    versions = "SELECT array_agg(version) FROM patients"
    assert await connection.fetchval(versions) == [2] * 20
    await connection.execute("UPDATE alembic_version SET version_num = '29991231_03'")
    await asyncio.to_thread(alembic.upgrade, config, "heads")
    assert await connection.fetchval(versions) == [2] * 20
