"""Where credentials are required, and how principals affect the journal, idempotency keys and nested profiles."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from app.auth.scopes import Scope
from tests.auth.support import HOSPITALS, PATIENTS, client_for, make_key, secured_app
from tests.processes import data_directory, run_cli
from tests.support import EXAMPLE_PATIENT, ServiceProcess, dump_tables

Serve = Callable[..., ServiceProcess]
AUTH_OFF_WARNING = "authentication is off: every client that reaches this service can read and change everything"


@pytest.fixture(scope="module")
def data_dir() -> Iterator[Path]:
    """Share one data directory: creating it takes longer than starting on it."""
    with data_directory() as path:
        yield path


@pytest.fixture
def auth_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave PATIENTS_AUTH unset."""
    monkeypatch.delenv("PATIENTS_AUTH")


def stop_and_find_warning(served: ServiceProcess) -> bool:
    """Stop the service and return whether it logged the warning that authentication is off."""
    served.process.terminate()
    served.process.wait(20)
    return [line["level"] for line in served.log_entries() if line["event"] == AUTH_OFF_WARNING] == ["warning"]


def status_without_credentials(served: ServiceProcess) -> int:
    return httpx.get(f"{served.url}{PATIENTS}").status_code


@pytest.mark.usefixtures("auth_unset")
def test_embedded_database_on_loopback_needs_no_credentials(serve: Serve, data_dir: Path) -> None:
    """With the embedded database on a loopback address, authentication and the audit of reads are off, silently."""
    served = serve(PATIENTS_DATA_DIR=str(data_dir))
    assert status_without_credentials(served) == 200
    assert httpx.get(f"{served.url}/audit/").headers["Audit-Reads"] == "false"
    httpx.post(f"{served.url}{PATIENTS}", json={"unique_id": "pat1", "patient_last_name": "Doe"}).raise_for_status()
    report = run_cli("access-report", "pat1", PATIENTS_DATA_DIR=str(data_dir))
    assert "does not record who has seen the record without changing it" in report.stdout, report.stderr
    assert not stop_and_find_warning(served)


@pytest.mark.usefixtures("auth_unset")
def test_embedded_database_on_other_addresses_needs_credentials(serve: Serve, data_dir: Path) -> None:
    """With the embedded database on any other address, credentials are required."""
    served = serve("--host", "0.0.0.0", PATIENTS_DATA_DIR=str(data_dir))  # noqa: S104
    assert status_without_credentials(served) == 401
    assert not stop_and_find_warning(served)


@pytest.mark.usefixtures("auth_unset")
def test_external_database_needs_credentials(serve: Serve, database_url: str) -> None:
    """With an external database credentials are required even on loopback, because a proxy may be in front of it."""
    served = serve(DATABASE_URL=database_url)
    assert status_without_credentials(served) == 401
    assert not stop_and_find_warning(served)


def test_disabling_authentication_is_explicit_and_logs_a_warning(serve: Serve, database_url: str) -> None:
    """PATIENTS_AUTH=off turns authentication off for every client, on every address, and logs a warning."""
    served = serve("--host", "0.0.0.0", DATABASE_URL=database_url, PATIENTS_AUTH="off")  # noqa: S104
    assert status_without_credentials(served) == 200
    assert stop_and_find_warning(served)


async def test_the_journal_names_the_key(database_url: str, connection: asyncpg.Connection) -> None:
    """The journal records the principal of the key, not a name that the client claims in a header."""
    key = await make_key(database_url, Scope.ADMIN, name="billing")
    async with secured_app(database_url) as app, client_for(app, key) as client:
        created = await client.post(HOSPITALS, json={"hospital_name": "General"}, headers={"X-Actor": "somebody"})
        path = f"{created.headers['Location']}history/"
        (entry,) = (await client.get(path)).json()
        assert (entry["actor"], entry["request_id"]) == ("key:billing", created.headers["X-Request-ID"])
    assert await connection.fetchval("SELECT actor FROM journal") == "key:billing"


async def test_idempotency_keys_are_separate_per_principal(database_url: str) -> None:
    """The same Idempotency-Key from another principal is another request and never replays the first one's response."""
    one, other = [await make_key(database_url, Scope.ADMIN, name=name) for name in ("one", "other")]
    body = {"hospital_name": "General"}
    responses = []
    async with secured_app(database_url) as app, client_for(app) as client:
        for key in (one, other, one):
            headers = {"X-API-Key": key, "Idempotency-Key": "the-same"}
            responses.append(await client.post(HOSPITALS, json=body, headers=headers))
        assert [response.status_code for response in responses] == [201, 201, 201]
        ids = [response.json()["unique_id"] for response in responses]
        assert ids[0] == ids[2] != ids[1]
        assert [response.headers.get("Idempotency-Replayed") for response in responses] == [None, None, "true"]


@pytest.fixture
async def clerk_key(database_url: str, connection: asyncpg.Connection) -> str:
    """Return a key that may change patients but not profiles; a patient with a profile exists."""
    await connection.execute("INSERT INTO hospitals (unique_id, hospital_name) VALUES ('hos123', 'A'), ('hos456', 'B')")
    await connection.execute("INSERT INTO doctors (unique_id, doctor_first_name) VALUES ('doc123', 'C')")
    admin = await make_key(database_url, Scope.ADMIN, name="admin")
    async with secured_app(database_url) as app, client_for(app, admin) as client:
        assert (await client.post(PATIENTS, json={"unique_id": "pat123", **EXAMPLE_PATIENT})).status_code == 201
    return await make_key(database_url, Scope.PATIENTS_READ, Scope.PATIENTS_WRITE, name="clerk")


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
async def test_writing_back_what_was_read_needs_no_profile_scope(
    database_url: str, clerk_key: str, method: str
) -> None:
    """A patient can be written back with its unchanged profile, along with other changes, without profiles:write."""
    path = f"{PATIENTS}pat123/"
    async with secured_app(database_url) as app, client_for(app, clerk_key) as client:
        body = (await client.get(path)).json()
        assert (await client.request(method, path, json=body)).json() == body
        response = await client.request(method, path, json={**body, "patient_town": "Elsewhere"})
        assert (response.status_code, response.json()["patient_town"]) == (200, "Elsewhere")
        response = await client.request(method, path, json={"patient_profile": {"unique_id": "prof123"}})
        assert response.status_code == 200
        response = await client.request(method, path, json={"patient_profile": None})
        assert (response.status_code, response.json()["patient_profile"]) == (200, None)


async def test_linking_a_profile_needs_the_scope_to_read_it(
    database_url: str, connection: asyncpg.Connection, clerk_key: str
) -> None:
    """Linking an existing profile to a patient needs profiles:read, even if the profile itself does not change."""
    reader = await make_key(database_url, Scope.PATIENTS_WRITE, Scope.PROFILES_READ, name="reader")
    body = {"patient_last_name": "Roe", "patient_profile": {"unique_id": "prof123"}}
    async with secured_app(database_url) as app, client_for(app) as client:
        before = await dump_tables(connection)
        response = await client.post(PATIENTS, json=body, headers={"X-API-Key": clerk_key})
        assert (response.status_code, response.json()["detail"]) == (403, "This request needs the scope profiles:read.")
        assert await dump_tables(connection) == before
        response = await client.post(PATIENTS, json=body, headers={"X-API-Key": reader})
        assert (response.status_code, response.json()["patient_profile"]["unique_id"]) == (201, "prof123")


async def test_linking_a_profile_reveals_nothing_without_the_scope_to_read_it(
    database_url: str, clerk_key: str
) -> None:
    """A guess of a profile's data is refused whether right or wrong, and so is restoring a version that links it."""
    async with secured_app(database_url) as app, client_for(app, clerk_key) as client:
        for email in (EXAMPLE_PATIENT["patient_profile"]["email"], "other@example.com"):
            profile = {"unique_id": "prof123", "email": email}
            response = await client.post(PATIENTS, json={"patient_last_name": "Roe", "patient_profile": profile})
            assert (response.status_code, response.json()["detail"]) == (
                403,
                "This request needs the scope profiles:read.",
            )
        unlinked = await client.put(f"{PATIENTS}pat123/", json={"patient_profile": None})
        assert unlinked.status_code == 200
        assert (await client.post(f"{PATIENTS}pat123/restore/", json={"version": 1})).status_code == 403
    reader = await make_key(database_url, Scope.PATIENTS_WRITE, Scope.PROFILES_READ, name="reader")
    async with secured_app(database_url) as app, client_for(app, reader) as client:
        assert (await client.post(f"{PATIENTS}pat123/restore/", json={"version": 1})).status_code == 200


@pytest.mark.parametrize(
    ("request_line", "body"),
    [
        (f"PUT {PATIENTS}pat123/", {"patient_profile": {"unique_id": "prof123", "email": "other@example.com"}}),
        (f"PATCH {PATIENTS}pat123/", {"patient_profile": {"unique_id": "prof123", "first_name": None}}),
        (f"PUT {PATIENTS}pat123/", {"patient_profile": {"unique_id": "prof999"}}),
        (f"POST {PATIENTS}", {"patient_profile": {"unique_id": "prof123", "last_name": "Roe"}}),
        (f"POST {PATIENTS}", {"patient_profile": {"unique_id": "prof999", "email": "new@example.com"}}),
    ],
)
async def test_a_profile_inside_a_patient_needs_its_own_scope(
    database_url: str, connection: asyncpg.Connection, clerk_key: str, request_line: str, body: dict[str, Any]
) -> None:
    """Changing or creating a profile in a patient without its scope is a 403 with the scope and stores nothing."""
    method, path = request_line.split()
    body = {"patient_last_name": "Roe", "hospital_ids": [], **body}
    writer = await make_key(database_url, Scope.PATIENTS_WRITE, Scope.PROFILES_WRITE, name="writer")
    before = await dump_tables(connection)
    async with secured_app(database_url) as app, client_for(app, clerk_key) as client:
        response = await client.request(method, path, json=body, headers={"Idempotency-Key": "k"})
        linked = "pat123" in path and body["patient_profile"]["unique_id"] == "prof123"
        scope = "profiles:write" if linked else "profiles:read"  # linking needs read access, which is checked first
        assert (response.status_code, response.json()["detail"]) == (403, f"This request needs the scope {scope}.")
        assert f'scope="{scope}"' in response.headers["WWW-Authenticate"]
        assert await dump_tables(connection) == before
        response = await client.request(method, path, json=body, headers={"X-API-Key": writer, "Authorization": ""})
        assert response.is_success
