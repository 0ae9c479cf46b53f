"""Each filter uses an index."""

import re
from collections.abc import AsyncIterator

import asyncpg
import httpx
import pytest

from app.main import create_app
from app.settings import Settings
from tests.listing.test_filters_and_cursors import MATCHING_VALUES, SEARCH
from tests.support import recorded_statements


@pytest.fixture(scope="module")
async def patients_connection(module_database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """Yield a connection to a database of 3,000 patients."""
    connection = await asyncpg.connect(module_database_url)
    await connection.execute(
        "INSERT INTO patients (unique_id, patient_last_name, patient_town) "
        "SELECT 'p' || n, 'Dube ' || n, 'Town ' || n FROM generate_series(1, 3000) n"
    )
    await connection.execute("ANALYZE patients")
    yield connection
    await connection.close()


@pytest.mark.parametrize("name", sorted(MATCHING_VALUES))
async def test_each_filter_uses_an_index(
    name: str, module_database_url: str, patients_connection: asyncpg.Connection
) -> None:
    """Each filter uses an index; with a collation or function that it lacks, PostgreSQL would read every patient."""
    app = create_app(Settings.model_validate({"database_url": module_database_url, "auth": "off"}))
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://patients.test") as client,
    ):
        with recorded_statements() as sent:
            assert (await client.post(SEARCH, json={name: MATCHING_VALUES[name][0], "limit": 50})).status_code == 200
    ((statement, parameters),) = [each for each in sent if "found AS" in each.text]
    await patients_connection.execute("SET plan_cache_mode = force_custom_plan; SET enable_seqscan = off")
    plan = "\n".join(line for (line,) in await patients_connection.fetch(f"EXPLAIN {statement}", *parameters))
    found = plan.partition("CTE found")[2].partition("CTE page")[0]
    assert re.search(rf"Index Cond: .*{name.partition('__')[0].removesuffix('_number')}", found), plan
