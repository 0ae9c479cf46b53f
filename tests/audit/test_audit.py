"""The audit: each access is recorded before its response is sent, and fails if it cannot be recorded."""

import asyncio
from collections.abc import Callable
from typing import Any

import asyncpg
import httpx
import pytest

from app.audit.recorder import AuditRecorder
from app.auth.scopes import Scope
from app.db.database import Database
from tests.auth.support import HOSPITALS, PATIENTS, PROFILES, client_for, make_key, secured_app
from tests.hospital_scope.conftest import AUDIT_PATH, ScopedClients, patient_body
from tests.support import EXAMPLE_PATIENT, ServiceProcess, dump_tables


async def newest_entries(register: ScopedClients, count: int = 1, **filters: str) -> list[dict[str, Any]]:
    """Return the newest audit entries, except for those about reading the audit."""
    entries = (await register.free.get(AUDIT_PATH, params=filters)).json()
    return [entry for entry in entries if entry["resource"] != "audit"][:count]


BOTH_VISIBLE_IDS = ["pat-a", "pat-shared"]


@pytest.mark.parametrize(
    ("method", "path", "body", "expected"),
    [
        ("GET", f"{PATIENTS}pat-a/", None, ("{unique_id}/", 200, ["pat-a"])),
        ("HEAD", f"{PATIENTS}pat-a", None, ("{unique_id}/", 200, ["pat-a"])),
        ("HEAD", PATIENTS, None, ("", 200, ["pat-a", "pat-shared"])),
        ("HEAD", f"{PATIENTS}?limit=1", None, ("", 200, ["pat-a"])),
        ("HEAD", f"{PATIENTS}?limit=1&patient_last_name=a&patient_last_name=shared", None, ("", 200, BOTH_VISIBLE_IDS)),
        ("GET", f"{PATIENTS}?limit=1&ordering=patient_last_name", None, ("", 200, BOTH_VISIBLE_IDS)),
        ("HEAD", f"{PATIENTS}?count=exact", None, ("", 422, [])),
        ("GET", f"{PATIENTS}nandi@example.com/", None, ("{unique_id}/", 404, [])),
        ("GET", f"{PATIENTS}pat-b/", None, ("{unique_id}/", 404, ["pat-b"])),
        ("GET", f"{PATIENTS}not%20an%20id/", None, ("{unique_id}/", 404, [])),
        ("GET", PATIENTS, None, ("", 200, ["pat-a", "pat-shared"])),
        ("GET", f"{PATIENTS}?limit=1", None, ("", 200, ["pat-a"])),
        ("GET", f"{PATIENTS}?limit=0", None, ("", 422, [])),
        ("GET", f"{PATIENTS}pat-a/history/", None, ("{unique_id}/history/", 200, ["pat-a"])),
        ("GET", f"{PATIENTS}pat-gone/history/1/", None, ("{unique_id}/history/{version}/", 200, ["pat-gone"])),
        ("GET", f"{PATIENTS}pat-a/access/", None, ("{unique_id}/access/", 200, ["pat-a"])),
        ("PUT", f"{PATIENTS}pat-a/", {"patient_title": "Dr."}, ("{unique_id}/", 200, ["pat-a"])),
        ("PATCH", f"{PATIENTS}pat-a/", {}, ("{unique_id}/", 200, ["pat-a"])),
        ("PUT", f"{PATIENTS}pat-a/", {"patient_gender": "x"}, ("{unique_id}/", 422, ["pat-a"])),
        ("PUT", f"{PATIENTS}pat-b/", {"patient_title": "Dr."}, ("{unique_id}/", 404, ["pat-b"])),
        ("PUT", f"{PATIENTS}pat-shared/", {"hospital_ids": []}, ("{unique_id}/", 409, ["pat-shared"])),
        ("POST", PATIENTS, {"unique_id": "x", "patient_last_name": "Doe"}, ("", 403, [])),
        ("POST", f"{PATIENTS}pat-gone/restore/", {"version": 1}, ("{unique_id}/restore/", 200, ["pat-gone"])),
        ("DELETE", f"{PATIENTS}pat-a/", None, ("{unique_id}/", 204, ["pat-a"])),
        ("DELETE", f"{PATIENTS}pat-b/", None, ("{unique_id}/", 404, ["pat-b"])),
    ],
)
async def test_each_request_is_audited_with_its_outcome(
    scoped_clients: ScopedClients, method: str, path: str, body: object, expected: tuple[str, int, list[str]]
) -> None:
    """An entry has principal, route, ids, time and status, and for a refused request the ids that it asked for."""
    headers = {"X-Request-ID": "the-request"}
    response = await scoped_clients.a.request(method, path, json=body, headers=headers)
    (entry,) = await newest_entries(scoped_clients, principal="key:a")
    route, status, ids = expected
    assert response.status_code == status
    assert entry.pop("time") > "2026"
    assert entry == {
        "principal": "key:a",
        "method": method,
        "route": f"{PATIENTS}{route}",
        "status": status,
        "resource": "patients",
        "ids": ids,
        "request_id": "the-request",
        "reason": None,
    }


async def test_rejections_in_one_batch_do_not_confirm_each_others_ids(
    database_url: str, connection: asyncpg.Connection
) -> None:
    """An id is kept for a rejected request only if a record of the requested resource has it.

    This holds even if a request for another resource, whose record has this id, is recorded by the same statement.
    """
    await connection.execute(
        "INSERT INTO journal (resource, unique_id, version, action, actor, record)"
        " VALUES ('patients', 'of-patient', 1, 'created', 'me', '{}'),"
        " ('profiles', 'of-profile', 1, 'created', 'me', '{}')"
    )
    rejection = {"principal": "key:a", "method": "GET", "route": "/", "status": 404, "request_id": "r", "reason": None}
    both = ["of-patient", "of-profile"]
    async with Database(database_url, pool_size=1) as database:
        recorder = AuditRecorder(database)
        rows = [{**rejection, "resource": resource, "ids": both} for resource in ("patients", "profiles")]
        await asyncio.gather(*map(recorder.write, rows))
    stored = await connection.fetch("SELECT resource, ids, xmin::text AS batch FROM audit ORDER BY resource")
    assert len({row["batch"] for row in stored}) == 1, "the rows were not written by one statement"
    assert [(row["resource"], row["ids"]) for row in stored] == [
        ("patients", ["of-patient"]),
        ("profiles", ["of-profile"]),
    ]


async def test_later_history_page_of_a_hidden_patient_is_not_audited_as_a_read(scoped_clients: ScopedClients) -> None:
    """A history cursor from before the patient was hidden is a 404 like the first page, and not audited as a read."""
    await scoped_clients.a.put(f"{PATIENTS}pat-a/", json={"patient_title": "Dr."})
    page = await scoped_clients.a.get(f"{PATIENTS}pat-a/history/?limit=1")
    await scoped_clients.free.put(f"{PATIENTS}pat-a/", json={"hospital_ids": ["hosB"]})
    assert (await scoped_clients.a.get(page.links["next"]["url"])).status_code == 404
    (entry,) = await newest_entries(scoped_clients, principal="key:a")
    assert (entry["status"], entry["ids"]) == (404, ["pat-a"])


async def test_creation_and_its_replay_are_audited_with_the_new_id(scoped_clients: ScopedClients) -> None:
    """A creation and its replay for an Idempotency-Key are audited with the new id."""
    body = {"patient_last_name": "New", "hospital_ids": ["hosA"]}
    made = [await scoped_clients.a.post(PATIENTS, json=body, headers={"Idempotency-Key": "once"}) for _ in range(2)]
    entries = await newest_entries(scoped_clients, 2, principal="key:a")
    assert [(entry["method"], entry["status"], entry["ids"]) for entry in entries] == [
        ("POST", 201, [response.json()["unique_id"]]) for response in made
    ]


async def test_failed_commit_is_audited_without_an_id(
    scoped_clients: ScopedClients, connection: asyncpg.Connection
) -> None:
    """A creation that fails on commit is audited without an id, because no client ever received one."""
    await connection.execute(
        "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE foreign_key_violation; END $$;"
        "CREATE CONSTRAINT TRIGGER fail AFTER INSERT ON patients DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION fail()"
    )
    body = {"patient_last_name": "New", "hospital_ids": ["hosA"]}
    assert (await scoped_clients.a.post(PATIENTS, json=body)).status_code == 409
    (entry,) = await newest_entries(scoped_clients, principal="key:a")
    assert (entry["status"], entry["ids"]) == (409, [])


async def test_not_modified_is_audited_as_a_read(scoped_clients: ScopedClients) -> None:
    """A 304 is audited as a read, because it tells the client that its copy is current."""
    tag = (await scoped_clients.a.get(f"{PATIENTS}pat-a/")).headers["ETag"]
    assert (await scoped_clients.a.get(f"{PATIENTS}pat-a/", headers={"If-None-Match": tag})).status_code == 304
    assert [entry["status"] for entry in await newest_entries(scoped_clients, 2, principal="key:a")] == [304, 200]


async def test_profile_reads_are_audited_and_hospital_reads_are_not(scoped_clients: ScopedClients) -> None:
    """Reads of hospitals and doctors are not audited: they are no patient data, and changes are in the journal."""
    await scoped_clients.a.get(f"{PROFILES}prof-a/")
    await scoped_clients.a.get(HOSPITALS)
    (entry,) = await newest_entries(scoped_clients, principal="key:a")
    assert (entry["resource"], entry["ids"]) == ("profiles", ["prof-a"])


async def test_request_without_the_scope_is_audited(database_url: str) -> None:
    """A request without the scope is audited with the id it asks for, and one without credentials is not audited."""
    key = await make_key(database_url, Scope.DIRECTORY_READ, name="clerk")
    admin = await make_key(database_url, Scope.ADMIN, name="admin")
    async with secured_app(database_url) as app, client_for(app, key) as clerk, client_for(app, admin) as reader:
        await reader.post(PATIENTS, json={"unique_id": "pat123", "patient_last_name": "Doe"})
        assert (await clerk.get(f"{PATIENTS}pat123/")).status_code == 403
        async with client_for(app) as nobody:
            assert (await nobody.get(f"{PATIENTS}pat123/")).status_code == 401
        entries = (await reader.get(AUDIT_PATH)).json()
    assert [(entry["principal"], entry["status"], entry["ids"]) for entry in entries] == [
        ("key:clerk", 403, ["pat123"]),
        ("key:admin", 201, ["pat123"]),
    ]


async def test_whole_list_is_audited_batch_by_batch(database_url: str) -> None:
    """A whole list is audited with all its ids, one row per batch."""
    async with asyncpg.create_pool(database_url, min_size=1) as pool:
        await pool.execute(
            "INSERT INTO patients (unique_id, patient_last_name) SELECT 'p' || lpad(n::text, 4, '0'), 'Doe'"
            " FROM generate_series(1, 1201) n"
        )
        key = await make_key(database_url, Scope.ADMIN, name="reader")
        async with secured_app(database_url) as service, client_for(service, key) as reader:
            shown = [record["unique_id"] for record in (await reader.get(PATIENTS)).json()]
        rows = [row["ids"] for row in await pool.fetch("SELECT ids FROM audit ORDER BY id")]
    assert len(shown) == 1201
    assert [unique_id for ids in rows for unique_id in ids] == shown
    assert [len(ids) for ids in rows] == [500, 500, 201]


async def test_list_breaks_off_before_a_batch_that_cannot_be_audited(
    serve: Callable[..., ServiceProcess], database_url: str, connection: asyncpg.Connection
) -> None:
    """A list breaks off before a batch that cannot be audited, so that only audited records are sent."""
    await connection.execute(
        "INSERT INTO patients (unique_id, patient_last_name) SELECT 'p' || lpad(n::text, 4, '0'), 'Doe'"
        " FROM generate_series(1, 600) n;"
        "ALTER TABLE audit ADD CONSTRAINT none CHECK (NOT 'p0501' = ANY (ids)) NOT VALID"
    )
    key = await make_key(database_url, Scope.ADMIN, name="reader")
    served = serve(DATABASE_URL=database_url, PATIENTS_AUTH="required")
    received: list[bytes] = []

    async def read_on() -> None:
        async for part in response.aiter_raw():
            received.append(part)  # noqa: PERF401  # keeps what was received before the failure

    async with (
        httpx.AsyncClient(base_url=served.url, headers={"X-API-Key": key}) as reader,
        reader.stream("GET", PATIENTS) as response,
    ):
        with pytest.raises(httpx.RemoteProtocolError, match="incomplete chunked read"):
            await read_on()
    assert b'"p0500"' in b"".join(received)
    assert b'"p0501"' not in b"".join(received)


@pytest.mark.parametrize("method", ["GET", "PUT", "POST", "DELETE", "list"])
async def test_request_that_cannot_be_audited_fails_without_effect(
    scoped_clients: ScopedClients, connection: asyncpg.Connection, method: str
) -> None:
    """A request that cannot be audited shows no record and stores nothing."""
    path = PATIENTS if method in {"POST", "list"} else f"{PATIENTS}pat-a/"
    body = {"patient_last_name": "Changed", "hospital_ids": ["hosA"]}
    await connection.execute("ALTER TABLE audit ADD CONSTRAINT none CHECK (false) NOT VALID")
    before = await dump_tables(connection)
    response = await scoped_clients.a.request("GET" if method == "list" else method, path, json=body)
    assert response.status_code == 500
    assert "pat-" not in response.text
    assert await dump_tables(connection) == before


async def test_auditing_of_reads_can_be_switched_off(database_url: str) -> None:
    """Without `audit_reads`, only changes, refused changes and break-glass reads are audited; a header says so."""
    admin = await make_key(database_url, Scope.ADMIN, name="admin")
    async with secured_app(database_url) as app, client_for(app, admin) as client:
        assert (await client.get(AUDIT_PATH)).headers["Audit-Reads"] == "true"
    async with secured_app(database_url, audit_reads=False) as app, client_for(app, admin) as client:
        created = await client.post(PATIENTS, json={"unique_id": "one", "patient_last_name": "Doe"})
        await client.get(f"{PATIENTS}one/")
        await client.get(PATIENTS)
        await client.put(f"{PATIENTS}two/", json={})
        await client.get(f"{PATIENTS}one/", headers={"X-Break-Glass": "Unconscious, brought in"})
        entries = (await client.get(AUDIT_PATH, params={"time__gte": created.json()["date_created"]})).json()
        for path in (AUDIT_PATH, f"{AUDIT_PATH}?limit=1", f"{PATIENTS}one/access/"):
            assert (await client.get(path)).headers["Audit-Reads"] == "false"
    assert [(entry["method"], entry["status"]) for entry in entries] == [("GET", 200), ("PUT", 404), ("POST", 201)]


async def test_audit_is_filtered_and_paged(scoped_clients: ScopedClients) -> None:
    """The audit can be filtered by patient, principal and time, and its pages keep the filters."""
    await scoped_clients.a.get(f"{PATIENTS}pat-shared/")
    await scoped_clients.b.get(f"{PATIENTS}pat-shared/")
    await scoped_clients.b.get(f"{PATIENTS}pat-b/")
    shared = (await scoped_clients.free.get(AUDIT_PATH, params={"patient": "pat-shared"})).json()
    assert [entry["principal"] for entry in shared] == ["key:b", "key:a", "key:free"]
    both = {"patient": "pat-shared", "principal": "key:b"}
    assert [entry["ids"] for entry in (await scoped_clients.free.get(AUDIT_PATH, params=both)).json()] == [
        ["pat-shared"]
    ]
    timestamp = shared[0]["time"]
    since = (await scoped_clients.free.get(AUDIT_PATH, params={"time__gte": timestamp, "patient": "pat-shared"})).json()
    before = (await scoped_clients.free.get(AUDIT_PATH, params={"time__lt": timestamp, "patient": "pat-shared"})).json()
    assert (since, before) == (shared[:1], shared[1:])
    assert (await scoped_clients.free.get(AUDIT_PATH, params={"time__lt": "2020-01-01"})).json() == []
    walked, url = [], f"{AUDIT_PATH}?patient=pat-shared&limit=1"
    while url:
        page = await scoped_clients.free.get(url)
        walked += page.json()
        assert "pat-shared" not in page.headers.get("Link", "")  # sealed in the cursor
        url = page.links.get("next", {}).get("url", "")
    assert walked == shared
    first = await scoped_clients.free.get(page.links["first"]["url"])
    assert first.json() == shared[:1]
    cursor = httpx.URL(first.links["next"]["url"]).params["cursor"]
    agreeing = await scoped_clients.free.get(AUDIT_PATH, params={"cursor": cursor, "patient": "pat-shared"})
    assert agreeing.json() == shared[1:]
    other = await scoped_clients.free.get(
        AUDIT_PATH, params={"cursor": cursor, "principal": "key:b", "patient": "pat-a"}
    )
    assert [error["loc"][1] for error in other.json()["errors"]] == ["patient", "principal"]


@pytest.mark.parametrize(
    "query",
    [
        "patient=not%20an%20id",
        "principal=%00",
        "time__gte=yesterday",
        "time__lt=0001-01-01",
        "time__lt=9999-12-31T23:59:59-12:00",
        "cursor=eHg",
        "cursor=OTk5OTk5OTk5OTk5OTk5OTk5OTk5",
        "unknown=1",
    ],
)
async def test_invalid_audit_filters_are_refused(scoped_clients: ScopedClients, query: str) -> None:
    """An invalid filter is a 422 that names the parameter."""
    response = await scoped_clients.free.get(f"{AUDIT_PATH}?{query}")
    assert response.status_code == 422
    assert response.json()["errors"][0]["loc"] == ["query", query.partition("=")[0]]


async def test_restricted_principals_cannot_read_the_audit(scoped_clients: ScopedClients) -> None:
    """A restricted principal cannot read the audit, which would reveal patients outside its hospital scope."""
    response = await scoped_clients.a.get(AUDIT_PATH)
    assert response.status_code == 403
    assert "access/" in response.json()["detail"]


async def test_break_glass_read_is_audited_and_logged(
    database_url: str, scoped_clients: ScopedClients, capsys: Any
) -> None:
    """With its scope, break-glass reads any patient, and is audited with its reason and logged without it."""
    scopes = (Scope.PATIENTS_READ, Scope.BREAK_GLASS)
    key = await make_key(database_url, *scopes, name="emergency", hospitals=["hosA"])
    async with secured_app(database_url) as app, client_for(app, key) as emergency:
        assert (await emergency.get(f"{PATIENTS}pat-b/")).status_code == 404
        headers = {b"X-Break-Glass": "Bewusstlos, Zoë fährt mit".encode()}
        response = await emergency.get(f"{PATIENTS}pat-b/", headers=headers)
        assert (response.status_code, response.json()["unique_id"]) == (200, "pat-b")
        assert (await emergency.get(f"{PATIENTS}pat-never/", headers=headers)).status_code == 404
        assert (await emergency.get(PATIENTS, headers=headers)).json()[0]["unique_id"] == "pat-a"
        assert (await emergency.put(f"{PATIENTS}pat-b/", json={}, headers=headers)).status_code == 403
    log = [line for line in capsys.readouterr().out.splitlines() if "glass broken" in line]
    assert len(log) == 2
    assert all("emergency" in line and "pat-b" not in line and "Zoë" not in line for line in log)
    _, entry, *_ = await newest_entries(scoped_clients, 3, patient="pat-b")
    assert (entry["reason"], entry["principal"]) == ("Bewusstlos, Zoë fährt mit", "key:emergency")
    seen = (await scoped_clients.b.get(f"{PATIENTS}pat-b/access/")).json()[0]
    assert (seen["action"], seen["reason"]) == ("read", "Bewusstlos, Zoë fährt mit")
    assert seen["description"].startswith("Viewed the record in an emergency")


INVALID_REASONS = [
    "",
    "  ",
    "...",
    "123",
    "x",
    "xxxxx xxxxx",
    "Emergency",
    "abcd 1 2 3",
    "a b c d",
    "Brought in\tby ambulance",
]


async def test_break_glass_without_a_meaningful_reason_is_refused(
    scoped_clients: ScopedClients, database_url: str
) -> None:
    """A meaningless reason is a 422 that says what it lacks, and a request without the scope is a 403."""
    assert (await scoped_clients.a.get(f"{PATIENTS}pat-b/", headers={"X-Break-Glass": "x"})).status_code == 403
    key = await make_key(database_url, Scope.PATIENTS_READ, Scope.BREAK_GLASS, name="emergency", hospitals=["hosA"])
    too_few = "Say in words why: at least 2, of 10 letters in all, without line breaks"
    async with secured_app(database_url) as app, client_for(app, key) as emergency:
        for reason in [*INVALID_REASONS, "why not " * 63]:
            response = await emergency.get(f"{PATIENTS}pat-b/", headers={"X-Break-Glass": reason})
            assert response.status_code == 422, reason
            (error,) = response.json()["errors"]
            assert error["loc"] == ["header", "X-Break-Glass"]
            assert error["msg"] == ("Must have at most 500 characters" if len(reason) > 500 else too_few), reason


async def test_audit_holds_no_personal_data(scoped_clients: ScopedClients, connection: asyncpg.Connection) -> None:
    """The audit contains ids, and no other personal data."""
    body = patient_body(
        "secret", "hosA", **{key: value for key, value in EXAMPLE_PATIENT.items() if key.startswith("patient_")}
    )
    body["patient_profile"] = {"unique_id": "prof-secret", "email": "secret@example.com"}
    assert (await scoped_clients.free.post(PATIENTS, json=body)).status_code == 201
    await scoped_clients.free.put(f"{PATIENTS}pat-secret/", json={"patient_first_name": "Secretive"})
    await scoped_clients.free.get(f"{PATIENTS}pat-secret/")
    rows = "\n".join(row["row"] for row in await connection.fetch("SELECT t::text AS row FROM audit t"))
    assert "pat-secret" in rows
    for value in [*EXAMPLE_PATIENT.values(), "Secretive", "secret@example.com"]:
        assert not isinstance(value, str) or value not in rows or value in {"J", "Male"}
