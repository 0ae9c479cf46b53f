"""Every route for every principal and every record: its status, and that hidden records equal absent ones."""

from collections.abc import AsyncIterator, Iterator
from typing import Any, NamedTuple

import httpx
import pytest
from fastapi.routing import iter_route_contexts

from app.main import create_app
from app.settings import Settings
from tests.auth.support import PATIENTS, PROFILES, client_for, secured_app
from tests.auth.test_matrix import FHIR_RULES, PUBLIC_RULES, RESOURCE_RULES
from tests.hospital_scope.conftest import ScopedClients


class Rule(NamedTuple):
    """A request about one record, and its status by the record's relation to the principal; hidden ones are 404."""

    method: str
    path: str
    body: dict[str, Any] | None
    status_by_relation: dict[str, int]

    @property
    def is_write(self) -> bool:
        return self.method != "GET"


def _record_rules(name: str, change: dict[str, Any], delete: dict[str, int]) -> dict[str, Rule]:
    status_if_visible = {"there": 200, "spare": 200, "deleted": 404}
    status_if_ever_visible = {**status_if_visible, "deleted": 200}
    return {
        f"get_{name}": Rule("GET", "", None, status_if_visible),
        f"update_{name}": Rule("PUT", "", change, status_if_visible),
        f"patch_{name}": Rule("PATCH", "", change, status_if_visible),
        f"list_{name}_history": Rule("GET", "history/", None, status_if_ever_visible),
        f"get_{name}_version": Rule("GET", "history/1/", None, status_if_ever_visible),
        f"restore_{name}": Rule("POST", "restore/", {"version": 1}, status_if_ever_visible),
        f"delete_{name}": Rule("DELETE", "", None, {**status_if_visible, **delete}),
    }


RECORD_RULES = {
    PATIENTS: {
        **_record_rules("patient", {"patient_title": "Dr."}, {"there": 204}),
        "list_patient_access": Rule("GET", "access/", None, {"there": 200, "deleted": 200}),
    },
    PROFILES: _record_rules("profile", {"first_name": "Ann"}, {"there": 409, "spare": 204}),
}
"""Rules by the path of the resource and the name of the route."""
ID_PREFIXES = {PATIENTS: "pat", PROFILES: "prof"}
RELATIONS_BY_PRINCIPAL = {
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
"""The records of each resource that each principal sees, and their state; all others are hidden."""
RECORD_NAMES = {name for seen in RELATIONS_BY_PRINCIPAL.values() for name in seen["free"]}
COLLECTION_ROUTES = {
    "list_patients",
    "search_patients",
    "search_profiles",
    "match_patient",
    "list_duplicates",
    "dismiss_duplicate",
    "create_patient",
    "import_patients",
    "list_profiles",
    "create_profile",
    "list_audit_entries",
    "follow_changes",
}
MERGE_ROUTES = {"merge_patient", "unmerge_patient"}
"""Routes about two records, which tests/hospital_scope/test_merging.py tests."""
ROUTES_WITHOUT_RECORDS = {"metrics", "get_current_principal"}
"""Routes that reveal no record."""
DIRECTORY_RULES = {
    name: rule for name, rule in RESOURCE_RULES.items() if rule.scope and rule.path[1:4] in {"hos", "doc"}
}
"""Rules for hospitals and doctors, which are public to all principals and have no hospital scope.

`test_fhir.py` tests the routes of the FHIR interface.
"""
PRINCIPAL_NAMES = ("a", "b", "both", "free")


def test_matrix_covers_every_route() -> None:
    """Every route is in the matrix, so that a new one fails here until its visibility is defined."""
    app = create_app(Settings.model_validate({"database_url": "postgresql://never-asked/"}))
    found = [route.name or str(route.path) for route in iter_route_contexts(app.routes)]
    assert sorted(found) == sorted(
        [
            *RECORD_RULES[PATIENTS],
            *RECORD_RULES[PROFILES],
            *COLLECTION_ROUTES,
            *MERGE_ROUTES,
            *DIRECTORY_RULES,
            *ROUTES_WITHOUT_RECORDS,
            *FHIR_RULES,
            *PUBLIC_RULES,
        ]
    )


@pytest.fixture
async def clients_requiring_if_match(scoped_clients: ScopedClients, database_url: str) -> AsyncIterator[ScopedClients]:
    """Yield clients of the same principals, for a service that requires If-Match."""
    async with secured_app(database_url, rate_limit="off", require_if_match=True) as app:
        keys = [client.headers["Authorization"].removeprefix("Bearer ") for client in scoped_clients]
        clients = [client_for(app, key) for key in keys]
        yield ScopedClients(*clients)
        for client in clients:
            await client.aclose()


async def undo_change(
    unrestricted: httpx.AsyncClient, response: httpx.Response, rule: Rule, record_path: str, relation: str
) -> None:
    """Undo a deletion, or the restore of a deleted record."""
    if response.status_code == 204:
        assert (await unrestricted.post(f"{record_path}restore/", json={"version": 1})).status_code == 200
    elif rule.path == "restore/" and relation == "deleted" and response.status_code == 200:
        assert (await unrestricted.delete(record_path)).status_code == 204


def comparable_response(response: httpx.Response) -> tuple[int, object, dict[str, str]]:
    """Return all that a response reveals, except for its request's id and its date."""
    body: object = response.text
    if response.content and response.headers["Content-Type"] == "application/problem+json":
        body = {key: value for key, value in response.json().items() if key not in {"request_id", "instance"}}
    return (
        response.status_code,
        body,
        {name: value for name, value in response.headers.items() if name not in {"x-request-id", "date"}},
    )


@pytest.mark.usefixtures("deleted_records")
@pytest.mark.parametrize("resource", RECORD_RULES)
@pytest.mark.parametrize("principal", PRINCIPAL_NAMES)
async def test_every_principal_gets_the_status_in_the_matrix(
    scoped_clients: ScopedClients, principal: str, resource: str
) -> None:
    """Each route about one record has exactly this status, for each principal and each record."""
    client: httpx.AsyncClient = getattr(scoped_clients, principal)
    got, expected = {}, {}
    for name in sorted(RECORD_NAMES | {"never"}):
        one, relation = (
            f"{resource}{ID_PREFIXES[resource]}-{name}/",
            RELATIONS_BY_PRINCIPAL[resource][principal].get(name, "hidden"),
        )
        for operation, rule in RECORD_RULES[resource].items():
            response = await client.request(rule.method, f"{one}{rule.path}", json=rule.body)
            got[operation, name] = response.status_code
            expected[operation, name] = rule.status_by_relation.get(relation, 404)
            await undo_change(scoped_clients.free, response, rule, one, relation)
    assert got == expected


@pytest.mark.usefixtures("deleted_records")
@pytest.mark.parametrize("principal", PRINCIPAL_NAMES)
async def test_missing_if_match_is_428_for_visible_records_only(
    scoped_clients: ScopedClients, clients_requiring_if_match: ScopedClients, principal: str
) -> None:
    """A change without `If-Match` is 428 for a visible record; a deleted record can be restored without it."""
    client: httpx.AsyncClient = getattr(clients_requiring_if_match, principal)
    for resource, rules in RECORD_RULES.items():
        for name in sorted(RECORD_NAMES | {"never"}):
            one, relation = (
                f"{resource}{ID_PREFIXES[resource]}-{name}/",
                RELATIONS_BY_PRINCIPAL[resource][principal].get(name, "hidden"),
            )
            for operation, rule in rules.items():
                if rule.is_write:
                    response = await client.request(rule.method, f"{one}{rule.path}", json=rule.body)
                    status = 428 if relation in {"there", "spare"} else rule.status_by_relation.get(relation, 404)
                    assert (operation, name, response.status_code) == (operation, name, status)
                    await undo_change(scoped_clients.free, response, rule, one, relation)


def hidden_record_requests(operation: str, rule: Rule, tag: str) -> Iterator[tuple[dict[str, Any], int]]:
    """Yield requests by one route, each with its status if the record is hidden."""
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


@pytest.mark.usefixtures("deleted_records")
@pytest.mark.parametrize(("principal", "if_match_required"), [("a", False), ("a", True), ("both", False)])
async def test_hidden_records_are_indistinguishable_from_absent_ones(
    scoped_clients: ScopedClients,
    clients_requiring_if_match: ScopedClients,
    principal: str,
    if_match_required: bool,  # noqa: FBT001
) -> None:
    """Any request about a hidden record has the status, body and headers that it has for an absent record."""
    client: httpx.AsyncClient = getattr(clients_requiring_if_match if if_match_required else scoped_clients, principal)
    for resource, rules in RECORD_RULES.items():
        absent = f"{resource}{ID_PREFIXES[resource]}-never/"
        responses: dict[tuple[str, int], object] = {}
        for name in (
            name
            for name in RELATIONS_BY_PRINCIPAL[resource]["free"]
            if name not in RELATIONS_BY_PRINCIPAL[resource][principal]
        ):
            one = f"{resource}{ID_PREFIXES[resource]}-{name}/"
            tag = (await scoped_clients.free.get(one)).headers.get("ETag", '"BBBBBBBBBBBBBBBBBBBBBB"')
            for operation, rule in rules.items():
                for number, (keywords, status) in enumerate(hidden_record_requests(operation, rule, tag)):
                    case = (operation, number)
                    if case not in responses:
                        responses[case] = comparable_response(
                            await client.request(rule.method, f"{absent}{rule.path}", **keywords)
                        )
                    response = await client.request(rule.method, f"{one}{rule.path}", **keywords)
                    assert (name, case, keywords, response.status_code) == (name, case, keywords, status)
                    assert (name, case, keywords, comparable_response(response)) == (
                        name,
                        case,
                        keywords,
                        responses[case],
                    )
            assert comparable_response(await client.head(one)) == comparable_response(await client.head(absent))
