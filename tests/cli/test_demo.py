"""`patients-api serve --demo`: the contract's examples for anyone who tries out the service."""

import asyncio
import json
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import asyncpg
import httpx

from tests.processes import free_port, running_cli, wait_until_blocked, wait_until_ready
from tests.support import EXAMPLE_PATIENT, GET_EXAMPLE, PUT_EXAMPLE, PUT_RESPONSE, ServiceProcess

PATIENTS = "/patients/patients/"
Serve = Callable[..., ServiceProcess]


async def test_demo_responses_match_the_contracts_examples(
    serve: Serve, database_url: str, connection: asyncpg.Connection
) -> None:
    """With --demo the contract's example requests get the responses it prints; starting so again changes nothing."""
    changed_patient: dict[str, Any] = {}
    for changed in (False, True):
        served = serve("--demo", DATABASE_URL=database_url)
        async with httpx.AsyncClient(base_url=served.url) as client:
            shown = (await client.get(f"{PATIENTS}pat123/")).json()
            everybody = (await client.get(PATIENTS)).json()
            assert len(everybody) > 20
            assert shown in everybody
            if changed:
                assert shown == changed_patient
                break
            assert json.dumps(shown) == json.dumps(GET_EXAMPLE), "keys, order and values"
            changed_patient = (await client.put(f"{PATIENTS}pat123/", json=PUT_EXAMPLE)).json()
            assert list(changed_patient.items()) == list(
                (PUT_RESPONSE | {"last_updated": changed_patient["last_updated"]}).items()
            )
            assert changed_patient["last_updated"] > GET_EXAMPLE["last_updated"]
            posted = await client.post(PATIENTS, json=EXAMPLE_PATIENT)
            assert posted.status_code == 201
            own = {key: posted.json()[key] for key in ("unique_id", "patient_hospital", "date_created", "last_updated")}
            assert [hospital["unique_id"] for hospital in own["patient_hospital"]] == ["hos123", "hos456"]
            assert list(posted.json().items()) == list((GET_EXAMPLE | own).items())
        served.process.terminate()
        served.process.wait(20)
    assert await connection.fetchval("SELECT count(*) FROM patients") == len(everybody)


async def test_demo_leaves_a_database_with_patients_alone(
    serve: Serve, database_url: str, connection: asyncpg.Connection
) -> None:
    """--demo adds nothing to a database that has a patient."""
    await connection.execute("INSERT INTO patients (unique_id, patient_last_name) VALUES ('mine', 'Doe')")
    serve("--demo", DATABASE_URL=database_url)
    assert [row["unique_id"] for row in await connection.fetch("SELECT unique_id FROM patients")] == ["mine"]
    assert await connection.fetch("SELECT FROM hospitals UNION ALL SELECT FROM doctors") == []


async def test_demo_starts_after_all_its_patients_were_deleted(
    serve: Serve, database_url: str, connection: asyncpg.Connection
) -> None:
    """After all demo patients were deleted one by one, the service still starts with --demo."""
    served = serve("--demo", DATABASE_URL=database_url)
    async with httpx.AsyncClient(base_url=served.url) as client:
        for patient in (await client.get(PATIENTS)).json():
            assert (await client.delete(f"{PATIENTS}{patient['unique_id']}/")).status_code == 204
    assert await connection.fetchval("SELECT count(*) FROM patients") == 0
    serve("--demo", DATABASE_URL=database_url)


async def test_two_replicas_with_demo_fill_an_empty_database_once(
    database_url: str, connection: asyncpg.Connection
) -> None:
    """If two replicas start with --demo on an empty database, both serve and the demo data are inserted once."""
    with ExitStack() as stack:
        ports = [free_port(), free_port()]
        async with connection.transaction():
            await connection.execute("LOCK TABLE hospitals IN SHARE MODE")  # both have seen that it is empty
            both = [
                stack.enter_context(running_cli("serve", "--demo", "--port", str(port), DATABASE_URL=database_url))
                for port in ports
            ]
            await wait_until_blocked(connection, session_count=2)
        for port, process in zip(ports, both, strict=True):
            await asyncio.to_thread(wait_until_ready, process, f"http://127.0.0.1:{port}")
    assert await connection.fetchval("SELECT count(*) FROM patients WHERE unique_id = 'pat123'") == 1
