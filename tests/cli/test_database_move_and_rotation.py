"""Moving from the embedded database to a server and rotating its credentials, as docs/operations.md describes."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import httpx
import pytest

from tests.doc_commands import code_blocks, run_shell_block
from tests.processes import data_directory
from tests.support import ServiceProcess, database_url_for

Serve = Callable[..., ServiceProcess]
PATIENT_PATH = "/patients/patients/pat123/"


def url_for_role(url: str, role: str) -> str:
    """Return the URL of a database for another role."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"{role}@{parts.netloc.rpartition('@')[2]}"))


@pytest.fixture
async def target_url(postgres_url: str) -> AsyncIterator[str]:
    """Return the URL of an empty database for its owner, a role with CREATEROLE only; `patients_api` exists too."""
    name = f"moved_{secrets.token_hex(4)}"
    connection = await asyncpg.connect(database_url_for(postgres_url, "postgres"))
    await connection.execute(f"CREATE ROLE {name} LOGIN CREATEROLE")
    await connection.execute(f"CREATE DATABASE {name} OWNER {name} TEMPLATE template0")
    await connection.execute("CREATE ROLE patients_api LOGIN")
    yield url_for_role(database_url_for(postgres_url, name), name)
    await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await connection.execute(f"DROP ROLE IF EXISTS patients_api, patients_api_2, {name}")
    await connection.close()


async def test_moving_from_the_embedded_database_keeps_everything(
    serve: Serve, target_url: str, tmp_path: Path
) -> None:
    """Records, ETags and histories survive the move, requests need a key, and the serving role has only its rights."""
    dump, first_key = code_blocks("operations.md", "Moving from `.data` to a server")
    _, restore, check = code_blocks("operations.md", "Dumps")
    with data_directory() as directory:
        laptop = serve("--demo", PATIENTS_DATA_DIR=str(directory / ".data"))
        async with httpx.AsyncClient(base_url=laptop.url) as client:
            await client.put(PATIENT_PATH, json={"patient_race": "Changed"})
            before = [
                await client.get(path) for path in (PATIENT_PATH, f"{PATIENT_PATH}history/", "/patients/patients/")
            ]
        await asyncio.to_thread(run_shell_block, f"cd {directory}\n{dump}", BACKUPS=tmp_path)
    environment = {"NEW_URL": target_url, "BACKUPS": str(tmp_path)}
    for block in (check, restore):
        assert "matches its newest entry" in await asyncio.to_thread(run_shell_block, block, **environment)
    key = (await asyncio.to_thread(run_shell_block, first_key, **environment)).strip()
    service = serve(DATABASE_URL=url_for_role(target_url, "patients_api"), PATIENTS_AUTH="required")
    async with httpx.AsyncClient(base_url=service.url) as client:
        assert (await client.get(PATIENT_PATH)).status_code == 401
        client.headers["X-API-Key"] = key
        after = [await client.get(path) for path in (PATIENT_PATH, f"{PATIENT_PATH}history/", "/patients/patients/")]
        assert [response.content for response in after] == [response.content for response in before]
        changed = await client.put(
            PATIENT_PATH, json={"patient_race": "Again"}, headers={"If-Match": before[0].headers["ETag"]}
        )
        assert changed.status_code == 200
    connection = await asyncpg.connect(url_for_role(target_url, "patients_api"))
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await connection.execute("DELETE FROM journal")
    await connection.close()


@pytest.fixture
async def migrated_url(target_url: str) -> str:
    """Return the owner's URL of a migrated database that `patients_api` serves."""
    await asyncio.to_thread(
        run_shell_block, "patients-api migrate --serving-role patients_api", DATABASE_URL=target_url
    )
    return target_url


async def test_api_key_is_rotated(migrated_url: str) -> None:
    """During a rotation both keys exist side by side until the old one is revoked."""
    (block,) = code_blocks("operations.md", "API keys")
    create = "patients-api keys create --name front-desk --scope patients:read\n"
    written = await asyncio.to_thread(run_shell_block, create + block, DATABASE_URL=migrated_url)
    assert written.count("papi_") == 2
    assert "front-desk-2" in written
    assert written.endswith("Revoked.\n")
    listed = (
        await asyncio.to_thread(run_shell_block, "patients-api keys list", DATABASE_URL=migrated_url)
    ).splitlines()
    assert {line.split()[0]: "REVOKED" in line for line in listed[1:]} == {"front-desk": True, "front-desk-2": False}


async def test_serving_role_is_replaced_without_downtime(serve: Serve, migrated_url: str, postgres_url: str) -> None:
    """Both roles serve side by side, and the second keeps serving after the first was dropped."""
    new_role, drop = code_blocks("operations.md", "The serving role")
    urls = {
        "DATABASE_URL": migrated_url,
        "ADMIN_URL": database_url_for(postgres_url, urlsplit(migrated_url).path.strip("/")),
    }
    first = serve(DATABASE_URL=url_for_role(migrated_url, "patients_api"))
    await asyncio.to_thread(run_shell_block, new_role, **urls)
    second = serve(DATABASE_URL=url_for_role(migrated_url, "patients_api_2"))
    async with httpx.AsyncClient() as client:
        for service in (first, second):
            created = await client.post(f"{service.url}/patients/patients/", json={"patient_last_name": "Doe"})
            assert created.status_code == 201
        first.process.terminate()
        assert await asyncio.to_thread(first.process.wait, 30) == 0
        await asyncio.to_thread(run_shell_block, drop, **urls)
        patients = (await client.get(f"{second.url}/patients/patients/")).json()
        assert len(patients) == 2
        created = await client.post(f"{second.url}/patients/patients/", json={"patient_last_name": "Doe"})
        assert created.status_code == 201


async def test_changing_the_cursor_key_invalidates_old_cursors(serve: Serve, migrated_url: str) -> None:
    """After the cursor key was changed and the process restarted, old cursors are refused and new ones work."""
    (change,) = code_blocks("operations.md", "The cursor key")
    before = serve(DATABASE_URL=migrated_url)
    async with httpx.AsyncClient() as client:
        for _ in range(3):
            await client.post(f"{before.url}/patients/patients/", json={"patient_last_name": "Doe"})
        old = await second_page_path(client, before.url)
        await asyncio.to_thread(run_shell_block, change, DATABASE_URL=migrated_url)
        assert (await client.get(f"{before.url}{old}")).status_code == 200
        after = serve(DATABASE_URL=migrated_url)
        assert (await client.get(f"{after.url}{old}")).status_code == 422
        new = await second_page_path(client, after.url)
        assert new != old
        assert (await client.get(f"{after.url}{new}")).status_code == 200


async def second_page_path(client: httpx.AsyncClient, url: str) -> str:
    """Return the path of a list's second page."""
    response = await client.get(f"{url}/patients/patients/?limit=1")
    return str(response.links["next"]["url"])
