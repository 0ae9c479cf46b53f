"""`patients-api restore-check`: a complete dump passes; one that is cut, altered or not ours fails."""

import asyncio
import subprocess
from pathlib import Path

import asyncpg
import httpx
import pytest

from tests.doc_commands import postgres_bin_directory
from tests.processes import run_cli
from tests.support import database_url_for


def run_program(name: str, *arguments: str) -> None:
    """Run a program of PostgreSQL, and fail if it fails."""
    subprocess.run([postgres_bin_directory() / name, *arguments], check=True, capture_output=True)


async def dump(url: str, path: Path) -> None:
    """Dump a database as docs/operations.md does."""
    arguments = ["--format", "custom", "--file", str(path), url]
    await asyncio.to_thread(run_program, "pg_dump", *arguments)


@pytest.mark.usefixtures("hospitals_and_doctors")
async def test_only_a_complete_and_unaltered_dump_passes(
    database_url: str, connection: asyncpg.Connection, client: httpx.AsyncClient, tmp_path: Path
) -> None:
    """A dump passes with its rows and its newest time; cut at 60 %, or with an altered record, it fails."""
    response = await client.post("/patients/patients/", json={"patient_last_name": "M4rker"})
    assert response.status_code == 201
    # the rows have to be most of the dump, so that the cut leaves its table of contents complete
    await connection.execute(
        """
        INSERT INTO audit (principal, method, route, status, resource, ids)
        SELECT sha512(n::text::bytea)::text, 'GET', '/', 200, 'patients', '{}' FROM generate_series(1, 5000) AS n
        """
    )
    complete, cut, altered = (tmp_path / f"{name}.dump" for name in ("complete", "cut", "altered"))
    await dump(database_url, complete)
    cut.write_bytes(complete.read_bytes()[: complete.stat().st_size * 6 // 10])
    # fails if the cut is in the table of contents, where it is easy to find
    await asyncio.to_thread(run_program, "pg_restore", "--list", str(cut))

    result = await asyncio.to_thread(run_cli, "restore-check", str(complete))
    assert (result.returncode, result.stderr) == (0, "")
    newest_time = await connection.fetchval("SELECT max(time) FROM journal")
    lines = result.stdout.splitlines()
    assert lines[0].startswith("Restored in ")
    assert lines[1].startswith("Schema: revision ")
    assert lines[1].endswith(", the newest of this version.")
    assert "audit 5,0" in lines[2]
    assert "hospitals 3" in lines[2]
    assert lines[3] == f"Newest journal entry: {newest_time.isoformat()}."
    assert "patients: 1 record, 1 entry" in lines
    assert "Every record matches its newest entry. No entry was changed, added or removed in between." in lines
    assert "M4rker" not in result.stdout

    result = await asyncio.to_thread(run_cli, "restore-check", str(cut))
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith("The dump cannot be restored (could not read from input file: end of file)")

    await connection.execute("UPDATE hospitals SET hospital_name = 'X' WHERE unique_id = 'hos456'")
    await dump(database_url, altered)
    result = await asyncio.to_thread(run_cli, "restore-check", str(altered))
    assert result.returncode == 1
    assert "The journal does not match the records, or is inconsistent." in result.stdout


async def test_a_dump_of_another_service_is_refused(
    database_url: str, connection: asyncpg.Connection, tmp_path: Path
) -> None:
    """A dump without tables of ours, of another project that uses Alembic, or of some tables only, is refused."""
    await dump(database_url_for(database_url, "postgres"), tmp_path / "empty.dump")
    await connection.execute("DROP TABLE api_keys")
    await dump(database_url, tmp_path / "partial.dump")
    await connection.execute("UPDATE alembic_version SET version_num = '1975ea83b712'")
    await dump(database_url, tmp_path / "other.dump")
    for name, expected in (
        ("empty", "The dump is not of this service: it has no table alembic_version.\n"),
        ("other", "The dump is not of this service: its table alembic_version has 1975ea83b712.\n"),
        ("partial", "The dump is not of a whole database: it lacks the tables api_keys. "),
    ):
        result = await asyncio.to_thread(run_cli, "restore-check", str(tmp_path / f"{name}.dump"))
        assert result.returncode == 1
        assert result.stderr.startswith(expected)
