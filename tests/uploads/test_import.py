"""Imports over HTTP: many patients in one request and one transaction."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any

import asyncpg
import httpx
import pytest

from app.auth.scopes import Scope
from tests.auth.support import client_for, make_key, secured_app
from tests.hospital_scope.conftest import ScopedClients, command, patient_body, scoped_clients, serving_url
from tests.support import dump_tables, recorded_statements
from tests.transfer.support import PATIENTS, list_patients, ndjson, run_cli_on
from tests.transfer.test_import import INVALID_BODIES

__all__ = ["command", "scoped_clients", "serving_url"]

IMPORT = f"{PATIENTS}import/"
NDJSON = {"Content-Type": "application/x-ndjson"}


async def post_lines(
    client: httpx.AsyncClient,
    lines: Iterable[Mapping[str, Any]] | str,
    headers: Mapping[str, str] | None = None,
    **parameters: str,
) -> Sequence[dict[str, Any]]:
    """Import lines, and return the results."""
    content = lines if isinstance(lines, str) else ndjson(lines)
    response = await client.post(
        IMPORT, content=content.encode(), params=parameters, headers={**NDJSON, **(headers or {})}
    )
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/x-ndjson"
    return [json.loads(line) for line in response.text.splitlines()]


@pytest.mark.usefixtures("hospitals_and_doctors")
async def test_each_line_becomes_a_patient(client: httpx.AsyncClient, database_url: str) -> None:
    """Each line is stored as a POST would store it, and has a result with the id and the version."""
    lines: list[dict[str, Any]] = [
        {"unique_id": "a", "patient_last_name": "Zulu", "hospital_ids": ["hos123"], "date_created": "2020-01-02"},
        {"patient_first_name": "Ann", "patient_profile": {"unique_id": "p1", "email": "ann@example.com"}},
    ]
    first, second = await post_lines(client, f"\n{ndjson(lines)}")
    assert first == {"line": 2, "status": "created", "unique_id": "a", "version": 1, "errors": []}
    assert (second["line"], second["status"], second["version"]) == (3, "created", 1)
    stored = {one["unique_id"]: one for one in await list_patients(client)}
    assert stored["a"]["date_created"] == "2020-01-02T00:00:00Z"
    assert stored["a"]["patient_hospital"][0]["hospital_name"] == "General Hospital"
    assert stored[second["unique_id"]]["patient_profile"]["email"] == "ann@example.com"
    found = await client.post(f"{PATIENTS}search/", json={"search": "zulo"})
    assert [one["unique_id"] for one in found.json()] == ["a"], "names are in the vocabulary"
    assert (await run_cli_on(database_url, "journal", "verify")).returncode == 0


async def test_results_are_those_of_the_command(client: httpx.AsyncClient) -> None:
    """The errors of each line are those of the API and of the command, and all lines are checked."""
    results = await post_lines(client, INVALID_BODIES)
    assert [result["line"] for result in results] == list(range(1, len(INVALID_BODIES) + 1))
    for body, result in zip(INVALID_BODIES, results, strict=True):
        response = await client.post(PATIENTS, json=body)
        expected = [{**error, "loc": error["loc"][1:]} for error in response.json()["errors"]]
        assert result["status"] == "rejected"
        assert sorted(result["errors"], key=str) == sorted(expected, key=str), body
    assert json.loads((await client.get(PATIENTS)).text) == []


async def test_all_or_nothing_unless_lines_are_skipped(
    client: httpx.AsyncClient, connection: asyncpg.Connection
) -> None:
    """If a line is rejected nothing is stored, or all other lines with `on_error=skip`; a dry run stores nothing."""
    lines = [{"unique_id": f"p{number}", "patient_last_name": "Doe"} for number in range(120)]
    lines[60] = {"unique_id": "p60", "patient_last_name": ""}
    lines[61] = {"unique_id": "p61", "patient_last_name": "Doe", "hospital_ids": ["nowhere"]}  # type: ignore[dict-item]
    lines.append({"patient_last_name": "Roe"})
    before = await dump_tables(connection)
    results = await post_lines(client, lines)
    by_status = {status: [one for one in results if one["status"] == status] for status in ("not_stored", "rejected")}
    assert [one["line"] for one in by_status["rejected"]] == [61, 62]
    assert by_status["rejected"][1]["errors"][0]["type"] == "unknown_hospital"
    assert len(by_status["not_stored"]) == 119
    assert {one["version"] for one in results} == {None}
    assert results[-1]["unique_id"] is None
    dry = await post_lines(client, lines, dry_run="true", on_error="skip")
    assert [one["status"] for one in dry].count("created") == 119
    after = await dump_tables(connection)
    assert {name for name in after if after[name] != before[name]} <= {"audit"}
    results = await post_lines(client, lines, on_error="skip")
    assert [one["status"] for one in results].count("created") == 119
    assert len(await list_patients(client)) == 119


async def test_repetition_and_updates(client: httpx.AsyncClient) -> None:
    """A line that equals its patient is unchanged; another one is rejected, or updates with `update=true`."""
    lines = [{"unique_id": "a", "patient_last_name": "Doe"}, {"unique_id": "b", "patient_last_name": "Roe"}]
    await post_lines(client, lines)
    assert [one["status"] for one in await post_lines(client, lines)] == ["unchanged", "unchanged"]
    changed = [{"unique_id": "a", "patient_town": "Paarl"}, {"unique_id": "a", "patient_town": "Ceres"}]
    (first, second) = await post_lines(client, changed, update="true")
    assert (first["status"], first["version"], second["version"]) == ("updated", 2, 3)
    (rejected,) = await post_lines(client, [{"unique_id": "a", "patient_last_name": "Poe"}])
    assert [error["type"] for error in rejected["errors"]] == ["identifier_taken"]
    (nameless,) = await post_lines(client, [{"unique_id": "new", "patient_town": "Paarl"}], update="true")
    assert [error["type"] for error in nameless["errors"]] == ["name_missing"]
    assert (await client.delete(f"{PATIENTS}b/")).status_code == 204
    (retired,) = await post_lines(client, [lines[1]])
    assert [error["type"] for error in retired["errors"]] == ["identifier_retired"]


async def test_a_key_covers_the_whole_import(client: httpx.AsyncClient) -> None:
    """A repeated Idempotency-Key gets the first results; with another body or other parameters it is rejected."""
    lines = [{"patient_last_name": "Doe"}, {"patient_last_name": "Roe"}]
    key = {"Idempotency-Key": "k1"}
    first = await post_lines(client, lines, headers=key)
    assert await post_lines(client, lines, headers=key) == first
    assert len(await list_patients(client)) == 2
    for body, parameters in ((lines[:1], {}), (lines, {"update": "true"})):
        response = await client.post(
            IMPORT, content=ndjson(body).encode(), headers={**NDJSON, **key}, params=parameters
        )
        assert response.status_code == 422
        assert response.json()["errors"][0]["type"] == "idempotency_key_reused"


@pytest.mark.parametrize(
    ("content", "headers", "parameters", "status"),
    [
        (b"{}", {"Content-Type": "application/json"}, {}, 415),
        (b"{}", NDJSON, {"on_error": "maybe"}, 422),
        (b"{}", NDJSON, {"nothing": "1"}, 422),
        (b"{}\n" * 10_001, NDJSON, {}, 413),
        (b"\n" * 10_001, NDJSON, {}, 413),
        (b" " * (1024 * 1024 + 1), NDJSON, {}, 413),
        (b" " * 17 * 1024 * 1024, NDJSON, {}, 413),
    ],
    ids=["media type", "parameter value", "unknown parameter", "lines", "blank lines", "line", "body"],
)
async def test_unusable_requests_are_problems(
    client: httpx.AsyncClient, content: bytes, headers: dict[str, str], parameters: dict[str, str], status: int
) -> None:
    """A request that cannot be used as a whole gets a problem response."""
    response = await client.post(IMPORT, content=content, headers=headers, params=parameters)
    assert response.status_code == status, response.text
    assert response.json()["status"] == status


async def test_a_byte_order_mark_does_not_matter(client: httpx.AsyncClient) -> None:
    """A body may begin with a byte order mark, as a file for the command may."""
    (result,) = await post_lines(client, '\ufeff{"patient_last_name": "Doe"}\n')
    assert result["status"] == "created"


async def test_an_empty_import_has_no_results(client: httpx.AsyncClient) -> None:
    """A body without lines has no results."""
    assert await post_lines(client, "\n\n") == []


async def test_results_of_restricted_principals_are_those_of_single_requests(scoped_clients: ScopedClients) -> None:
    """A restricted principal can do in an import what it can do line by line, and learns no more."""
    clients = scoped_clients
    lines: dict[str, dict[str, Any]] = {
        "own": {"patient_last_name": "New", "hospital_ids": ["hosA"]},
        "no hospital": {"patient_last_name": "New"},
        "other hospital": {"patient_last_name": "New", "hospital_ids": ["hosA", "hosB"]},
        "chosen id": {"unique_id": "mine", "patient_last_name": "New", "hospital_ids": ["hosA"]},
        "hidden id": {"unique_id": "pat-b", "patient_last_name": "b", "hospital_ids": ["hosA"]},
        "visible": {"unique_id": "pat-a", "patient_town": "Paarl"},
        "shared": {"unique_id": "pat-shared", "hospital_ids": ["hosA"]},
        "left": {"unique_id": "pat-shared", "hospital_ids": []},
        "other profile": {"unique_id": "pat-a", "patient_profile": {"unique_id": "prof-b"}},
    }
    results = dict(zip(lines, await post_lines(clients.a, lines.values(), on_error="skip", update="true"), strict=True))
    assert {name: result["status"] for name, result in results.items()} == {
        "own": "created",
        "no hospital": "rejected",
        "other hospital": "rejected",
        "chosen id": "rejected",
        "hidden id": "rejected",
        "visible": "updated",
        "shared": "unchanged",
        "left": "rejected",
        "other profile": "rejected",
    }
    assert results["chosen id"]["errors"] == results["hidden id"]["errors"], "an id in use elsewhere is not revealed"
    shared = (await clients.free.get(f"{PATIENTS}pat-shared/")).json()
    assert [one["unique_id"] for one in shared["patient_hospital"]] == ["hosA", "hosB", "hosC"]
    assert (await clients.b.get(f"{PATIENTS}{results['own']['unique_id']}/")).status_code == 404


async def test_scopes_are_those_of_single_requests(database_url: str) -> None:
    """Without the scope for profiles, a line with a profile is rejected."""
    async with secured_app(database_url) as app:
        client = client_for(app, await make_key(database_url, Scope.PATIENTS_WRITE))
        body = patient_body("a")
        (result,) = await post_lines(client, [body])
        assert [error["type"] for error in result["errors"]] == ["forbidden"]
        assert (await client.post(PATIENTS, json=body)).status_code == 403


async def test_each_changed_patient_is_audited(client: httpx.AsyncClient, connection: asyncpg.Connection) -> None:
    """Each patient of an import has its row in the audit, with the version, as after single requests."""
    await post_lines(
        client, [{"unique_id": "a", "patient_last_name": "Doe"}, {"unique_id": "b", "patient_last_name": "Roe"}]
    )
    rows = await connection.fetch("SELECT route, status, ids, version FROM audit ORDER BY ids")
    assert [tuple(row) for row in rows] == [(IMPORT, 200, ["a"], 1), (IMPORT, 200, ["b"], 1)]
    await post_lines(client, [{"unique_id": "a", "patient_last_name": "Doe"}], dry_run="true")
    last = await connection.fetchrow("SELECT ids, version FROM audit ORDER BY time DESC LIMIT 1")
    assert tuple(last) == (["a"], None)
    await post_lines(client, [{}], on_error="skip")
    last = await connection.fetchrow("SELECT ids, version FROM audit ORDER BY time DESC LIMIT 1")
    assert tuple(last) == ([], None), "an import that changes nothing is audited, too"


async def test_the_serving_role_can_import(serving_url: str) -> None:
    """An import needs no other rights than single requests."""
    async with secured_app(serving_url, auth="off") as app:
        client = client_for(app)
        (result,) = await post_lines(client, [{"patient_last_name": "Doe"}])
        assert result["status"] == "created"


async def test_an_import_may_take_longer_than_a_request(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An import is not limited to the duration of other requests, and other requests are served meanwhile."""
    monkeypatch.setattr("app.db.database.MIN_TRANSACTION_TIMEOUT_SECONDS", 0.001)
    client_database = client._transport.app.state.services.database  # type: ignore[attr-defined]  # noqa: SLF001  # in this process
    monkeypatch.setattr(client_database, "_timeout_seconds", 0.05)
    lines = [{"unique_id": f"p{number}", "patient_last_name": f"Doe {number}"} for number in range(400)]
    assert [one["status"] for one in await post_lines(client, lines)] == ["created"] * 400


@pytest.mark.parametrize("may_read", [False, True], ids=["without read scope", "with read scope"])
async def test_patients_cannot_be_guessed(
    client: httpx.AsyncClient, database_url: str, connection: asyncpg.Connection, *, may_read: bool
) -> None:
    """To compare is to read: it needs the scope, and the audit names the patient of each line, however it ends."""
    vip = {"unique_id": "vip", "patient_last_name": "Roe", "patient_date_of_birth": "1975-03-02"}
    await post_lines(client, [vip])
    guesses = [{**vip, "patient_date_of_birth": f"1975-03-{day:02}"} for day in range(1, 4)]
    scopes = [Scope.PATIENTS_WRITE, *([Scope.PATIENTS_READ] if may_read else [])]
    async with secured_app(database_url) as app:
        writer = client_for(app, await make_key(database_url, *scopes, name="writer"))
        for parameters in ({}, {"dry_run": "true"}, {"on_error": "skip"}):
            results = await post_lines(writer, [*guesses, {}], None, **parameters)
            assert len({(one["status"], str(one["errors"])) for one in results[:3]}) == 1 + may_read
        results = await post_lines(writer, guesses[:1], dry_run="true")
    rows = await connection.fetch("SELECT ids FROM audit WHERE principal = 'key:writer' ORDER BY time")
    assert [list(row["ids"]) for row in rows] == [["vip"] if may_read else []] * 4


async def test_updates_cannot_damage_patients_silently(client: httpx.AsyncClient) -> None:
    """A line that replaces a person is rejected unless that is allowed, and lost zeros are reported."""
    stored = {"unique_id": "1", "patient_last_name": "Doe", "patient_date_of_birth": "1980-01-01"}
    await post_lines(client, [{**stored, "patient_postal_code": "0699"}])
    other = {"unique_id": "1", "patient_last_name": "Zulu", "patient_date_of_birth": "1991-01-31"}
    zeros = {"unique_id": "1", "patient_postal_code": "699"}
    first, second = await post_lines(client, [other, zeros], update="true", on_error="skip")
    assert (first["status"], second["status"], second["version"]) == ("rejected", "updated", 2)
    assert [(one["loc"], one["type"]) for one in first["errors"]] == [(["unique_id"], "other_person")]
    assert [(one["loc"], one["type"]) for one in second["errors"]] == [(["patient_postal_code"], "zeros_lost")]
    (allowed,) = await post_lines(client, [other], update="true", allow_other_person="true")
    assert (allowed["status"], allowed["errors"]) == ("updated", [])


async def test_lines_that_share_statements_are_written_like_single_requests(client: httpx.AsyncClient) -> None:
    """Neither equal profiles, nor other sets of fields, nor rejected lines between them change what a line does."""
    profile = {"unique_id": "prof1", "email": "first@example.com"}
    lines: list[dict[str, Any]] = [
        {"unique_id": f"p{number}", "patient_last_name": "Doe", "date_created": f"2020-01-{number + 1:02}"}
        for number in range(20)
    ]
    lines[3]["patient_profile"] = profile
    lines[4]["patient_profile"] = {**profile, "email": "last@example.com"}
    lines[7]["hospital_ids"] = ["nowhere"]
    lines[9] = {"unique_id": "p9", "patient_first_name": "Ann", "last_updated": "2020-01-09"}
    results = await post_lines(client, lines, on_error="skip")
    assert [one["line"] for one in results if one["status"] == "rejected"] == [8]
    assert [one["unique_id"] for one in results if one["status"] == "created"] == [
        f"p{number}" for number in range(20) if number != 7
    ]
    stored = {one["unique_id"]: one for one in await list_patients(client)}
    assert stored["p3"]["patient_profile"]["email"] == stored["p4"]["patient_profile"]["email"] == "last@example.com"
    assert stored["p9"]["date_created"] == "2020-01-09T00:00:00Z"
    assert stored["p19"]["date_created"] == "2020-01-20T00:00:00Z"
    changed = [{**line, "patient_town": "Paarl"} for line in lines[10:]]
    assert [one["status"] for one in await post_lines(client, changed, on_error="skip")] == ["rejected"] * 10
    mixed = [{**lines[10], "patient_town": "Paarl"}, *lines[11:13], {"patient_last_name": "New"}]
    assert [one["status"] for one in await post_lines(client, mixed, on_error="skip")] == [
        *("rejected", "unchanged", "unchanged", "created")
    ]
    updated = await post_lines(client, mixed, update="true")
    assert [one["version"] for one in updated] == [2, 1, 1, 1]


@pytest.mark.usefixtures("hospitals_and_doctors")
async def test_rejected_lines_have_the_errors_of_single_requests(client: httpx.AsyncClient) -> None:
    """Lines that are found to be wrong before they are written get the errors that writing them finds."""
    await post_lines(client, [{"unique_id": "gone", "patient_last_name": "Doe"}])
    assert (await client.delete(f"{PATIENTS}gone/")).status_code == 204
    wrong: list[dict[str, Any]] = [
        {"patient_last_name": "Doe", "hospital_ids": ["hos456", "nowhere", "hos123"], "doctor_ids": ["nobody"]},
        {"patient_last_name": "Doe", "patient_profile": {"unique_id": "prof1"}, "doctor_ids": ["doc123", "nobody"]},
        {"unique_id": "gone", "patient_last_name": "Doe"},
        {"unique_id": "gone2", "patient_last_name": "Doe", "hospital_ids": ["nowhere"]},
        {
            "patient_last_name": "Doe",
            "hospital_ids": ["nowhere"],
            "patient_identifiers": [{"type": "other", "value": "-"}],
        },
    ]
    expected = []
    for body in wrong:
        problem = (await client.post(PATIENTS, json=body)).json()
        expected.append(
            [(error["loc"][1:], error["msg"]) for error in problem.get("errors", [])]
            or [(["unique_id"], problem["detail"])]
        )
    lines = [line for _ in range(8) for line in [*wrong, {"patient_last_name": "Doe", "hospital_ids": ["hos123"]}]]
    results = await post_lines(client, lines, on_error="skip")
    assert [one["status"] for one in results] == [*["rejected"] * len(wrong), "created"] * 8
    assert [[(e["loc"], e["msg"]) for e in one["errors"]] for one in results] == [*expected, []] * 8


async def test_an_import_that_takes_too_long_says_what_to_do(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An import that exceeds its time stores nothing, and the response says to send fewer lines."""
    monkeypatch.setattr("app.uploads.routes.IMPORT_TIMEOUT_SECONDS", 0.01)
    monkeypatch.setattr("app.db.database.MIN_TRANSACTION_TIMEOUT_SECONDS", 0.001)
    lines = [{"patient_last_name": f"Doe {number}"} for number in range(2000)]
    response = await client.post(IMPORT, content=ndjson(lines).encode(), headers=NDJSON)
    assert response.status_code == 503
    assert "Send fewer lines" in response.json()["detail"]
    assert await list_patients(client) == []


async def slow_body(is_begun: asyncio.Event, may_end: asyncio.Event) -> AsyncIterator[bytes]:
    """Yield a body that does not arrive whole before `may_end`."""
    yield b'{"patient_last_name": '
    is_begun.set()
    await may_end.wait()
    yield b'"Roe"}'


async def test_a_slow_body_does_not_delay_others(database_url: str) -> None:
    """Bodies that arrive slowly do not prevent others from importing."""
    begun, may_end = [asyncio.Event() for _ in range(3)], asyncio.Event()
    async with secured_app(database_url) as app:
        *slow_clients, other = [
            client_for(app, await make_key(database_url, Scope.PATIENTS_WRITE, name=f"k{number}"))
            for number in range(4)
        ]
        slow = [
            asyncio.create_task(client.post(IMPORT, content=slow_body(event, may_end), headers=NDJSON))
            for client, event in zip(slow_clients, begun, strict=True)
        ]
        async with asyncio.timeout(30):
            await asyncio.gather(*(event.wait() for event in begun))
        (result,) = await post_lines(other, [{"patient_last_name": "Doe"}])
        assert result["status"] == "created"
        may_end.set()
        responses = await asyncio.gather(*slow)
    assert {response.status_code for response in responses} <= {200, 503}, "two imports are written at a time"
    assert 200 in {response.status_code for response in responses}


async def test_a_body_has_a_time_limit(client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """A body that does not arrive in time gets a 408, and nothing is stored."""
    monkeypatch.setattr("app.uploads.routes.RECEIVE_TIMEOUT_SECONDS", 0.05)
    response = await client.post(IMPORT, content=slow_body(asyncio.Event(), asyncio.Event()), headers=NDJSON)
    assert response.status_code == 408
    assert "Send less data per request" in response.json()["detail"]
    assert await list_patients(client) == []


async def test_rejected_lines_share_statements(client: httpx.AsyncClient) -> None:
    """The links of lines that are rejected are examined together, so twice the lines need no statement for each."""

    async def statement_count(line_count: int) -> int:
        lines = [{"patient_last_name": "Doe", "hospital_ids": [f"none{number}"]} for number in range(line_count)]
        with recorded_statements() as sent:
            results = await post_lines(client, lines, on_error="skip")
        assert {result["status"] for result in results} == {"rejected"}
        return len(sent)

    await statement_count(100)
    assert await statement_count(400) - await statement_count(200) < 100
