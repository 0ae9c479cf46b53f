"""Tampering by the owner of the journal's tables and by the serving role: what verification finds."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import httpx
import pytest

from tests.journal import conftest as fixtures
from tests.journal.conftest import Command
from tests.journal.test_chain import chain_hashes
from tests.processes import run_cli
from tests.support import EXAMPLE_PATIENT

command = fixtures.command
serving_url = fixtures.serving_url

PATIENTS = "/patients/patients/"
SELECT_ENTRIES = """
    SELECT *, record::text AS record, erasure::text AS erasure FROM journal
    WHERE resource = 'patients' AND unique_id = $1 ORDER BY version
"""


async def tamper(connection: asyncpg.Connection, statements: str, unique_id: str) -> None:
    """Run `statements` as the owner with triggers off; in them, `OWN` and `'pat'` stand for the record."""
    own = f"resource = 'patients' AND unique_id = '{unique_id}'"
    forged = statements.replace("OWN", own).replace("'pat'", f"'{unique_id}'")
    await connection.execute(
        f"ALTER TABLE journal DISABLE TRIGGER USER; {forged}; ALTER TABLE journal ENABLE TRIGGER USER"
    )


async def rehash(connection: asyncpg.Connection, unique_id: str) -> None:
    """Recompute all hashes of a record's chain, which anyone who knows the documentation can do."""
    entries = await connection.fetch(SELECT_ENTRIES, unique_id)
    new = (
        f"UPDATE journal SET hash = '\\x{forged.hex()}' WHERE OWN AND version = {entry['version']}"  # noqa: S608
        for entry, forged in zip(entries, chain_hashes(entries), strict=True)
    )
    await tamper(connection, "; ".join(new), unique_id)


async def create_patient_with_history(client: httpx.AsyncClient, unique_id: str) -> None:
    """Create a patient with five entries."""
    body = {**EXAMPLE_PATIENT, "patient_profile": None, "unique_id": unique_id}
    assert (await client.post(PATIENTS, json=body)).status_code == 201
    for title in "abcd":
        assert (await client.put(f"{PATIENTS}{unique_id}/", json={"patient_title": title})).status_code == 200


REDACT_STATEMENT = """
    UPDATE journal SET actor = 'x', salt = NULL, erasure = json_build_object('content', encode(journal_content(
        salt, resource, unique_id, version, action, time, actor, request_id, reason, record, erasure), 'hex'))
    WHERE OWN AND version = 3
"""
CHANGED_ENTRY_MESSAGE = "has a version 3 that was altered"
FIRST_ENTRY_MESSAGE = "has lost versions before 1, or that version was altered"
FORGERIES = (
    ("UPDATE journal SET actor = 'key:other' WHERE OWN AND version = 3", CHANGED_ENTRY_MESSAGE),
    ("UPDATE journal SET time = time - interval '1 microsecond' WHERE OWN AND version = 3", CHANGED_ENTRY_MESSAGE),
    ("UPDATE journal SET request_id = NULL WHERE OWN AND version = 3", CHANGED_ENTRY_MESSAGE),
    ("UPDATE journal SET reason = '' WHERE OWN AND version = 3", CHANGED_ENTRY_MESSAGE),
    ("UPDATE journal SET action = 'restored' WHERE OWN AND version = 3", CHANGED_ENTRY_MESSAGE),
    (
        "UPDATE journal SET record = replace(record::text, '\"b\"', '\"x\"')::json WHERE OWN AND version = 3",
        CHANGED_ENTRY_MESSAGE,
    ),
    ("UPDATE journal SET record = (' ' || record::text)::json WHERE OWN AND version = 3", CHANGED_ENTRY_MESSAGE),
    ("UPDATE journal SET salt = NULL WHERE OWN AND version = 3", CHANGED_ENTRY_MESSAGE),
    ("UPDATE journal SET salt = NULL, hash = sha256('') WHERE OWN AND version = 3", CHANGED_ENTRY_MESSAGE),
    ("UPDATE journal SET erasure = '{}' WHERE OWN AND version = 3", CHANGED_ENTRY_MESSAGE),
    ("UPDATE journal SET actor = 'x' WHERE OWN AND version = 1", FIRST_ENTRY_MESSAGE),
    (
        "DELETE FROM journal WHERE OWN AND version = 1",
        "has lost versions before 2, or that version was altered",
    ),
    ("DELETE FROM journal WHERE OWN AND version = 2", "lacks the version before 3"),
    (
        """
        DELETE FROM journal WHERE OWN AND version = 1;
        UPDATE journal SET version = version + 10 WHERE OWN; UPDATE journal SET version = version - 11 WHERE OWN;
        UPDATE patients SET version = 4 WHERE unique_id = 'pat'
        """,
        FIRST_ENTRY_MESSAGE,
    ),
    (
        """
        UPDATE journal SET version = 9 WHERE OWN AND version = 3;
        UPDATE journal SET version = 3 WHERE OWN AND version = 4;
        UPDATE journal SET version = 4 WHERE OWN AND version = 9
        """,
        CHANGED_ENTRY_MESSAGE,
    ),
    (
        """
        UPDATE journal SET version = version + 10 WHERE OWN AND version >= 3;
        UPDATE journal SET version = version - 9 WHERE OWN AND version >= 10;
        INSERT INTO journal
        SELECT resource, unique_id, 3, action, time, actor, request_id, reason, record, salt, hash
        FROM journal WHERE OWN AND version = 2;
        UPDATE patients SET version = 6 WHERE unique_id = 'pat'
        """,
        CHANGED_ENTRY_MESSAGE,
    ),
    (
        """
        DELETE FROM journal WHERE OWN AND version = 1;
        INSERT INTO journal
        SELECT resource, 'pat', version, action, time, actor, request_id, reason, record, salt, hash
        FROM journal WHERE resource = 'patients' AND unique_id = 'other' AND version = 1
        """,
        FIRST_ENTRY_MESSAGE,
    ),
    (REDACT_STATEMENT, "was redacted in version 3 without an erasure, or changed since"),
    (
        """UPDATE journal SET erasure = '{"content": "x"}' WHERE OWN AND version = 3""",
        "was redacted in version 3 without an erasure, or changed since",
    ),
)
"""Statements that tamper with a record's entries, and how the first wrong entry is reported."""


async def test_forgeries_are_found(
    client: httpx.AsyncClient,
    hospitals_and_doctors: None,  # noqa: ARG001
    command: Command,
    connection: asyncpg.Connection,
) -> None:
    """For each change, removal or insertion the first wrong entry is reported, and no other record is."""
    await create_patient_with_history(client, "other")
    expected = set()
    for number, (statements, flaw) in enumerate(FORGERIES):
        await create_patient_with_history(client, f"pat-{number}")
        await tamper(connection, statements, f"pat-{number}")
        expected.add(f"  pat-{number} {flaw}")
    done = await command("journal", "verify")
    assert done.status == 1
    assert {line for line in done.out.splitlines() if line.startswith("  ")} == expected


REWRITES = (
    "UPDATE journal SET actor = 'key:other', time = time - interval '1 day' WHERE OWN AND version = 3",
    "DELETE FROM journal WHERE OWN AND version = 1",
    """
    DELETE FROM journal WHERE OWN AND version = 5;
    UPDATE patients SET version = 4, patient_title = 'c', last_updated =
        (SELECT (record ->> 'last_updated')::timestamptz FROM journal WHERE OWN AND version = 4)
    WHERE unique_id = 'pat'
    """,
    "DELETE FROM journal WHERE OWN; DELETE FROM patients WHERE unique_id = 'pat'",
    """
    DELETE FROM journal WHERE OWN; DELETE FROM patients WHERE unique_id = 'pat';
    INSERT INTO journal (resource, unique_id, version, action, actor, hash, erasure)
    VALUES ('patients', 'pat', 1, 'erased', 'erase', '', '{"removed": []}')
    """,
    """
    INSERT INTO journal (resource, unique_id, version, action, actor, time, hash)
    VALUES ('patients', 'pat', 6, 'deleted', 'local', now() - interval '1 day', '');
    DELETE FROM patients WHERE unique_id = 'pat'
    """,
)
"""Statements to run before all hashes are recomputed; the last two add an entry that the service never wrote."""


async def test_a_rehashed_chain_is_found_only_with_a_journal_head(
    client: httpx.AsyncClient,
    hospitals_and_doctors: None,  # noqa: ARG001
    command: Command,
    connection: asyncpg.Connection,
) -> None:
    """If all hashes are recomputed, only a journal head from before reveals the tampering."""
    for number, statements in enumerate(REWRITES):
        await create_patient_with_history(client, f"pat-{number}")
        line = (await command("journal", "head")).out
        await tamper(connection, statements, f"pat-{number}")
        await rehash(connection, f"pat-{number}")
        assert (await command("journal", "verify")).status == 0, statements
        done = await command("journal", "verify", "--head", line)
        message = f"The journal does not match the head of {line.split()[0]}"
        assert (done.status, message in done.out) == (1, True), statements


async def test_a_forged_erasure_is_counted(
    client: httpx.AsyncClient,
    hospitals_and_doctors: None,  # noqa: ARG001
    command: Command,
    connection: asyncpg.Connection,
) -> None:
    """A change that is disguised as a redaction by a forged erasure is counted as a redaction."""
    await create_patient_with_history(client, "pat")
    line = (await command("journal", "head")).out
    named = 'UPDATE journal SET record = (record::jsonb || \'{"profile_id": "x"}\')::json WHERE OWN AND version = 3'
    await tamper(connection, f"{REDACT_STATEMENT}; {named}", "pat")
    says = (
        "encode(journal_content(salt, resource, unique_id, version, action, time, actor, request_id, reason, record,"
        " erasure), 'hex')"
    )
    listed = f"json_agg(json_build_array(encode(hash, 'hex'), {says}))"
    erasure = f"json_build_object('removed', '[]'::json, 'redacted', {listed})"
    await connection.execute(
        "INSERT INTO journal (resource, unique_id, version, action, actor, erasure)"  # noqa: S608
        f" SELECT 'profiles', 'x', 1, 'erased', 'erase', {erasure} FROM journal WHERE salt IS NULL"
    )
    done = await command("journal", "verify", "--head", line)
    assert (done.status, "erased: 1 record, 0 entries removed, 1 redacted" in done.out) == (0, True)


async def test_changes_of_redacted_entries_are_found(
    client: httpx.AsyncClient, command: Command, connection: asyncpg.Connection
) -> None:
    """A change of the actor, time or reason of a redacted entry is found."""
    profile = {"patient_profile": {"unique_id": "prof"}}
    for unique_id in ("one", "two"):
        body = {"unique_id": unique_id, "patient_last_name": "Doe", **profile}
        assert (await client.post("/patients/patients/", json=body)).status_code == 201
        await client.put(f"/patients/patients/{unique_id}/", json={"patient_profile": None})
    assert (await command("erase", "profile", "prof", "--reason", "asked", "--yes")).status == 0
    done = await command("journal", "verify")
    assert (done.status, "2 redacted" in done.out) == (0, True)
    forged = "UPDATE journal SET actor = 'key:other', time = '2001-01-01', reason = 'x' WHERE OWN AND version = 1"
    await tamper(connection, forged, "one")
    done = await command("journal", "verify")
    assert (done.status, "one was redacted in version 1 without an erasure, or changed since" in done.out) == (1, True)


FORBIDDEN_ACTORS = (
    "import",
    "erase",
    "migration",
    "export",
    "",
    "key:",
    "key:nobody",
    "key:front%",
    "Local",
    "local ",
    "oidc",
)
INSERT_ENTRY = """
    INSERT INTO journal (resource, unique_id, version, action, actor, record) VALUES ('patients', 'pat', $1, $2, $3, $4)
"""
FORBIDDEN_COLUMNS = {"time": "now()", "hash": "''", "salt": "gen_random_uuid()", "erasure": "'{}'", "reason": "''"}
"""Columns that only the database or the owner may set."""


@pytest.fixture
async def serving_connection(
    client: httpx.AsyncClient,
    hospitals_and_doctors: None,  # noqa: ARG001
    serving_url: str,
    connection: asyncpg.Connection,
) -> AsyncIterator[asyncpg.Connection]:
    """Open a connection as the serving role, with a patient and a key in the database."""
    await create_patient_with_history(client, "pat")
    await connection.execute("INSERT INTO api_keys (name, digest, scopes) VALUES ('front desk', '', '{}')")
    serving_role_connection = await asyncpg.connect(serving_url)
    yield serving_role_connection
    await serving_role_connection.close()


async def test_the_serving_role_cannot_write_forged_entries(
    serving_connection: asyncpg.Connection, connection: asyncpg.Connection
) -> None:
    """The serving role cannot write entries of commands, unknown keys or erasures, or set times, hashes, versions."""
    before = await connection.fetch("SELECT * FROM journal")
    for actor in FORBIDDEN_ACTORS:
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="this role writes no such entry"):
            await serving_connection.execute(INSERT_ENTRY, 6, "updated", actor, "{}")
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="this role writes no such entry"):
        await serving_connection.execute(INSERT_ENTRY, 6, "erased", "local", None)
    for column, value in FORBIDDEN_COLUMNS.items():
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="permission denied"):
            await serving_connection.execute(
                f"INSERT INTO journal (resource, unique_id, version, action, actor, {column})"  # noqa: S608
                f" VALUES ('patients', 'new', 1, 'deleted', 'local', {value})"
            )
    for version in (0, -1, 7, 2**62):
        with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="goes on with version 6"):
            await serving_connection.execute(INSERT_ENTRY, version, "updated", "local", "{}")
    for version in range(1, 6):
        with pytest.raises(asyncpg.UniqueViolationError):
            await serving_connection.execute(INSERT_ENTRY, version, "updated", "local", "{}")
    assert await connection.fetch("SELECT * FROM journal") == before


async def test_the_serving_role_cannot_import(serving_connection: asyncpg.Connection, serving_url: str) -> None:
    """An import as the serving role is exit status 1 and one sentence, and stores nothing."""
    lines = '{"unique_id": "imported", "hospital_name": "General"}'
    words = ("import", "-", "--resource", "hospitals")
    done = await asyncio.to_thread(run_cli, *words, stdin_text=lines, DATABASE_URL=serving_url)
    assert (done.returncode, "use the DATABASE_URL of the role that migrates" in done.stderr) == (1, True)
    assert await serving_connection.fetchval("SELECT count(*) FROM hospitals WHERE unique_id = 'imported'") == 0


async def test_entries_forged_by_the_serving_role_disagree_with_the_record(
    serving_connection: asyncpg.Connection, command: Command
) -> None:
    """Entries that the serving role forges with an existing actor are accepted, but disagree with the record."""
    for version, actor in enumerate(("key:front desk", "local", "demo", "oidc:anybody"), 6):
        await serving_connection.execute(INSERT_ENTRY, version, "updated", actor, "{}")
    done = await command("journal", "verify")
    assert (done.status, "pat has a different version than its newest entry" in done.out) == (1, True)


async def test_a_record_with_an_unjournaled_version_takes_no_change(
    client: httpx.AsyncClient,
    hospitals_and_doctors: None,  # noqa: ARG001
    command: Command,
    connection: asyncpg.Connection,
) -> None:
    """A record with a version changed by SQL takes no change until its version is the journal's again."""
    await create_patient_with_history(client, "pat")
    await connection.execute("UPDATE patients SET patient_title = 'X', version = 9 WHERE unique_id = 'pat'")
    assert (await client.put(f"{PATIENTS}pat/", json={"patient_title": "Y"})).status_code == 500
    await connection.execute("UPDATE patients SET version = 5 WHERE unique_id = 'pat'")
    assert (await client.put(f"{PATIENTS}pat/", json={"patient_title": "Y"})).status_code == 200
    assert (await command("journal", "verify")).status == 0
