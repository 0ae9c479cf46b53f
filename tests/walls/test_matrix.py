"""Every route by every principal and every record: who gets what, and that hidden ones are as absent ones."""

from collections.abc import AsyncIterator, Iterator
from typing import Any, NamedTuple

import httpx
import pytest
from fastapi.routing import iter_route_contexts

from app.main import create_app
from app.settings import Settings
from tests.auth.support import PATIENTS, PROFILES, client_of, secured
from tests.auth.test_matrix import OPEN, RESOURCES
from tests.walls.conftest import Register


class Rule(NamedTuple):
    """A request about one record, and its answer by what the record is to the principal; hidden ones are a 404."""

    method: str
    path: str
    body: dict[str, Any] | None
    statuses: dict[str, int]

    @property
    def changes(self) -> bool:
        return self.method != "GET"


def _of_one(name: str, change: dict[str, Any], delete: dict[str, int]) -> dict[str, Rule]:
    there = {"there": 200, "spare": 200, "deleted": 404}
    ever = {**there, "deleted": 200}
    return {
        f"get_{name}": Rule("GET", "", None, there),
        f"update_{name}": Rule("PUT", "", change, there),
        f"patch_{name}": Rule("PATCH", "", change, there),
        f"list_{name}_history": Rule("GET", "history/", None, ever),
        f"get_{name}_version": Rule("GET", "history/1/", None, ever),
        f"restore_{name}": Rule("POST", "restore/", {"version": 1}, ever),
        f"delete_{name}": Rule("DELETE", "", None, {**there, **delete}),
    }


RULES = {
    PATIENTS: {
        **_of_one("patient", {"patient_title": "Dr."}, {"there": 204}),
        "list_patient_access": Rule("GET", "access/", None, {"there": 200, "deleted": 200}),
    },
    PROFILES: _of_one("profile", {"first_name": "Ann"}, {"there": 409, "spare": 204}),
}
"""By the path of the resource, and the route's name."""
PREFIXES = {PATIENTS: "pat", PROFILES: "prof"}
SEEN = {
    PATIENTS: {
        "a": {"a": "there", "shared": "there", "gone": "deleted"},
        "b": {"b": "there", "shared": "there", "lost": "deleted"},
        "both": {"a": "there", "b": "there", "shared": "there", "gone": "deleted", "lost": "deleted"},
        "free": dict.fromkeys(("a", "b", "shared", "none"), "there") | dict.fromkeys(("gone", "lost"), "deleted"),
    },
    PROFILES: {
        "a": {"a": "there", "shared": "there"},
        "b": {"b": "there", "shared": "there"},
        "both": {"a": "there", "b": "there", "shared": "there"},
        "free": dict.fromkeys(("a", "b", "shared", "none"), "there")
        | dict.fromkeys(("gone", "lost", "free"), "spare")
        | {"retired": "deleted"},
    },
}
"""What of each resource each principal sees, and how; the rest is hidden."""
NAMES = {name for seen in SEEN.values() for name in seen["free"]}
COLLECTIONS = {
    "list_patients",
    "search_patients",
    "create_patient",
    "list_profiles",
    "create_profile",
    "list_audit_entries",
}
OF_NOBODY = {"metrics"}
"""They tell of no record."""
DIRECTORY = {name: rule for name, rule in RESOURCES.items() if rule.scope and rule.path[1:4] in {"hos", "doc"}}
"""Hospitals and doctors are nobody's secret: they are behind no wall."""
PRINCIPALS = ("a", "b", "both", "free")


def test_the_table_has_every_route() -> None:
    """A route that is new fails here: say who sees what by it."""
    app = create_app(Settings.model_validate({"database_url": "postgresql://never-asked/"}))
    found = [route.name or str(route.path) for route in iter_route_contexts(app.routes)]
    assert sorted(found) == sorted([*RULES[PATIENTS], *RULES[PROFILES], *COLLECTIONS, *DIRECTORY, *OF_NOBODY, *OPEN])


@pytest.fixture
async def strict(register: Register, database_url: str) -> AsyncIterator[Register]:
    """The same principals at a service that requires If-Match."""
    async with secured(database_url, rate_limit="off", require_if_match=True) as app:
        keys = [client.headers["Authorization"].removeprefix("Bearer ") for client in register]
        clients = [client_of(app, key) for key in keys]
        yield Register(*clients)
        for client in clients:
            await client.aclose()


async def mend(free: httpx.AsyncClient, answer: httpx.Response, rule: Rule, one: str, relation: str) -> None:
    """Undo a deletion, or the restoring of what was deleted."""
    if answer.status_code == 204:
        assert (await free.post(f"{one}restore/", json={"version": 1})).status_code == 200
    elif rule.path == "restore/" and relation == "deleted" and answer.status_code == 200:
        assert (await free.delete(one)).status_code == 204


def told(answer: httpx.Response) -> tuple[int, object, dict[str, str]]:
    """All that an answer tells, but which request it is of, and when."""
    body: object = answer.text
    if answer.content and answer.headers["Content-Type"] == "application/problem+json":
        body = {key: value for key, value in answer.json().items() if key not in {"request_id", "instance"}}
    return (
        answer.status_code,
        body,
        {name: value for name, value in answer.headers.items() if name not in {"x-request-id", "date"}},
    )


@pytest.mark.usefixtures("records")
@pytest.mark.parametrize("resource", RULES)
@pytest.mark.parametrize("who", PRINCIPALS)
async def test_everybody_is_answered_as_the_table_says(register: Register, who: str, resource: str) -> None:
    """Each route about one record, for each principal and each record: exactly this status."""
    client: httpx.AsyncClient = getattr(register, who)
    got, expected = {}, {}
    for name in sorted(NAMES | {"never"}):
        one, relation = f"{resource}{PREFIXES[resource]}-{name}/", SEEN[resource][who].get(name, "hidden")
        for operation, rule in RULES[resource].items():
            answer = await client.request(rule.method, f"{one}{rule.path}", json=rule.body)
            got[operation, name] = answer.status_code
            expected[operation, name] = rule.statuses.get(relation, 404)
            await mend(register.free, answer, rule, one, relation)
    assert got == expected


@pytest.mark.usefixtures("records")
@pytest.mark.parametrize("who", PRINCIPALS)
async def test_who_has_to_send_if_match_is_told_so_of_what_it_sees(
    register: Register, strict: Register, who: str
) -> None:
    """428 for a change of what is there, if it is seen; what was deleted is restored without."""
    client: httpx.AsyncClient = getattr(strict, who)
    for resource, rules in RULES.items():
        for name in sorted(NAMES | {"never"}):
            one, relation = f"{resource}{PREFIXES[resource]}-{name}/", SEEN[resource][who].get(name, "hidden")
            for operation, rule in rules.items():
                if rule.changes:
                    answer = await client.request(rule.method, f"{one}{rule.path}", json=rule.body)
                    status = 428 if relation in {"there", "spare"} else rule.statuses.get(relation, 404)
                    assert (operation, name, answer.status_code) == (operation, name, status)
                    await mend(register.free, answer, rule, one, relation)


def requests_about(operation: str, rule: Rule, tag: str) -> Iterator[tuple[dict[str, Any], int]]:
    """Requests by one route, and the status that all of them have where the record is hidden."""
    valid = {} if rule.body is None else {"json": rule.body}
    yield valid, 404
    for headers in (
        {"If-Match": tag},
        {"If-Match": "*"},
        {"If-Match": '"AAAAAAAAAAAAAAAAAAAAAA"'},
        {"If-None-Match": tag},
        {"If-None-Match": "*"},
        {"Idempotency-Key": "once", "If-Match": tag},
    ):
        yield {**valid, "headers": headers}, 404
    yield {**valid, "headers": {"X-Break-Glass": "Unconscious, brought in"}}, 403 if operation == "get_patient" else 404
    if rule.path == "restore/":
        bodies: tuple[tuple[object, int], ...] = (
            ({"version": 2, "skip_missing": True}, 404),
            ({"version": 999}, 404),
            ({"version": 0}, 422),
            ({"unknown": 1}, 422),
        )
    elif rule.body is not None:
        bodies = (({}, 404), ({"unique_id": "other"}, 404), ({"unknown": 1}, 422), ([], 422))
        if operation.endswith("patient"):
            bodies += (
                ({"hospital_ids": []}, 404),
                ({"hospital_ids": ["hosA", "hosB", "hosX"]}, 404),
                ({"patient_profile": {"unique_id": "prof-b", "email": "b@example.com"}}, 404),
                ({"patient_first_name": None, "patient_last_name": None}, 404),
                ({"patient_gender": "?"}, 422),
            )
    else:
        return
    yield from (({"json": body}, status) for body, status in bodies)
    yield {"content": b"{", "headers": {"Content-Type": "application/json"}}, 400
    yield {"content": b"{}", "headers": {"Content-Type": "text/plain"}}, 415
    yield {"content": b"{}", "headers": {"Content-Length": "2000000"}}, 413


@pytest.mark.usefixtures("records")
@pytest.mark.parametrize(("who", "required"), [("a", False), ("a", True), ("both", False)])
async def test_hidden_is_as_absent(register: Register, strict: Register, who: str, required: bool) -> None:  # noqa: FBT001
    """Whatever is asked of it, and under whatever condition: the same status, body and headers."""
    client: httpx.AsyncClient = getattr(strict if required else register, who)
    for resource, rules in RULES.items():
        absent = f"{resource}{PREFIXES[resource]}-never/"
        answers: dict[tuple[str, int], object] = {}
        for name in (name for name in SEEN[resource]["free"] if name not in SEEN[resource][who]):
            one = f"{resource}{PREFIXES[resource]}-{name}/"
            tag = (await register.free.get(one)).headers.get("ETag", '"BBBBBBBBBBBBBBBBBBBBBB"')
            for operation, rule in rules.items():
                for number, (keywords, status) in enumerate(requests_about(operation, rule, tag)):
                    place = (operation, number)
                    if place not in answers:
                        answers[place] = told(await client.request(rule.method, f"{absent}{rule.path}", **keywords))
                    answer = await client.request(rule.method, f"{one}{rule.path}", **keywords)
                    assert (name, place, keywords, answer.status_code) == (name, place, keywords, status)
                    assert (name, place, keywords, told(answer)) == (name, place, keywords, answers[place])
            assert told(await client.head(one)) == told(await client.head(absent))
