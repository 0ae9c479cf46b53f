"""Markers in every personal field of requests by every route: none in problems, the audit, or what operators see."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import asyncpg
import httpx
import pytest
from fastapi.routing import iter_route_contexts

from app.auth.scopes import Scope
from app.main import create_app
from app.settings import Settings
from tests.auth.support import HOSPITALS, PATIENTS, PROFILES, make_key
from tests.auth.test_matrix import RESOURCES, RULES
from tests.observability.support import Collector, collected
from tests.support import Served
from tests.walls.world import Marker

__all__ = ["collected"]

MARKER = Marker(7777)
TEXT = MARKER.values["text"]
KEY = f"{TEXT}, Ann"
"""A key that nobody asked for. One that reads as a field's name is repeated to its sender, and this is no such one."""
ID, PROFILE_ID = "canary-patient", "canary-profile"
"""May stand in the audit, among the ids, and nowhere else."""
REASON = "reasoncanary flies"
"""May stand in the audit, as the reason, and nowhere else."""
PERSONAL = {PATIENTS: MARKER.fields(PATIENTS), PROFILES: MARKER.fields(PROFILES)}
FAILURES = ("P0001", "57014", "40001", "23503", "23514", "22001", "42501")
"""SQLSTATEs with which the database fails; the message holds the whole row."""
_FAIL = """
CREATE OR REPLACE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION '%', NEW USING ERRCODE = TG_ARGV[0], DETAIL = NEW::text, HINT = NEW::text; END $$
"""


def body_of(path: str) -> dict[str, Any]:
    """A body with a marker in every field that says something of a person, and in what it is linked to."""
    if path.startswith(PROFILES):
        return PERSONAL[PROFILES]
    if path.startswith(PATIENTS):
        nested = {"unique_id": PROFILE_ID, **PERSONAL[PROFILES]}
        return {**PERSONAL[PATIENTS], "patient_profile": nested, "hospital_ids": ["hosA"]}
    return {"hospital_name": "General"} if path.startswith(HOSPITALS) else {"doctor_first_name": "Smith"}


def wrong_bodies(body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Bodies that are refused, each for another reason, as arguments of a request."""
    as_json = {"Content-Type": "application/json"}
    yield {"json": {**body, KEY: TEXT, "patient_gender": TEXT, "patient_date_of_birth": TEXT, "version": TEXT}}
    yield {"json": {name: [value] for name, value in body.items()}}
    yield {"json": {name: f"{value}\u0000" for name, value in body.items()}}
    yield {"json": {name: f"{value}" * 60 for name, value in body.items()}}
    yield {"json": {"unique_id": f"{TEXT} {TEXT}", "patient_profile": {"unique_id": f"/{TEXT}", KEY: TEXT}}}
    yield {"json": {"hospital_ids": [f"{TEXT} ", {KEY: TEXT}], "doctor_ids": TEXT}}
    yield {"json": [TEXT, body]}
    yield {"content": f'{{"{KEY}": "{TEXT}', "headers": as_json}
    yield {"content": f'{{"{KEY}": 1, "{KEY}": 2}}', "headers": as_json}
    yield {"content": f'{{"{KEY}": 1}}'.encode("utf-16"), "headers": as_json}
    yield {"content": f'{{"patient_town": "{TEXT}"}}', "headers": {"Content-Type": f"text/{TEXT}"}}
    yield {"content": TEXT * 150_000, "headers": as_json}


def requests() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Requests by every route: with markers wherever there is room for one."""
    odd = {"If-Match": f'"{TEXT}"', "X-Request-ID": f"{TEXT} !", "User-Agent": TEXT, "Cookie": f"{TEXT}={TEXT}"}
    query = dict.fromkeys(("limit", "cursor", "patient", "principal", "time__gte", "time__lt", KEY), f"{TEXT} ")
    for operation, rule in RULES.items():
        if rule.method == "DELETE":
            continue
        path = rule.path.replace("/one/", f"/{ID if rule.path.startswith(PATIENTS) else PROFILE_ID}/")
        body = {"version": 1} if operation.startswith("restore") else body_of(path) if rule.body else None
        keywords: dict[str, Any] = {} if body is None else {"json": body}
        yield rule.method, path, keywords
        yield rule.method, path, {**keywords, "headers": odd}
        yield rule.method, path, {**keywords, "headers": {**odd, "If-Match": "*", "Idempotency-Key": TEXT}}
        yield rule.method, path, {**keywords, "headers": {"If-None-Match": TEXT, "Idempotency-Key": f"{TEXT} {TEXT}"}}
        yield rule.method, path, {**keywords, "params": query}
        yield rule.method, path, {**keywords, "headers": {"Authorization": f"Bearer {TEXT}", "X-API-Key": TEXT}}
        yield rule.method, path, {**keywords, "headers": {"X-Break-Glass": REASON}}
        yield rule.method, rule.path.replace("/one/", f"/{TEXT} /"), keywords
        yield "OPTIONS", path, {"headers": {"Origin": TEXT}}
        if body is not None:
            for wrong in wrong_bodies(body):
                yield rule.method, path, wrong
    for wanted in (
        {"search": TEXT, "limit": 1, "count": "exact"},
        {"search": f"{TEXT} {MARKER.values['patient_date_of_birth']} {MARKER.values['patient_mobile_number']}"},
        {"search": f"{TEXT} 1 2 3 4 5 6 7 8 9"},
        {"patient_town": TEXT, "patient_last_name__startswith": TEXT[:3], "ordering": "-patient_last_name", "limit": 1},
        {"patient_mobile_number": TEXT, "patient_date_of_birth": TEXT, "cursor": TEXT, "ordering": TEXT},
    ):
        yield "GET", PATIENTS, {"params": wanted}
        yield "POST", f"{PATIENTS}search/", {"json": wanted}
    key = {"Idempotency-Key": f"again-{TEXT}"}
    for last_name in (TEXT, TEXT, f"{TEXT}, another"):
        body = {**body_of(PATIENTS), "patient_last_name": last_name}
        yield "POST", PATIENTS, {"json": body, "headers": key}
    yield "POST", f"{PATIENTS}{ID}/restore/", {"json": {"version": 1}, "headers": key}
    yield "GET", f"/{TEXT}/{TEXT}", {"params": {KEY: TEXT}}
    yield "PURGE", f"{PATIENTS}{ID}/", {}
    yield "GET", f"{PATIENTS}{ID}/", {"headers": {"X-Break-Glass": f"{REASON}\t{REASON}"}}
    yield "GET", f"{PATIENTS}{ID}/", {"headers": {"X-Break-Glass": REASON * 60}}


class Canary:
    """Sends requests, and keeps the problems that they are answered with."""

    def __init__(self, *clients: httpx.AsyncClient) -> None:
        self.clients = clients
        self.problems: list[str] = []
        self.statuses: set[int] = set()

    async def send(self, method: str, path: str, **keywords: Any) -> None:
        for client in self.clients:
            answer = await client.request(method, path, **keywords)
            self.statuses.add(answer.status_code)
            if answer.status_code >= 400:
                self.problems.append(f"{answer.text}\n{answer.headers}")

    async def send_all(self) -> None:
        for method, path, keywords in requests():
            await self.send(method, path, **keywords)

    async def end(self) -> None:
        """Delete what there is, and bring it back."""
        body = body_of(PATIENTS)
        for path in (f"{PATIENTS}{ID}/", f"{PROFILES}{PROFILE_ID}/"):
            await self.send("DELETE", path, headers={"If-Match": f'"{TEXT}"'})
            await self.send("DELETE", path)
            await self.send("GET", f"{path}history/")
            await self.send("POST", path.replace(f"{ID}/", ""), json={**body, "unique_id": ID})
            await self.send("POST", f"{path}restore/", json={"version": 1}, headers={"Idempotency-Key": TEXT})
        for path in RESOURCES["delete_hospital"].path, RESOURCES["delete_doctor"].path:
            await self.send("DELETE", path)

    async def fail(self, connection: asyncpg.Connection) -> None:
        """Have the database fail in the middle of changes, and as they are committed."""
        await connection.execute(_FAIL)
        for when in (
            "TRIGGER fail BEFORE INSERT OR UPDATE ON {} ",
            "CONSTRAINT TRIGGER fail AFTER INSERT ON {} DEFERRABLE INITIALLY DEFERRED ",
        ):
            for table in ("patients", "profiles", "journal", "audit"):
                for state in FAILURES if table != "audit" else FAILURES[:1]:
                    trigger = when.format(table)
                    await connection.execute(f"CREATE {trigger} FOR EACH ROW EXECUTE FUNCTION fail('{state}')")
                    await self.send("POST", PATIENTS, json=body_of(PATIENTS))
                    await self.send(
                        "PUT", f"{PATIENTS}{ID}/", json={**body_of(PATIENTS), "patient_town": f"{TEXT} {state}"}
                    )
                    await connection.execute(f"DROP TRIGGER fail ON {table}")


async def test_no_marker_where_none_belongs(
    serve: Callable[..., Served],
    database_url: str,
    connection: asyncpg.Connection,
    capfd: pytest.CaptureFixture[str],
    collected: Collector,
) -> None:
    """After requests of every kind by every route, by who is limited and who is not, and failures of the database."""
    everything = await make_key(database_url, Scope.ADMIN, name="free")
    limited = await make_key(
        database_url, *(scope for scope in Scope if scope != Scope.ADMIN), name="a", hospitals=["hosA"]
    )
    served = serve(
        DATABASE_URL=database_url,
        PATIENTS_AUTH="required",
        PATIENTS_RATE_LIMIT="off",
        PATIENTS_SLOW_QUERY_MS="1",
        **collected.environment(),
    )
    async with (
        httpx.AsyncClient(base_url=served.url, headers={"X-API-Key": everything}) as free,
        httpx.AsyncClient(base_url=served.url, headers={"X-API-Key": limited}) as a,
    ):
        for hospital in ("hosA", "one"):
            await free.post(HOSPITALS, json={"unique_id": hospital, "hospital_name": "General"})
        new = await free.post(PATIENTS, json={**body_of(PATIENTS), "unique_id": ID})
        assert new.status_code == 201, new.text
        canary = Canary(a, free)
        await canary.send_all()
        await canary.end()
        await canary.fail(connection)
        metrics = (await free.get("/metrics")).text
    served.process.terminate()
    await asyncio.to_thread(served.process.wait, 20)
    assert {200, 201, 204, 400, 401, 403, 404, 405, 409, 412, 413, 415, 422, 500, 503} <= canary.statuses

    rows = await connection.fetch("SELECT * FROM audit")
    told = {
        "log": "".join(served.lines) + capfd.readouterr().err,
        "problems": "\n".join(canary.problems),
        "audit": "\n".join(str({**row, "ids": None, "reason": None}) for row in rows),
        "metrics": metrics,
        "exported": b"".join(body for _, body in collected.received).decode("latin-1"),
        # another place where nothing of a person belongs is one more line here
    }
    for place, text in told.items():
        assert text, place
        for trace in (*MARKER.traces, ID, PROFILE_ID, REASON):
            assert trace.lower() not in text.lower(), (place, trace)
    made = {row["unique_id"] for row in await connection.fetch("SELECT unique_id FROM journal")}
    assert {unique_id for row in rows for unique_id in row["ids"]} <= made | {"one"}
    assert {row["reason"] for row in rows} == {None, REASON}
    app = create_app(Settings.model_validate({"database_url": "postgresql://never-asked/"}))
    assert {path for path, _ in collected.received} == {"/v1/traces", "/v1/metrics"}
    assert "slow statement" in {line["event"] for line in served.log()}
    templates = {str(route.path) for route in iter_route_contexts(app.routes)} - {"/livez", "/readyz", "/docs/assets"}
    assert templates <= {line.get("route") for line in served.log()}, "each route was asked"
