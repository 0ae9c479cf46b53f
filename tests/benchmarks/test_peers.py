"""What `make bench` measures the service against: its peers return and store the same, so that the times compare."""

import asyncio
import importlib.util
import json
import os
import subprocess
import sys

import asyncpg
import httpx
import pytest

from benchmarks.load import load_register
from benchmarks.operations import operations_on
from benchmarks.peers.limit import statements
from tests.support import EXAMPLE_PATIENT

PATIENTS = "/patients/patients/"
PRINT_WITH_DJANGO = """
import django

django.setup()
from rest_framework.renderers import JSONRenderer

from benchmarks.peers.drf.models import Patient
from benchmarks.peers.drf.serializers import PatientSerializer

print(JSONRenderer().render(PatientSerializer(Patient.objects.all(), many=True).data).decode())
"""


async def read(client: httpx.AsyncClient, unique_id: str) -> str:
    """Return a patient as the service does, as text, because the order of the keys counts."""
    response = await client.get(f"{PATIENTS}{unique_id}/")
    assert response.status_code == 200
    return json.dumps(response.json())


async def fetch(connection: asyncpg.Connection, statement: str, *parameters: str) -> str:
    """Return the document of one of the limit's statements in the form of `read`."""
    return json.dumps(json.loads(await connection.fetchval(statement, *parameters)))


@pytest.mark.usefixtures("hospitals_and_doctors")
async def test_the_limit_returns_and_stores_what_the_service_does(
    client: httpx.AsyncClient, connection: asyncpg.Connection
) -> None:
    """The limit's statements read, create and change patients like the service, which can change them afterwards."""
    posted = await client.post(PATIENTS, json={**EXAMPLE_PATIENT, "unique_id": "posted"})
    assert await fetch(connection, statements.SELECT_PATIENT, "posted") == json.dumps(posted.json())
    body = json.dumps({**EXAMPLE_PATIENT, "patient_profile": {"unique_id": "other", "email": "a@example.com"}})
    assert await fetch(connection, statements.INSERT_PATIENT, "inserted", body) == await read(client, "inserted")
    change = json.dumps({"patient_race": "African", "hospital_ids": ["hos789"]})
    changed = await fetch(connection, statements.UPDATE_PATIENT, "posted", change)
    assert changed == await read(client, "posted")
    assert json.loads(changed)["patient_race"] == "African"
    again = await client.put(f"{PATIENTS}posted/", json={"patient_race": "Other"})
    assert again.status_code == 200, "the journal of the patient has a gap"


async def test_all_sides_show_the_register_alike(
    client: httpx.AsyncClient, database_url: str, connection: asyncpg.Connection
) -> None:
    """The service, the limit and, if it is installed, Django show the same register, also what a benchmark creates."""
    await load_register(database_url, 20)
    operations = {operation.name: operation for operation in await asyncio.to_thread(operations_on, database_url, None)}
    body = json.loads(operations["create"].bodies[0])
    assert body.keys() == EXAMPLE_PATIENT.keys()
    assert (await client.post(PATIENTS, json=body)).status_code == 201
    everyone = (await client.get(PATIENTS)).json()
    assert len(everyone) == 21
    patients = json.dumps(everyone)
    assert await fetch(connection, statements.select_page(100), "") == patients
    if importlib.util.find_spec("rest_framework") is not None:
        shown = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-c", PRINT_WITH_DJANGO],
            env={**os.environ, "DATABASE_URL": database_url, "DJANGO_SETTINGS_MODULE": "benchmarks.peers.drf.settings"},
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert shown.returncode == 0, shown.stderr
        assert json.dumps(json.loads(shown.stdout)) == patients
