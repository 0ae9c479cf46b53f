"""Each filter uses an index."""

import re
from collections.abc import AsyncIterator

import asyncpg
import pytest

from tests.listing.support import explain_page
from tests.listing.test_filters_and_cursors import MATCHING_VALUES, SEARCH


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
    await patients_connection.execute("SET enable_seqscan = off")
    body = {name: MATCHING_VALUES[name][0], "limit": 50}
    found = await explain_page(module_database_url, patients_connection, "POST", SEARCH, json=body)
    assert re.search(rf"Index Cond: .*{name.partition('__')[0].removesuffix('_number')}", found), found
