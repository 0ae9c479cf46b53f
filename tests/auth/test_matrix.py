"""Every route with every kind of credentials, checked against a table of the expected statuses."""

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import Any, NamedTuple

import httpx
import pytest
from fastapi.routing import iter_route_contexts

from app.auth.scopes import Scope
from app.http.outcomes import FHIR_MEDIA_TYPE
from app.http.problems import PROBLEM_MEDIA_TYPE
from app.main import create_app
from app.paths import is_fhir_path
from app.settings import Settings
from tests.auth.support import client_for, create_secured_app, make_key, revoke_key, secured_app
from tests.shared_service import SharedService, restorable_database, running_without_background_tasks

HOSPITAL = {"hospital_name": "General Hospital"}
DOCTOR = {"doctor_first_name": "Smith"}
PROFILE = {"email": "user@example.com"}
PATIENT = {"patient_last_name": "Doe"}
RESTORE_BODY = {"version": 1}
ANY_SCOPE = "any"
"""Stands for a scope where any valid credentials suffice."""


class Rule(NamedTuple):
    """The scope an operation needs, the request to send, and the status if the caller is authorized."""

    method: str
    path: str
    scope: str | None
    body: dict[str, Any] | None = None
    status: int = 200


def _resource_rules(path: str, name: str, body: dict[str, Any], *scopes: str) -> dict[str, Rule]:
    read, write, delete = scopes
    one = f"{path}one/"
    return {
        f"list_{name}s": Rule("GET", path, read),
        f"create_{name}": Rule("POST", path, write, {"unique_id": "two", **body}, 201),
        f"get_{name}": Rule("GET", one, read),
        f"update_{name}": Rule("PUT", one, write, body),
        f"patch_{name}": Rule("PATCH", one, write, body),
        f"list_{name}_history": Rule("GET", f"{one}history/", "history:read"),
        f"get_{name}_version": Rule("GET", f"{one}history/1/", "history:read"),
        f"restore_{name}": Rule("POST", f"{one}restore/", write, RESTORE_BODY),
        f"delete_{name}": Rule("DELETE", one, delete, None, 204),
    }


FHIR_PATIENT = {"resourceType": "Patient", "name": [{"family": "Doe"}]}
FHIR_RULES = {
    "fhir_patient_read_get": Rule("GET", "/fhir/Patient/one", "patients:read"),
    "fhir_patient_search_type_get": Rule("GET", "/fhir/Patient", "patients:read"),
    "fhir_patient_search_type_post": Rule("POST", "/fhir/Patient/_search", "patients:read"),
    "fhir_patient_history_instance_get": Rule("GET", "/fhir/Patient/one/_history", "history:read"),
    "fhir_patient_vread_get": Rule("GET", "/fhir/Patient/one/_history/1", "history:read"),
    "fhir_patient_create_post": Rule("POST", "/fhir/Patient", "patients:write", FHIR_PATIENT, 201),
    "fhir_patient_update_put": Rule("PUT", "/fhir/Patient/one", "patients:write", {**FHIR_PATIENT, "id": "one"}),
    "fhir_patient_update_conditional_put": Rule(
        "PUT", "/fhir/Patient?identifier=urn:patients-api:unique-id|one", "patients:write", FHIR_PATIENT
    ),
    "fhir_patient_delete_delete": Rule("DELETE", "/fhir/Patient/never", "patients:delete", None, 404),
    "fhir_patient_match_post": Rule(
        "POST",
        "/fhir/Patient/$match",
        "patients:read",
        {"resourceType": "Parameters", "parameter": [{"name": "resource", "resource": FHIR_PATIENT}]},
    ),
    "fhir_system_batch_transaction_post": Rule(
        "POST",
        "/fhir",
        "patients:write",
        {
            "resourceType": "Bundle",
            "type": "batch",
            "entry": [{"resource": FHIR_PATIENT, "request": {"method": "POST", "url": "Patient"}}],
        },
    ),
    "fhir_practitioner_read_get": Rule("GET", "/fhir/Practitioner/one", "directory:read"),
    "fhir_practitioner_search_type_get": Rule("GET", "/fhir/Practitioner", "directory:read"),
    "fhir_practitioner_search_type_post": Rule("POST", "/fhir/Practitioner/_search", "directory:read"),
    "fhir_organization_read_get": Rule("GET", "/fhir/Organization/one", "directory:read"),
    "fhir_organization_search_type_get": Rule("GET", "/fhir/Organization", "directory:read"),
    "fhir_organization_search_type_post": Rule("POST", "/fhir/Organization/_search", "directory:read"),
}
"""The routes of the FHIR interface. They come first, because the routes of records delete the records at the end."""
RESOURCE_RULES = {
    **FHIR_RULES,
    **_resource_rules("/patients/patients/", "patient", PATIENT, "patients:read", "patients:write", "patients:delete"),
    **_resource_rules("/profiles/profiles/", "profile", PROFILE, "profiles:read", "profiles:write", "profiles:write"),
    **_resource_rules(
        "/hospitals/hospitals/", "hospital", HOSPITAL, "directory:read", "directory:write", "directory:write"
    ),
    **_resource_rules("/doctors/doctors/", "doctor", DOCTOR, "directory:read", "directory:write", "directory:write"),
}
RESOURCE_RULES |= {
    "match_patient": Rule("POST", "/patients/patients/match/", "patients:read", PATIENT),
    "list_duplicates": Rule("GET", "/patients/duplicates/", "duplicates:read"),
    "dismiss_duplicate": Rule(
        "POST", "/patients/duplicates/one/dismiss/", "duplicates:write", {"reason": "twins"}, 404
    ),
    "merge_patient": Rule("POST", "/patients/patients/three/merge/", "patients:merge", {"from": "one"}, 404),
    "unmerge_patient": Rule("POST", "/patients/patients/three/unmerge/", "patients:merge", {}, 404),
    "search_patients": Rule("POST", "/patients/patients/search/", "patients:read", {"search": "doe"}),
    "search_profiles": Rule("POST", "/profiles/profiles/search/", "profiles:read", {"last_name": "doe"}),
    "import_patients": Rule("POST", "/patients/patients/import/", "patients:write", {}, 415),
    "list_patient_access": Rule("GET", "/patients/patients/one/access/", "audit:read"),
    "list_audit_entries": Rule("GET", "/audit/", "audit:read"),
    "metrics": Rule("GET", "/metrics", "metrics:read"),
    "follow_changes": Rule("GET", "/changes/", "changes:read"),
    "get_current_principal": Rule("GET", "/me/", ANY_SCOPE),
}
PUBLIC_RULES = {
    "fhir_system_capabilities_get": Rule("GET", "/fhir/metadata", None),
    "livez": Rule("GET", "/livez", None, None, 204),
    "readyz": Rule("GET", "/readyz", None, None, 204),
    "docs": Rule("GET", "/docs", None),
    "openapi": Rule("GET", "/openapi.json", None),
    "_redirect_to_docs": Rule("GET", "/", None, None, 307),
    "/docs/assets": Rule("GET", "/docs/assets/swagger-ui.css", None),
}
"""The routes that need no credentials."""
RULES = {**RESOURCE_RULES, **PUBLIC_RULES}

SCOPES = (
    "patients:read",
    "patients:write",
    "patients:delete",
    "patients:merge",
    "patients:break-glass",
    "duplicates:read",
    "duplicates:write",
    "history:read",
    "directory:read",
    "directory:write",
    "profiles:read",
    "profiles:write",
    "changes:read",
    "audit:read",
    "metrics:read",
    "admin",
)
UNAUTHENTICATED_CALLERS = ("nobody", "wrong", "misspelt", "expired", "revoked")
"""Callers without credentials, or with credentials that are not valid."""


async def credentials_for(caller: str, url: str) -> str | None:
    """Return the credentials for one column of the matrix."""
    if caller == "nobody":
        return None
    if caller == "wrong":
        return "not a key at all"
    if caller == "misspelt":
        key = await make_key(url, Scope.ADMIN)
        return f"{key[:-2]}{key[-2:].swapcase()}" if key[-2:].swapcase() != key[-2:] else f"{key}x"
    if caller == "expired":
        return await make_key(url, Scope.ADMIN, expires=datetime.now(UTC) - timedelta(seconds=1))
    key = await make_key(url, Scope.ADMIN if caller == "revoked" else Scope(caller))
    if caller == "revoked":
        await revoke_key(url, "service")
    return key


def expected_status(caller: str, rule: Rule) -> int:
    if rule.scope is None:
        return rule.status
    if caller in UNAUTHENTICATED_CALLERS:
        return 401
    return rule.status if rule.scope == ANY_SCOPE or caller in {rule.scope, "admin"} else 403


def client_addresses() -> Iterator[str]:
    """Return a different address for each request, because failed authentications are limited per address."""
    first = ip_address("198.51.100.1")
    return (str(first + number) for number in range(200))


@pytest.fixture(scope="module")
async def module_service(module_database_url: str) -> AsyncIterator[SharedService]:
    """Yield one application for all callers, because building its OpenAPI document takes half a second."""
    app = create_secured_app(module_database_url)
    async with running_without_background_tasks(app):
        async with client_for(app, await make_key(module_database_url, Scope.ADMIN, name="preparing")) as admin:
            for operation, rule in RESOURCE_RULES.items():
                if operation.startswith("create_"):
                    response = await admin.post(rule.path, json={**(rule.body or {}), "unique_id": "one"})
                    assert response.status_code == 201, operation
        async with restorable_database(module_database_url) as database:
            yield SharedService(app, database)


@pytest.fixture
async def service(module_service: SharedService) -> AsyncIterator[SharedService]:
    """Yield the application with a record of each resource, whatever the last caller has done to them."""
    yield module_service
    await module_service.database.restore()


@pytest.mark.parametrize("caller", [*UNAUTHENTICATED_CALLERS, *SCOPES])
async def test_every_route_responds_to_everybody_as_the_table_says(
    service: SharedService, module_database_url: str, caller: str
) -> None:
    """Every route returns the status in the table to each kind of caller, and its challenge says what is missing."""
    got: dict[str, int] = {}
    credentials = await credentials_for(caller, module_database_url)
    sources = client_addresses()
    for operation, rule in RULES.items():
        async with client_for(service.app, credentials, address=next(sources)) as client:
            response = await client.request(rule.method, rule.path, json=rule.body)
        got[operation] = response.status_code
        check_challenge(response, caller, rule)
        if rule.method == "GET" and caller in {"nobody", "wrong", "patients:read", "admin"}:
            async with client_for(service.app, credentials, address=next(sources)) as client:
                head = await client.head(rule.path.rstrip("/") or "/")
            assert (operation, head.status_code) == (operation, response.status_code)
    assert got == {operation: expected_status(caller, rule) for operation, rule in RULES.items()}


def check_challenge(response: httpx.Response, caller: str, rule: Rule) -> None:
    """Check what a 401 and a 403 must contain (RFC 6750, section 3)."""
    challenge = response.headers.get("WWW-Authenticate")
    if response.status_code == 401:
        assert challenge == 'Bearer realm="patients-api"' + ("" if caller == "nobody" else ', error="invalid_token"')
    elif response.status_code == 403:
        assert challenge == f'Bearer realm="patients-api", error="insufficient_scope", scope="{rule.scope}"'
        problem = response.json()
        detail = problem["issue"][0]["details"]["text"] if is_fhir_path(rule.path) else problem["detail"]
        assert detail == f"This request needs the scope {rule.scope}."
    else:
        assert challenge is None
    if response.status_code in {401, 403}:
        media_type = FHIR_MEDIA_TYPE if is_fhir_path(rule.path) else PROBLEM_MEDIA_TYPE
        assert response.headers["Content-Type"] == media_type


async def test_a_refused_request_changes_nothing(database_url: str) -> None:
    """Refused requests leave all records unchanged, which the status alone would not prove."""
    key = await make_key(database_url, Scope.ADMIN, name="admin")
    reads = [scope for scope in Scope if scope.endswith(":read")]
    reader = await make_key(database_url, *reads, name="reader")
    created = [rule for operation, rule in RESOURCE_RULES.items() if operation.startswith("create_")]
    sources = client_addresses()
    async with secured_app(database_url) as app, client_for(app, key) as admin:
        for rule in created:
            await admin.post(rule.path, json={**(rule.body or {}), "unique_id": "one"})
        before = [(await admin.get(rule.path)).json() for rule in created]
        for credentials, status in ((None, 401), (reader, 403)):
            for rule in RESOURCE_RULES.values():
                if rule.method != "GET" and (rule.scope not in reads or credentials is None):
                    async with client_for(app, credentials, address=next(sources)) as client:
                        response = await client.request(rule.method, rule.path, json=rule.body)
                    assert response.status_code == status
        assert [(await admin.get(rule.path)).json() for rule in created] == before


def test_the_table_has_every_route() -> None:
    """Every route is in the table: for a new one, state the scope it needs or that it is public."""
    app = create_app(Settings.model_validate({"database_url": "postgresql://never-asked/"}))
    routes_by_name = {
        route.name or str(route.path): (sorted((route.methods or {"GET"}) - {"HEAD"}), route.path)
        for route in iter_route_contexts(app.routes)
    }
    assert len(routes_by_name) == len(list(iter_route_contexts(app.routes))), "route names are unique"
    assert sorted(routes_by_name) == sorted(RULES)
    for operation, (methods, _) in routes_by_name.items():
        assert methods == [RULES[operation].method]


def test_the_table_has_every_scope() -> None:
    """Every scope is a column of the table."""
    assert sorted(SCOPES) == sorted(Scope)
