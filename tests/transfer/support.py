"""Running imports and exports as a user does."""

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import httpx

from app.transfer.layout import Layout
from app.transfer.resources import RESOURCES
from tests.fork_server import start_command
from tests.processes import run_cli

PATIENTS = "/patients/patients/"
SAMPLES_DIRECTORY = Path(__file__).parents[2] / "docs" / "samples"
CSV_COLUMNS = Layout(RESOURCES["patients"].service_class.repository_class).columns

CompletedCommand = subprocess.CompletedProcess[str]


async def run_cli_on(url: str, *arguments: object, stdin: str | None = None) -> CompletedCommand:
    """Run `patients-api` on a database."""
    texts = [str(argument) for argument in arguments]
    return await asyncio.to_thread(run_cli, *texts, stdin_text=stdin, DATABASE_URL=url)


async def run_import(url: str, *arguments: object, stdin: str | None = None) -> CompletedCommand:
    """Run an import that must succeed."""
    run = await run_cli_on(url, "import", *arguments, stdin=stdin)
    assert run.returncode == 0, run.stdout + run.stderr
    return run


def ndjson(records: Iterable[Mapping[str, Any]]) -> str:
    return "".join(f"{json.dumps(record)}\n" for record in records)


def patient_bodies(count: int, **more: Any) -> list[dict[str, Any]]:
    """Return the bodies of `count` patients with the ids `pat0` and so on."""
    return [{"unique_id": f"pat{place}", "patient_last_name": f"Doe {place}", **more} for place in range(count)]


async def list_patients(client: httpx.AsyncClient) -> Sequence[dict[str, Any]]:
    """Return all patients as the list shows them."""
    response = await client.get(PATIENTS)
    assert response.status_code == 200
    listed: list[dict[str, Any]] = response.json()
    return listed


async def get_patient(client: httpx.AsyncClient, unique_id: str) -> dict[str, Any]:
    response = await client.get(f"{PATIENTS}{unique_id}/")
    assert response.status_code == 200, unique_id
    found: dict[str, Any] = response.json()
    return found


@contextmanager
def cli_process(
    *arguments: str,
    url: str,
    stderr: int = subprocess.DEVNULL,
    stdin: int | None = None,
    environment: Mapping[str, str] | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run `patients-api` in the background with pipes to it."""
    with start_command(
        *arguments,
        env={**(environment or {}), "DATABASE_URL": url},
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=stderr,
    ) as process:
        yield process


@asynccontextmanager
async def reading_transaction(url: str) -> AsyncIterator[None]:
    """Read the patients in a transaction that stays open, as pg_dump does, so that no first import can end."""
    connection = await asyncpg.connect(url)
    async with connection.transaction():
        await connection.execute("SELECT FROM patients")
        yield
    await connection.close()
