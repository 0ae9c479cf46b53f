"""The journal accepts only new entries, enforced by a trigger and by the rights of the serving role."""

from collections.abc import AsyncIterator
from contextlib import nullcontext

import asyncpg
import httpx
import pytest

from app.main import create_app
from app.settings import Settings
from tests.journal.conftest import Command
from tests.support import EXAMPLE_PATIENT, RESOURCE_EXAMPLES, dump_tables

PATIENTS = "/patients/patients/"
FORBIDDEN_STATEMENTS = (
    "UPDATE journal SET actor = 'nobody'",
    "UPDATE journal SET record = record WHERE false",
    "DELETE FROM journal",
    "DELETE FROM journal WHERE version = 1",
    "TRUNCATE journal",
    "TRUNCATE patients, journal CASCADE",
    "INSERT INTO journal TABLE journal ON CONFLICT (resource, unique_id, version) DO UPDATE SET actor = 'nobody'",
    "MERGE INTO journal USING (SELECT 1) AS one ON true WHEN MATCHED THEN DELETE",
)
INEFFECTIVE_STATEMENTS = (
    "SELECT set_config('patients.erasing', 'yes', false)",
    "GRANT ALL ON journal TO CURRENT_USER",
)
"""Statements that any role may run, and that must have no effect."""
EVASION_STATEMENTS = (
    *INEFFECTIVE_STATEMENTS,
    "ALTER TABLE journal DISABLE TRIGGER append_only",
    "ALTER TABLE journal DISABLE TRIGGER ALL",
    "DROP TRIGGER append_only ON journal",
    "CREATE OR REPLACE FUNCTION refuse_journal_change() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
    "SET session_replication_role = replica",
    "CREATE RULE none AS ON INSERT TO journal DO INSTEAD NOTHING",
    "ALTER TABLE journal OWNER TO CURRENT_USER",
    "DROP TABLE journal",
    "CREATE TABLE mine ()",
    # with a hash, no trigger would check the entry
    "INSERT INTO journal (resource, unique_id, version, action, actor, hash) VALUES ('doctors', 'd', 1, 'x', 'y', '')",
)
"""What an attacker might try first."""


@pytest.fixture
async def _records(client: httpx.AsyncClient) -> None:
    """Create a record of each resource, with two versions."""
    for kind in RESOURCE_EXAMPLES:
        assert (await client.post(kind.path, json=kind.create_body)).status_code == 201
        assert (await client.put(kind.record_path, json=kind.update_body)).status_code == 200


@pytest.fixture
async def serving_role_client(serving_url: str) -> AsyncIterator[httpx.AsyncClient]:
    """Return a client of a service that runs as the serving role."""
    app = create_app(Settings.model_validate({"database_url": serving_url}))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://patients.test") as client,
    ):
        yield client


@pytest.mark.usefixtures("_records")
async def test_sql_cannot_change_or_delete_entries(connection: asyncpg.Connection) -> None:
    """A trigger refuses UPDATE, DELETE and TRUNCATE even for the owner, and still lets entries be added."""
    before = await dump_tables(connection)
    for statement in FORBIDDEN_STATEMENTS:
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="the journal is append-only"):
            await connection.execute(statement)
    assert await dump_tables(connection) == before
    entry = (
        "INSERT INTO journal (resource, unique_id, version, action, actor) VALUES ('patients', 'x', 1, 'deleted', '')"
    )
    await connection.execute(entry)


@pytest.mark.usefixtures("_records")
async def test_the_erasure_setting_permits_no_truncate(connection: asyncpg.Connection) -> None:
    """The setting that lets `patients-api erase` remove entries permits no TRUNCATE and ends with its transaction."""
    async with connection.transaction():
        await connection.execute("SET LOCAL patients.erasing = 'yes'")
        for statement in ("TRUNCATE journal", "TRUNCATE patients, journal CASCADE"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError, match="append-only"):
                async with connection.transaction():
                    await connection.execute(statement)
    for statement in FORBIDDEN_STATEMENTS:
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="append-only"):
            await connection.execute(statement)


async def test_serving_role_can_serve_every_request(
    serving_role_client: httpx.AsyncClient, command: Command, serving_url: str
) -> None:
    """As the serving role, the service can create, read, change, list, delete, restore and replay responses."""
    key = {"Idempotency-Key": "key"}
    for kind in RESOURCE_EXAMPLES:
        first = await serving_role_client.post(kind.path, json=kind.create_body, headers=key)
        assert first.status_code == 201
        again = await serving_role_client.post(kind.path, json=kind.create_body, headers=key)
        assert (again.status_code, again.headers["Idempotency-Replayed"]) == (201, "true")
        for method, body in (("PUT", kind.update_body), ("PATCH", kind.minimal_body), ("PUT", kind.update_body)):
            tag = (await serving_role_client.get(kind.record_path)).headers["ETag"]
            response = await serving_role_client.request(method, kind.record_path, json=body, headers={"If-Match": tag})
            assert response.status_code == 200
        assert (await serving_role_client.get(kind.path)).json() == [response.json()]
        assert (await serving_role_client.delete(kind.record_path)).status_code == 204
        assert (await serving_role_client.post(kind.path, json=kind.create_body)).status_code == 409
        for _ in range(2):
            response = await serving_role_client.post(f"{kind.record_path}restore/", json={"version": 2}, headers=key)
            assert response.status_code == 200
        assert len((await serving_role_client.get(f"{kind.record_path}history/")).json()) == 6
        assert (await serving_role_client.get(f"{kind.record_path}history/6/")).json()["action"] == "restored"
    links = {"hospital_ids": ["own"], "doctor_ids": ["own"], "patient_profile": {"unique_id": "new", "email": "a@b.c"}}
    response = await serving_role_client.post(PATIENTS, json={**EXAMPLE_PATIENT, **links})
    assert response.status_code == 201, response.text
    path = response.headers["Location"]
    assert (await serving_role_client.put(path, json={"hospital_ids": [], "patient_profile": None})).status_code == 200
    assert (await serving_role_client.delete("/profiles/profiles/new/")).status_code == 204
    assert (await serving_role_client.delete(path)).status_code == 204
    assert (await serving_role_client.get("/readyz")).status_code == 204
    assert (await command("journal", "verify", url=serving_url)).status == 0


@pytest.mark.usefixtures("_records")
async def test_serving_role_cannot_change_the_journal(serving_url: str, connection: asyncpg.Connection) -> None:
    """The serving role cannot change or delete entries, whatever rights it had before and whatever it tries first."""
    before = await dump_tables(connection)
    serving = await asyncpg.connect(serving_url)
    try:
        for evasion in EVASION_STATEMENTS:
            with (
                nullcontext()
                if evasion in INEFFECTIVE_STATEMENTS
                else pytest.raises(asyncpg.InsufficientPrivilegeError)
            ):
                await serving.execute(evasion)
            for statement in FORBIDDEN_STATEMENTS:
                with pytest.raises(asyncpg.InsufficientPrivilegeError, match="permission denied"):
                    await serving.execute(statement)
    finally:
        await serving.close()
    assert await dump_tables(connection) == before


async def test_serving_role_has_exactly_the_rights_it_needs(serving_url: str) -> None:
    """The serving role has exactly the rights it needs on each table, and may only read and add journal entries."""
    everything = {"SELECT", "INSERT", "UPDATE", "DELETE"}
    serving = await asyncpg.connect(serving_url)
    try:
        rows = await serving.fetch(
            "SELECT tablename, array_agg(right_) FROM pg_tables, unnest("
            "   ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER', 'MAINTAIN']) right_"
            " WHERE schemaname = 'public' AND has_table_privilege(tablename, right_) GROUP BY 1"
        )
        columns = await serving.fetch(
            "SELECT right_, array_agg(attname ORDER BY attname)"
            " FROM pg_attribute, unnest(ARRAY['INSERT', 'UPDATE']) right_"
            " WHERE attrelid = 'journal'::regclass AND attnum > 0 AND has_column_privilege('journal', attname, right_)"
            " GROUP BY 1"
        )
    finally:
        await serving.close()
    rights = {table: set(given) for table, given in rows}
    assert {
        rights.pop(name) == {"SELECT"}
        for name in ("journal", "audit", "alembic_version", "api_keys", "secrets", "stale_words")
    } == {True}
    assert rights.pop("identifier_types") == rights.pop("patient_identifiers") == {"SELECT"}
    # the server sets the time of an entry
    own = ["action", "actor", "merge", "record", "request_id", "resource", "unique_id", "version"]
    assert {right: list(names) for right, names in columns} == {"INSERT": own}
    assert rights.pop("changes") == rights.pop("hospital_changes") == {"SELECT", "INSERT", "DELETE"}
    assert rights.pop("changes_pending") == {"SELECT", "DELETE"}
    assert rights.pop("webhooks") == {"SELECT"}
    assert rights.pop("pending_comparisons") == {"SELECT", "DELETE"}
    assert rights.pop("name_words") == rights.pop("hospital_words") == {"SELECT", "INSERT"}
    assert {table: given for table, given in rights.items() if given != everything} == {}
    assert len(rights) == 9


async def test_unknown_serving_role_is_explained(command: Command) -> None:
    """An unknown serving role is exit status 1 and a message that says how to create it."""
    done = await command("migrate", "--serving-role", "nobody_serves")
    assert done.status == 1
    assert "There is no role nobody_serves" in done.err
    assert "CREATE ROLE nobody_serves LOGIN" in done.err
    assert "Traceback" not in done.err
