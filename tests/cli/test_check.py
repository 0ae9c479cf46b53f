"""`patients-api check`: a line for each part, what to do if it fails, and no secrets."""

import asyncio
import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from tests.auth.issuer import DISCOVERY_PATH, JWKS_PATH, Issuer, run_issuer
from tests.processes import free_port, run_cli

PASSWORD = "hunter2"  # noqa: S105  # a password that must appear nowhere


def check(**environment: str) -> tuple[int, dict[str, tuple[str, str]]]:
    """Run the command and return its exit status, and the status and explanation of each check by name."""
    result = run_cli("check", "--json", **environment)
    assert result.stderr == ""
    assert PASSWORD not in result.stdout
    checks: list[dict[str, Any]] = json.loads(result.stdout)
    return result.returncode, {check["name"]: (check["status"], check["explanation"]) for check in checks}


async def test_every_part_is_checked(database_url: str) -> None:
    """With a migrated database and an identity provider that responds, nothing fails and the exit status is 0."""
    issuer = Issuer()
    with run_issuer(issuer):
        environment = {"PATIENTS_OIDC_ISSUER": issuer.url, "PATIENTS_OIDC_AUDIENCE": "patients-api"}
        result = await asyncio.to_thread(run_cli, "check", DATABASE_URL=database_url, **environment)
    assert (result.returncode, result.stderr) == (0, "")
    assert [(line[:10].strip(), line[10:29].strip()) for line in result.stdout.splitlines()] == [
        ("ok", "settings"),
        ("not used", "disk"),
        ("ok", "database"),
        ("ok", "PostgreSQL"),
        ("ok", "schema"),
        ("ok", "role"),
        ("ok", "clock"),
        ("ok", "identity provider"),
    ]
    assert "The database test_" in result.stdout
    assert "owner of the tables" in result.stdout
    assert f"{issuer.url} responds; usable signing keys: 1." in result.stdout


def test_an_unreachable_database_is_explained() -> None:
    """If the database cannot be reached, its line says why, what needs it is left out, and the exit status is 1."""
    status, checks = check(DATABASE_URL=f"postgresql://someone:{PASSWORD}@127.0.0.1:1/clinic")
    assert status == 1
    assert checks.keys() == {"settings", "disk", "database", "identity provider"}
    assert checks["database"][0] == "failed"
    assert "(database clinic on 127.0.0.1 port 1, role someone): the connection was refused" in checks["database"][1]


def test_invalid_settings_are_named_without_their_values() -> None:
    """Invalid and unknown variables are named in one line, and nothing else is checked."""
    status, checks = check(PATIENTS_POOL_SIZE=PASSWORD, PATIENTS_PASSWORT=PASSWORD)
    assert (status, list(checks)) == (1, ["settings"])
    assert checks["settings"][0] == "failed"
    messages = checks["settings"][1]
    assert "PATIENTS_PASSWORT: there is no such setting; docs/deploying.md lists all settings; PATIENTS_" in messages


@pytest.mark.parametrize(
    ("data_dir", "status", "expected"),
    [("/proc", "failed", "Only 0.0 GiB are free in /proc"), ("new/data", "ok", "GiB are free in ")],
)
def test_free_space_is_checked(data_dir: str, status: str, expected: str, tmp_path: Path) -> None:
    """The disk of the embedded database needs free space, also before there is a database."""
    path = data_dir if Path(data_dir).is_absolute() else str(tmp_path / data_dir)
    exit_status, checks = check(PATIENTS_DATA_DIR=path)
    assert exit_status == (1 if status == "failed" else 0)
    assert checks["disk"][0] == status
    assert expected in checks["disk"][1]
    assert checks["database"] == ("not used", f"`patients-api serve` creates the embedded database in {path}.")


async def test_the_schema_is_compared_with_this_version(database_url: str, connection: asyncpg.Connection) -> None:
    """An outdated or incomplete schema, none, and another project's fail with a remedy; a newer schema is accepted."""
    newest = await connection.fetchval("SELECT version_num FROM alembic_version")
    for statement, exit_status, expected in (
        ("DROP TABLE api_keys", 1, f"Tables that revision {newest} has are missing (api_keys): restore the database"),
        ("UPDATE alembic_version SET version_num = '29991231_07'", 0, "Revision 29991231_07 is of a newer version"),
        (
            "UPDATE alembic_version SET version_num = '20261125_01'",
            1,
            f"Revision 20261125_01 of the schema is outdated; this version needs {newest}: run `patients-api migrate`,",
        ),
        (
            "UPDATE alembic_version SET version_num = '1975ea83b712'",  # an id that Alembic generates
            1,
            "Revision 1975ea83b712 in the table alembic_version is not of this service, so another application",
        ),
        ("DROP TABLE alembic_version", 1, "The database was never migrated: run `patients-api migrate`,"),
    ):
        await connection.execute(statement)
        status, checks = await asyncio.to_thread(check, DATABASE_URL=database_url)
        assert status == exit_status
        assert checks["schema"][0] == ("failed" if exit_status else "ok")
        assert checks["schema"][1].startswith(expected)


async def test_a_read_only_database_is_reported(database_url: str, connection: asyncpg.Connection) -> None:
    """A database on which no change can be stored, such as a standby, fails, and commands that write name the cause."""
    name = urlsplit(database_url).path[1:]
    await connection.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    status, checks = await asyncio.to_thread(check, DATABASE_URL=database_url)
    assert (status, checks["database"][0], checks["schema"][0]) == (1, "failed", "ok")
    assert checks["database"][1].startswith(
        "The database is read-only: it is a standby, or default_transaction_read_only"
    )
    arguments = ("keys", "create", "--name", "a", "--scope", "admin")
    result = await asyncio.to_thread(run_cli, *arguments, DATABASE_URL=database_url)
    assert (result.returncode, result.stderr) == (1, f"{checks['database'][1]}\n")
    await connection.execute("UPDATE alembic_version SET version_num = '20261130_04'")
    result = await asyncio.to_thread(run_cli, "migrate", DATABASE_URL=database_url)
    assert (result.returncode, result.stderr) == (1, f"{checks['database'][1]}\n")


async def test_rights_that_a_role_lacks_are_named(database_url: str, connection: asyncpg.Connection) -> None:
    """A role without any right, the serving role, and a serving role that lost one right are distinguished."""
    role = urlsplit(database_url).path[1:] + "_role"
    role_url = urlunsplit(urlsplit(database_url)._replace(netloc=f"{role}@"))
    await connection.execute(f"CREATE ROLE {role} LOGIN")
    try:
        _, checks = await asyncio.to_thread(check, DATABASE_URL=role_url)
        assert checks["schema"] == ("failed", "The role may not read the revision: see the line of the role.")
        assert checks["role"][0] == "failed"
        assert f"run `patients-api migrate --serving-role {role}`." in checks["role"][1]

        migrated = await asyncio.to_thread(run_cli, "migrate", "--serving-role", role, DATABASE_URL=database_url)
        assert migrated.returncode == 0
        status, checks = await asyncio.to_thread(check, DATABASE_URL=role_url)
        assert status == 0
        assert checks["role"] == ("ok", f"{role} has the rights that `serve` needs, and may not migrate.")

        await connection.execute(f"REVOKE UPDATE (last_used) ON api_keys FROM {role}")
        status, checks = await asyncio.to_thread(check, DATABASE_URL=role_url)
        assert status == 1
        assert checks["role"][1].startswith(f"{role} lacks UPDATE (last_used) on api_keys, which `serve` needs")

        await connection.execute("DROP TABLE alembic_version CASCADE")
        _, checks = await asyncio.to_thread(check, DATABASE_URL=role_url)
        assert checks["role"][1].startswith(f"{role} may not create tables: use the DATABASE_URL of the role")
    finally:
        await connection.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


async def test_a_wrong_clock_is_reported(database_url: str, connection: asyncpg.Connection) -> None:
    """If the clock of the database is a minute ahead, the check fails."""
    await connection.execute(
        f"""
        CREATE FUNCTION public.clock_timestamp() RETURNS timestamptz LANGUAGE sql
            AS $$ SELECT pg_catalog.clock_timestamp() + interval '1 minute' $$;
        ALTER DATABASE {urlsplit(database_url).path[1:]} SET search_path = public, pg_catalog;
        """
    )
    status, checks = await asyncio.to_thread(check, DATABASE_URL=database_url)
    assert status == 1
    assert checks["clock"][0] == "failed"
    assert checks["clock"][1].startswith(
        ("The clock of the database is 60.0 s ahead", "The clock of the database is 59.")
    )


@pytest.mark.parametrize(
    ("path", "response", "expected"),
    [
        (DISCOVERY_PATH, (404, {}, None), "the provider responded with 404"),
        (
            DISCOVERY_PATH,
            (200, {}, {"issuer": "https://other.example.org"}),
            "the provider's issuer URL is https://other.example.org",
        ),
        (JWKS_PATH, (200, {}, {"keys": []}), "has no usable signing key"),
        (JWKS_PATH, (200, {}, {}), "its response lacks 'keys'"),
    ],
    ids=["no-discovery", "other-issuer", "no-key", "no-keys"],
)
def test_a_provider_that_cannot_be_used_is_reported(path: str, response: Any, expected: str, tmp_path: Path) -> None:
    """If the provider's keys cannot be fetched, the check names the issuer and the reason."""
    issuer = Issuer(response_overrides={path: response})
    with run_issuer(issuer):
        status, checks = check(
            PATIENTS_DATA_DIR=str(tmp_path), PATIENTS_OIDC_ISSUER=issuer.url, PATIENTS_OIDC_AUDIENCE="patients-api"
        )
    assert status == 1
    assert checks["identity provider"][0] == "failed"
    assert issuer.url in checks["identity provider"][1]
    assert expected in checks["identity provider"][1]


def test_a_provider_that_does_not_run_is_reported(tmp_path: Path) -> None:
    """The reason is in words, without the number of the system's error."""
    status, checks = check(
        PATIENTS_DATA_DIR=str(tmp_path),
        PATIENTS_OIDC_ISSUER=f"http://127.0.0.1:{free_port()}",
        PATIENTS_OIDC_AUDIENCE="patients-api",
    )
    assert status == 1
    assert "cannot be fetched (All connection attempts failed)" in checks["identity provider"][1]
