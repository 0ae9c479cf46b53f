"""A database for each group of clinics, and moving a hospital from one to another, as docs/scaling.md describes."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import asyncpg
import httpx
import pytest

from tests.doc_commands import code_blocks, run_shell_block
from tests.support import ServiceProcess, database_url_for
from tests.test_compose import EXAMPLE_VARIABLES

PATIENTS = "/patients/patients/"
GROUPS = ("north", "south")


@pytest.fixture
async def environment(postgres_url: str) -> AsyncIterator[dict[str, str]]:
    """Return the variables of psql for the tests' server, and drop what the documented commands have created."""
    options = parse_qs(urlsplit(postgres_url).query)
    yield {"PGHOST": options["host"][0], "PGPORT": options["port"][0], "PGUSER": "patients"}
    connection = await asyncpg.connect(database_url_for(postgres_url, "postgres"))
    for group in GROUPS:
        await connection.execute(f"DROP DATABASE IF EXISTS {group} WITH (FORCE)")
        await connection.execute(f"DROP ROLE IF EXISTS {group}_owner, {group}_api")
    await connection.close()


async def create_records(client: httpx.AsyncClient) -> None:
    """Create patients of the hospital that moves, of one that stays, and of both, with a change and a deletion."""
    for unique_id in ("hos123", "hos456"):
        body = {"unique_id": unique_id, "hospital_name": "General [2]"}
        assert (await client.post("/hospitals/hospitals/", json=body)).status_code == 201
    body = {"unique_id": "doc123", "doctor_first_name": "Ann"}
    assert (await client.post("/doctors/doctors/", json=body)).status_code == 201
    links = {"moves": ["hos123"], "both": ["hos123", "hos456"], "stays": ["hos456"], "gone": ["hos123"]}
    for unique_id, hospital_ids in links.items():
        profile = {"unique_id": f"of-{unique_id}", "email": "a@example.com"}
        patient: dict[str, Any] = {"unique_id": unique_id, "patient_last_name": "Doe", "patient_profile": profile}
        patient |= {"hospital_ids": hospital_ids, "doctor_ids": ["doc123"]}
        assert (await client.post(PATIENTS, json=patient)).status_code == 201
    assert (await client.patch(f"{PATIENTS}moves/", json={"patient_town": "Durban"})).status_code == 200
    assert (await client.delete(f"{PATIENTS}gone/")).status_code == 204


async def test_a_hospital_moves_from_one_group_to_another(
    environment: dict[str, str], serve: Callable[..., ServiceProcess], tmp_path: Path
) -> None:
    """The groups share nothing; the hospital's patients move with their dates, and their past stays where it was."""
    create, copy, delete = code_blocks("scaling.md", "A database for each group of clinics")
    created = await asyncio.to_thread(run_shell_block, create, **environment)
    keys = re.findall(r"papi_\S+", created)
    assert len(keys) == len(GROUPS)

    def url(role: str, database: str) -> str:
        host, port = environment["PGHOST"], environment["PGPORT"]
        return f"postgresql://{role}@/{database}?host={host}&port={port}"

    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await asyncpg.connect(url("south_api", "north"))
    served = serve(DATABASE_URL=url("north_api", "north"), PATIENTS_AUTH="required")
    variables = {
        **environment,
        "NORTH_DB": url("north_owner", "north"),
        "SOUTH_DB": url("south_owner", "south"),
        "NORTH": served.url,
        "KEY": keys[0],
    }
    async with httpx.AsyncClient(base_url=served.url, headers={"X-API-Key": keys[0]}) as client:
        foreign = await client.get(PATIENTS, headers={"X-API-Key": keys[1]})
        assert foreign.status_code == 401, "a key of one group is valid in the other"
        await create_records(client)
        await asyncio.to_thread(run_shell_block, f"cd {tmp_path}\n{copy}", **variables)
        await asyncio.to_thread(run_shell_block, f"cd {tmp_path}\n{delete}", **variables)
        listed = [patient["unique_id"] for patient in (await client.get(PATIENTS)).json()]
        assert listed == ["both", "stays"]
        history = (await client.get(f"{PATIENTS}moves/history/")).json()
        assert [entry["action"] for entry in history] == ["deleted", "updated", "created"]
    south = await asyncpg.connect(variables["SOUTH_DB"])
    moved = await south.fetch("SELECT unique_id FROM patients ORDER BY 1")
    assert [row["unique_id"] for row in moved] == ["both", "moves"]
    entries = await south.fetch("SELECT action, actor FROM journal WHERE resource = 'patients'")
    assert {tuple(row) for row in entries} == {("created", "import")}
    await south.close()


def test_the_documented_settings_of_a_group_exist() -> None:
    """`docker-compose.yml` reads every variable of the documented `north.env`."""
    (block,) = code_blocks("scaling.md", "A database for each group of clinics", "ini")
    assert set(re.findall(r"^([A-Z_]+)=", block, re.MULTILINE)) <= set(EXAMPLE_VARIABLES)
