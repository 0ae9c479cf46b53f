"""Records of each resource, the ids in a list, and the plan by which PostgreSQL reads a page."""

from typing import Any

import asyncpg
import httpx

from app.main import create_app
from app.settings import Settings
from tests.support import recorded_statements

PATIENTS = "/patients/patients/"
LIST_PATHS = [PATIENTS, "/profiles/profiles/", "/hospitals/hospitals/", "/doctors/doctors/"]


async def insert_records(connection: asyncpg.Connection, count: int) -> list[str]:
    """Insert `count` records of each resource and return their ids in order."""
    await connection.execute(f"""
        CREATE TEMPORARY TABLE ids AS SELECT 'id' || lpad(n::text, 5, '0') AS id FROM generate_series(1, {count}) n;
        INSERT INTO patients (unique_id, patient_last_name) SELECT id, 'Doe' FROM ids;
        INSERT INTO profiles (unique_id) SELECT id FROM ids;
        INSERT INTO hospitals (unique_id, hospital_name) SELECT id, 'General' FROM ids;
        INSERT INTO doctors (unique_id, doctor_first_name) SELECT id, 'Ann' FROM ids;
    """)  # noqa: S608
    return [f"id{number:05}" for number in range(1, count + 1)]


def listed_ids(response: httpx.Response) -> list[str]:
    """Return the ids of a list, which is a bare array."""
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/json"
    return [record["unique_id"] for record in response.json()]


async def explain_page(database_url: str, connection: asyncpg.Connection, method: str, url: str, **options: Any) -> str:
    """Return the plan by which PostgreSQL finds the records of the page that a request asks for."""
    app = create_app(Settings.model_validate({"database_url": database_url, "auth": "off"}))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://patients.test") as client,
    ):
        with recorded_statements() as sent:
            response = await client.request(method, url, **options)
        assert response.status_code == 200, response.text
    ((statement, parameters),) = [each for each in sent if "page AS" in each.text]
    await connection.execute("SET plan_cache_mode = force_custom_plan")
    plan = "\n".join(line for (line,) in await connection.fetch(f"EXPLAIN {statement}", *parameters))
    if "CTE found" in plan:
        return plan.partition("CTE found")[2].partition("CTE page")[0]
    return plan.partition("SubPlan")[0]
