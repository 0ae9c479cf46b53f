"""Markers in every personal field of requests by every route: none reaches problems, the audit, logs or telemetry."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import asyncpg
import httpx
import pytest
from fastapi.routing import iter_route_contexts

from app.auth.scopes import Scope
from app.main import create_app
from app.paths import is_fhir_path
from app.settings import Settings
from tests.auth.support import HOSPITALS, PATIENTS, PROFILES, make_key
from tests.auth.test_matrix import RESOURCE_RULES, RULES
from tests.hospital_scope.world import Marker
from tests.observability.support import Collector, collector
from tests.support import ServiceProcess

__all__ = ["collector"]

MARKER = Marker(7777)
MARKER_TEXT = MARKER.values["text"]
UNKNOWN_KEY = f"{MARKER_TEXT}, Ann"
"""An unknown key. A problem repeats only keys that read like a field's name to their sender, and this does not."""
PATIENT_ID, PROFILE_ID = "canary-patient", "canary-profile"
"""May appear in the audit as an id, and nowhere else."""
BREAK_GLASS_REASON = "reasoncanary flies"
"""May appear in the audit as the reason, and nowhere else."""
MARKED_FIELDS = {PATIENTS: MARKER.fields(PATIENTS), PROFILES: MARKER.fields(PROFILES)}
FAILURE_SQLSTATES = ("P0001", "57014", "40001", "23503", "23514", "22001", "42501")
"""SQLSTATEs with which the database fails; the error message contains the whole row."""
_CREATE_FAILING_FUNCTION = """
CREATE OR REPLACE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION '%', NEW USING ERRCODE = TG_ARGV[0], DETAIL = NEW::text, HINT = NEW::text; END $$
"""


def marked_body(path: str) -> dict[str, Any]:
    """Return a body with a marker in every personal field, also of the profile that it links."""
    if path.startswith(PROFILES):
        return MARKED_FIELDS[PROFILES]
    if is_fhir_path(path):
        return {"resourceType": "Patient", "id": PATIENT_ID, **_marked_resource()}
    if path.startswith(PATIENTS):
        nested = {"unique_id": PROFILE_ID, **MARKED_FIELDS[PROFILES]}
        return {**MARKED_FIELDS[PATIENTS], "patient_profile": nested, "hospital_ids": ["hosA"]}
    return {"hospital_name": "General"} if path.startswith(HOSPITALS) else {"doctor_first_name": "Smith"}


def _marked_resource() -> dict[str, Any]:
    """Return elements of a Patient with a marker in each text, of which the register cannot hold some."""
    fields = MARKED_FIELDS[PATIENTS]
    return {
        "name": [{"family": fields["patient_last_name"], "given": [MARKER_TEXT], "period": {"start": MARKER_TEXT}}],
        "telecom": [{"system": "email", "value": fields["patient_email_address"]}, {"system": MARKER_TEXT}],
        "gender": MARKER_TEXT,
        "birthDate": MARKER_TEXT,
        "address": [{"city": MARKER_TEXT, "line": [MARKER_TEXT] * 3}],
        "extension": [{"url": MARKER_TEXT, "valueString": MARKER_TEXT}],
        "managingOrganization": {"reference": MARKER_TEXT, "display": MARKER_TEXT},
        UNKNOWN_KEY: MARKER_TEXT,
    }


def invalid_body_arguments(body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield bodies that are refused for different reasons, as arguments of a request."""
    as_json = {"Content-Type": "application/json"}
    yield {
        "json": {
            **body,
            UNKNOWN_KEY: MARKER_TEXT,
            "patient_gender": MARKER_TEXT,
            "patient_date_of_birth": MARKER_TEXT,
            "version": MARKER_TEXT,
        }
    }
    yield {"json": {name: [value] for name, value in body.items()}}
    yield {"json": {name: f"{value}\u0000" for name, value in body.items()}}
    yield {"json": {name: f"{value}" * 60 for name, value in body.items()}}
    yield {
        "json": {
            "unique_id": f"{MARKER_TEXT} {MARKER_TEXT}",
            "patient_profile": {"unique_id": f"/{MARKER_TEXT}", UNKNOWN_KEY: MARKER_TEXT},
        }
    }
    yield {"json": {"hospital_ids": [f"{MARKER_TEXT} ", {UNKNOWN_KEY: MARKER_TEXT}], "doctor_ids": MARKER_TEXT}}
    yield {"json": [MARKER_TEXT, body]}
    yield {"content": f'{{"{UNKNOWN_KEY}": "{MARKER_TEXT}', "headers": as_json}
    yield {"content": f'{{"{UNKNOWN_KEY}": 1, "{UNKNOWN_KEY}": 2}}', "headers": as_json}
    yield {"content": f'{{"{UNKNOWN_KEY}": 1}}'.encode("utf-16"), "headers": as_json}
    yield {"content": f'{{"patient_town": "{MARKER_TEXT}"}}', "headers": {"Content-Type": f"text/{MARKER_TEXT}"}}
    yield {"content": MARKER_TEXT * 150_000, "headers": as_json}


def marked_requests() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield requests by every route, with markers in every place that can hold one."""
    odd = {
        "If-Match": f'"{MARKER_TEXT}"',
        "X-Request-ID": f"{MARKER_TEXT} !",
        "User-Agent": MARKER_TEXT,
        "Cookie": f"{MARKER_TEXT}={MARKER_TEXT}",
    }
    query = dict.fromkeys(
        ("limit", "cursor", "patient", "principal", "time__gte", "time__lt", UNKNOWN_KEY), f"{MARKER_TEXT} "
    )
    for operation, rule in RULES.items():
        if rule.method == "DELETE":
            continue
        path = rule.path.replace("/one/", f"/{PATIENT_ID if rule.path.startswith(PATIENTS) else PROFILE_ID}/")
        body = {"version": 1} if operation.startswith("restore") else marked_body(path) if rule.body else None
        keywords: dict[str, Any] = {} if body is None else {"json": body}
        yield rule.method, path, keywords
        yield rule.method, path, {**keywords, "headers": odd}
        yield rule.method, path, {**keywords, "headers": {**odd, "If-Match": "*", "Idempotency-Key": MARKER_TEXT}}
        yield (
            rule.method,
            path,
            {**keywords, "headers": {"If-None-Match": MARKER_TEXT, "Idempotency-Key": f"{MARKER_TEXT} {MARKER_TEXT}"}},
        )
        yield rule.method, path, {**keywords, "params": query}
        yield (
            rule.method,
            path,
            {**keywords, "headers": {"Authorization": f"Bearer {MARKER_TEXT}", "X-API-Key": MARKER_TEXT}},
        )
        yield rule.method, path, {**keywords, "headers": {"X-Break-Glass": BREAK_GLASS_REASON}}
        yield rule.method, rule.path.replace("/one/", f"/{MARKER_TEXT} /"), keywords
        yield "OPTIONS", path, {"headers": {"Origin": MARKER_TEXT}}
        if body is not None:
            for wrong in invalid_body_arguments(body):
                yield rule.method, path, wrong
    for filters in (
        {"search": MARKER_TEXT, "limit": 1, "count": "exact"},
        {"search": f"{MARKER_TEXT} {MARKER.values['patient_date_of_birth']} {MARKER.values['patient_mobile_number']}"},
        {"search": f"{MARKER_TEXT} 1 2 3 4 5 6 7 8 9"},
        {
            "patient_town": MARKER_TEXT,
            "patient_last_name__startswith": MARKER_TEXT[:3],
            "ordering": "-patient_last_name",
            "limit": 1,
        },
        {
            "patient_mobile_number": MARKER_TEXT,
            "patient_date_of_birth": MARKER_TEXT,
            "cursor": MARKER_TEXT,
            "ordering": MARKER_TEXT,
        },
    ):
        yield "GET", PATIENTS, {"params": filters}
        yield "POST", f"{PATIENTS}search/", {"json": filters}
    key = {"Idempotency-Key": f"again-{MARKER_TEXT}"}
    for last_name in (MARKER_TEXT, MARKER_TEXT, f"{MARKER_TEXT}, another"):
        body = {**marked_body(PATIENTS), "patient_last_name": last_name}
        yield "POST", PATIENTS, {"json": body, "headers": key}
    yield "POST", f"{PATIENTS}{PATIENT_ID}/restore/", {"json": {"version": 1}, "headers": key}
    yield "GET", f"/{MARKER_TEXT}/{MARKER_TEXT}", {"params": {UNKNOWN_KEY: MARKER_TEXT}}
    yield "GET", "/changes/", {"params": {"after": MARKER_TEXT, "resource": MARKER_TEXT}}
    yield "PURGE", f"{PATIENTS}{PATIENT_ID}/", {}
    yield (
        "GET",
        f"{PATIENTS}{PATIENT_ID}/",
        {"headers": {"X-Break-Glass": f"{BREAK_GLASS_REASON}\t{BREAK_GLASS_REASON}"}},
    )
    yield "GET", f"{PATIENTS}{PATIENT_ID}/", {"headers": {"X-Break-Glass": BREAK_GLASS_REASON * 60}}


class CanarySender:
    """Sends requests, and keeps the problems with which they are refused."""

    def __init__(self, *clients: httpx.AsyncClient) -> None:
        self.clients = clients
        self.problems: list[str] = []
        self.statuses: set[int] = set()

    async def send(self, method: str, path: str, **keywords: Any) -> None:
        for client in self.clients:
            response = await client.request(method, path, **keywords)
            self.statuses.add(response.status_code)
            if response.status_code >= 400:
                self.problems.append(f"{response.text}\n{response.headers}")

    async def send_all(self) -> None:
        for method, path, keywords in marked_requests():
            await self.send(method, path, **keywords)

    async def delete_and_restore(self) -> None:
        """Delete the existing records and restore them."""
        body = marked_body(PATIENTS)
        for path in (f"{PATIENTS}{PATIENT_ID}/", f"{PROFILES}{PROFILE_ID}/"):
            await self.send("DELETE", path, headers={"If-Match": f'"{MARKER_TEXT}"'})
            await self.send("DELETE", path)
            await self.send("GET", f"{path}history/")
            await self.send("POST", path.replace(f"{PATIENT_ID}/", ""), json={**body, "unique_id": PATIENT_ID})
            await self.send("POST", f"{path}restore/", json={"version": 1}, headers={"Idempotency-Key": MARKER_TEXT})
        for path in RESOURCE_RULES["delete_hospital"].path, RESOURCE_RULES["delete_doctor"].path:
            await self.send("DELETE", path)

    async def provoke_database_failures(self, connection: asyncpg.Connection) -> None:
        """Make the database fail in the middle of changes and on commit."""
        await connection.execute(_CREATE_FAILING_FUNCTION)
        for trigger_template in (
            "TRIGGER fail BEFORE INSERT OR UPDATE ON {} ",
            "CONSTRAINT TRIGGER fail AFTER INSERT ON {} DEFERRABLE INITIALLY DEFERRED ",
        ):
            for table in ("patients", "profiles", "journal", "audit"):
                for sqlstate in FAILURE_SQLSTATES if table != "audit" else FAILURE_SQLSTATES[:1]:
                    trigger = trigger_template.format(table)
                    await connection.execute(f"CREATE {trigger} FOR EACH ROW EXECUTE FUNCTION fail('{sqlstate}')")
                    await self.send("POST", PATIENTS, json=marked_body(PATIENTS))
                    await self.send(
                        "PUT",
                        f"{PATIENTS}{PATIENT_ID}/",
                        json={**marked_body(PATIENTS), "patient_town": f"{MARKER_TEXT} {sqlstate}"},
                    )
                    await connection.execute(f"DROP TRIGGER fail ON {table}")


@pytest.mark.long
async def test_personal_data_stays_out_of_errors_audit_logs_and_metrics(
    serve: Callable[..., ServiceProcess],
    database_url: str,
    connection: asyncpg.Connection,
    capfd: pytest.CaptureFixture[str],
    collector: Collector,
) -> None:
    """Requests of every kind, route and principal, and database failures, leave no personal data in any output."""
    admin_key = await make_key(database_url, Scope.ADMIN, name="free")
    restricted_key = await make_key(
        database_url, *(scope for scope in Scope if scope != Scope.ADMIN), name="a", hospitals=["hosA"]
    )
    served = serve(
        DATABASE_URL=database_url,
        PATIENTS_AUTH="required",
        PATIENTS_RATE_LIMIT="off",
        PATIENTS_SLOW_QUERY_MS="1",
        # each export repeats all series so far; the service exports once more at its end, and when it has 512 spans
        **collector.environment(OTEL_METRIC_EXPORT_INTERVAL="5000", OTEL_BSP_SCHEDULE_DELAY="500"),
    )
    async with (
        httpx.AsyncClient(base_url=served.url, headers={"X-API-Key": admin_key}) as free,
        httpx.AsyncClient(base_url=served.url, headers={"X-API-Key": restricted_key}) as a,
    ):
        for hospital in ("hosA", "one"):
            await free.post(HOSPITALS, json={"unique_id": hospital, "hospital_name": "General"})
        new = await free.post(PATIENTS, json={**marked_body(PATIENTS), "unique_id": PATIENT_ID})
        assert new.status_code == 201, new.text
        canary = CanarySender(a, free)
        await canary.send_all()
        await canary.delete_and_restore()
        await canary.provoke_database_failures(connection)
        metrics = (await free.get("/metrics")).text
    served.process.terminate()
    await asyncio.to_thread(served.process.wait, 20)
    assert {200, 201, 204, 400, 401, 403, 404, 405, 409, 412, 413, 415, 422, 500, 503} <= canary.statuses

    rows = await connection.fetch("SELECT * FROM audit")
    outputs = {
        "log": "".join(served.stdout_lines) + capfd.readouterr().err,
        "problems": "\n".join(canary.problems),
        "audit": "\n".join(str({**row, "ids": None, "reason": None}) for row in rows),
        "metrics": metrics,
        "exported": b"".join(body for _, body in collector.received).decode("latin-1"),
        # add each further output that must not contain personal data
    }
    for output, text in outputs.items():
        assert text, output
        lowercase_text = text.lower()
        for trace in (*MARKER.traces, PATIENT_ID, PROFILE_ID, BREAK_GLASS_REASON):
            assert trace.lower() not in lowercase_text, (output, trace)
    made = {row["unique_id"] for row in await connection.fetch("SELECT unique_id FROM journal")}
    assert {unique_id for row in rows for unique_id in row["ids"]} <= made | {"one"}
    assert {row["reason"] for row in rows} == {None, BREAK_GLASS_REASON}
    app = create_app(Settings.model_validate({"database_url": "postgresql://never-asked/"}))
    assert {path for path, _ in collector.received} == {"/v1/traces", "/v1/metrics"}
    assert "slow statement" in {line["event"] for line in served.log_entries()}
    templates = {str(route.path) for route in iter_route_contexts(app.routes)} - {"/livez", "/readyz", "/docs/assets"}
    assert templates <= {line.get("route") for line in served.log_entries()}, "some routes were not requested"
