"""What tests leave in a database that they share is removed."""

import asyncpg
import pytest

from tests.shared_service import restorable_database

SELECT_TABLES = "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
CREATE_PATIENTS = """
    INSERT INTO patients (unique_id, patient_last_name) SELECT 'pat' || n, 'Doe' FROM generate_series(1, $1) n
"""
CHANGE_OTHER_TABLES = """
    INSERT INTO patient_hospitals SELECT unique_id, 'hos1' FROM patients;
    DELETE FROM identifier_types;
    UPDATE changes SET time = now();
    SELECT nextval(format('%I', sequencename)) FROM pg_sequences
"""
SELECT_SEQUENCES = "SELECT sequencename, last_value FROM pg_sequences"


async def contents(connection: asyncpg.Connection) -> dict[str, object]:
    """Return the rows of all tables, and the values of all sequences."""
    rows = "SELECT coalesce(array_agg(t::text ORDER BY t::text), '{{}}') FROM public.{} t"
    tables = {name: await connection.fetchval(rows.format(name)) for (name,) in await connection.fetch(SELECT_TABLES)}
    return tables | dict(await connection.fetch(SELECT_SEQUENCES))


@pytest.mark.parametrize("patient_count", [1, 3000], ids=["few-rows", "tables-to-truncate"])
async def test_rows_and_sequences_are_restored(
    database_url: str, connection: asyncpg.Connection, patient_count: int
) -> None:
    """Rows are deleted whatever triggers have written, and those that were there before have their values again."""
    before = await contents(connection)
    async with restorable_database(database_url) as database:
        await connection.execute("INSERT INTO hospitals (unique_id, hospital_name) VALUES ('hos1', 'General Hospital')")
        await connection.execute(CREATE_PATIENTS, patient_count)
        await connection.execute(CHANGE_OTHER_TABLES)
        changed = await contents(connection)
        different = {name for name, value in changed.items() if value != before[name]}
        assert different > {"patients", "name_words", "identifier_types", "changes", "audit_id_seq"}
        await database.restore()
    assert await contents(connection) == before
