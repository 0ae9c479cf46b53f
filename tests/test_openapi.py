"""The operations in the OpenAPI document, which integrators read and from which they generate clients."""

import json
from pathlib import Path

import httpx
import pytest

from app.http.problems import PROBLEM_MEDIA_TYPE
from tests.openapi_document import Json, build_document, operations
from tests.processes import run_cli

COMMITTED_DOCUMENT_PATH = Path(__file__).parents[1] / "openapi.json"  # a link to the file of the package
RESOURCE_PLURALS = {"patient": "patients", "profile": "profiles", "hospital": "hospitals", "doctor": "doctors"}
OPERATION_ROUTES = {
    ("list", "s"): ("get", ""),
    ("create", ""): ("post", ""),
    ("get", ""): ("get", "{unique_id}/"),
    ("update", ""): ("put", "{unique_id}/"),
    ("patch", ""): ("patch", "{unique_id}/"),
    ("delete", ""): ("delete", "{unique_id}/"),
    ("list", "_history"): ("get", "{unique_id}/history/"),
    ("get", "_version"): ("get", "{unique_id}/history/{version}/"),
    ("restore", ""): ("post", "{unique_id}/restore/"),
}
EXPECTED_OPERATIONS = {
    f"{verb}_{one}{ending}": (method, f"/{many}/{many}/{rest}", many)
    for one, many in RESOURCE_PLURALS.items()
    for (verb, ending), (method, rest) in OPERATION_ROUTES.items()
} | {
    "match_patient": ("post", "/patients/patients/match/", "patients"),
    "list_duplicates": ("get", "/patients/duplicates/", "patients"),
    "dismiss_duplicate": ("post", "/patients/duplicates/{unique_id}/dismiss/", "patients"),
    "merge_patient": ("post", "/patients/patients/{unique_id}/merge/", "patients"),
    "unmerge_patient": ("post", "/patients/patients/{unique_id}/unmerge/", "patients"),
    "search_patients": ("post", "/patients/patients/search/", "patients"),
    "search_profiles": ("post", "/profiles/profiles/search/", "profiles"),
    "list_patient_access": ("get", "/patients/patients/{unique_id}/access/", "patients"),
    "import_patients": ("post", "/patients/patients/import/", "patients"),
    "list_audit_entries": ("get", "/audit/", "audit"),
    "follow_changes": ("get", "/changes/", "changes"),
    "get_current_principal": ("get", "/me/", "me"),
    "livez": ("get", "/livez", "health"),
    "readyz": ("get", "/readyz", "health"),
    "metrics": ("get", "/metrics", "health"),
}
"""All operations by operationId: `create_patient`, `list_patients`, …"""


@pytest.fixture(scope="module")
def document() -> Json:
    return build_document()


def operation_kind(operation_id: str) -> str:
    """Return the kind of an operation, whatever its resource: `list_history` for `list_patient_history`."""
    verb, *rest = operation_id.split("_")
    return "_".join([verb, *rest[1:]])


def required_scopes(operation: Json) -> set[str]:
    """Return the scopes that an operation requires, whichever way the credentials are sent."""
    return {scope for way in operation["security"] for scopes in way.values() for scope in scopes}


def test_operations_keep_their_names_paths_and_tags(document: Json) -> None:
    """Operations keep their names, methods, paths and tags, because generated clients depend on them."""
    found = [(o["operationId"], (method, path, *o["tags"])) for method, path, o in operations(document)]
    assert dict(found) == EXPECTED_OPERATIONS
    assert len(found) == len(EXPECTED_OPERATIONS)


def test_tags_are_described(document: Json) -> None:
    """Every tag that an operation has is described, and no other tag is."""
    described = [tag["name"] for tag in document["tags"] if tag["description"]]
    assert described == [*RESOURCE_PLURALS.values(), "changes", "audit", "me", "health"]


def test_every_operation_has_a_summary_and_a_description(document: Json) -> None:
    """Every operation has a summary and a description."""
    silent = [o["operationId"] for *_, o in operations(document) if not o.get("summary") or not o.get("description")]
    assert silent == []


def test_document_is_json_and_openapi_3_1(document: Json) -> None:
    """The document is OpenAPI 3.1, and is the same after a round trip through JSON."""
    assert json.loads(json.dumps(document)) == document
    assert document["openapi"].startswith("3.1.")


async def test_the_document_is_served(client: httpx.AsyncClient, document: Json) -> None:
    """`/openapi.json` returns the document."""
    response = await client.get("/openapi.json")
    assert response.headers["content-type"] == "application/json"
    assert response.json() == document


def test_the_document_is_printed() -> None:
    """`patients-api openapi` prints the document as the repository contains it."""
    result = run_cli("openapi")
    assert (result.returncode, result.stdout) == (0, COMMITTED_DOCUMENT_PATH.read_text())


def test_the_committed_document_is_current(document: Json) -> None:
    """`openapi.json` in the repository is current, so that a change of the interface shows in its diff."""
    assert COMMITTED_DOCUMENT_PATH.exists(), "create it with `make openapi`"
    assert json.loads(COMMITTED_DOCUMENT_PATH.read_text()) == document, "update it with `make openapi`"


def test_paths_end_with_a_slash(document: Json) -> None:
    """The document shows the contract's form of each path, with a trailing slash, of the two that are served."""
    assert [path for path in document["paths"] if not path.endswith("/")] == ["/livez", "/readyz", "/metrics"]


def test_errors_are_problems(document: Json) -> None:
    """Every error that an operation may return is an RFC 9457 problem, in its media type only."""
    seen = 0
    for _, _, operation in operations(document):
        for status, response in operation["responses"].items():
            if int(status) >= 400:
                schemas = {media_type: content["schema"] for media_type, content in response["content"].items()}
                expected = {PROBLEM_MEDIA_TYPE: {"$ref": "#/components/schemas/Problem"}}
                assert schemas == expected, (operation["operationId"], status)
                seen += 1
    assert seen > 100


def test_every_operation_lists_its_statuses(document: Json) -> None:
    """An operation lists exactly the statuses it can return: success, errors of the request, 431, 500 and 503."""
    body, one = {"400", "413", "415", "422"}, {"404"}
    expected = {
        "list": {"200", "422"},
        "create": {"201", "409", "412", *body},
        "get": {"200", "304", "422", *one},
        "update": {"200", "412", "428", *body, *one},
        "patch": {"200", "412", "428", *body, *one},
        "delete": {"204", "412", "428", *one},
        "list_history": {"200", "422", *one},
        "list_access": {"200", "422", *one},
        "list_entries": {"200", "422"},
        "get_version": {"200", "304", "422", *one},
        "search": {"200", *body},
        "import": {"200", "408", *body},
        "follow": {"200", "410", "422"},
        "match": {"200", *body},
        "dismiss": {"200", *body, *one},
        "get_principal": {"200"},
        "restore": {"200", "409", "412", "428", *body, *one},
        "merge": {"200", "409", "412", "428", *body, *one},
        "unmerge": {"200", "409", "412", *body, *one},
        "livez": {"204"},
        "readyz": {"204"},
        "metrics": {"200"},
    }
    conflicts = {"update_patient", "patch_patient", "delete_profile", "delete_hospital", "delete_doctor"}
    mergeable = {f"{verb}_patient" for verb in ("get", "update", "patch", "delete", "restore", "merge")}
    for _, _, operation in operations(document):
        name = operation["operationId"]
        merged = {"410"} if name in mergeable else set()
        conflict = {"409"} if name in conflicts else set()
        database = set() if name == "livez" else {"503"}
        asked = {"401", "429"} if operation["security"] else set()
        asked |= {"403"} if required_scopes(operation) else set()
        assert set(operation["responses"]) == {
            *expected[operation_kind(name)],
            *conflict,
            *merged,
            *database,
            *asked,
            "431",
            "500",
        }, name


def test_only_refused_changes_are_said_to_store_nothing(document: Json) -> None:
    """The example of a 422 says that nothing was stored exactly if the operation would have stored something."""
    details = {
        operation["operationId"]: problem["example"]["detail"]
        for *_, operation in operations(document)
        if "422" in operation["responses"]
        for problem in operation["responses"]["422"]["content"].values()
    }
    assert len(details) > 20
    assert details == {
        name: "The request has errors."
        if name.startswith(("list_", "get_", "search_", "follow_", "match_"))
        else "The request has errors, so nothing was stored."
        for name in details
    }


@pytest.mark.parametrize(
    ("header", "verbs", "status"),
    [
        ("Location", ("create_",), "201"),
        ("Link", ("list_",), "200"),
        ("Next-Cursor", ("list_", "search_", "follow_"), "200"),
    ],
)
def test_location_link_and_next_cursor_headers_are_documented(
    document: Json, header: str, verbs: tuple[str, ...], status: str
) -> None:
    """Exactly the operations that return these headers document them, as strings."""
    documented = {
        operation["operationId"]: (code, response["headers"][header]["schema"]["type"])
        for *_, operation in operations(document)
        for code, response in operation["responses"].items()
        if header in response.get("headers", {})
    }
    answering = [name for name in EXPECTED_OPERATIONS if name.startswith(verbs)]
    assert documented == dict.fromkeys(answering, (status, "string"))


def test_operations_that_name_hospitals_document_the_warning(document: Json) -> None:
    """`Same-Name-As` and `Identifier-Warning` are documented for the responses that can have them."""
    for header, noun in {"Same-Name-As": "hospital", "Identifier-Warning": "patient"}.items():
        warning = [o["operationId"] for _, _, o in operations(document) if header in str(o["responses"])]
        assert sorted(warning) == [f"create_{noun}", f"patch_{noun}", f"update_{noun}"]


def test_request_id_and_retry_headers_are_documented(document: Json) -> None:
    """Every response has the request's id, and every 429 and 503 says when to retry."""
    for _, _, operation in operations(document):
        for status, response in operation["responses"].items():
            particular = {
                "429": "Retry-After",
                "503": "Retry-After",
                "401": "WWW-Authenticate",
                "403": "WWW-Authenticate",
            }
            expected = {"X-Request-ID", *([particular[status]] if status in particular else [])}
            some = {"Audit-Reads", "Location", "Link", "Next-Cursor", "X-Total-Count", "ETag", "Idempotency-Replayed"}
            some |= {"Same-Name-As", "Identifier-Warning", "Changes-Cursor", "Search-Agreement", "Search-Set-Aside"}
            assert response["headers"].keys() - some == expected, (operation["operationId"], status)


def test_every_operation_declares_its_scope(document: Json) -> None:
    """Every operation except the probes names the scope it requires, for each way to send credentials."""
    schemes = document["components"]["securitySchemes"].keys()
    for _, _, operation in operations(document):
        if operation["operationId"] in {"livez", "readyz"}:
            assert operation["security"] == []
        else:
            assert {scheme for way in operation["security"] for scheme in way} == schemes
        if operation["security"] and operation["operationId"] != "get_current_principal":
            (scope,) = required_scopes(operation)
            assert f"`{scope}`" in operation["description"]


def test_operation_summaries_are_unique(document: Json) -> None:
    """No two operations share a summary, so that PUT and PATCH can be distinguished in a list."""
    summaries = [operation["summary"] for *_, operation in operations(document)]
    assert len(set(summaries)) == len(summaries)


def test_parameters_are_never_null(document: Json) -> None:
    """No parameter may be null, which neither a path nor a query can express, and each has a description."""
    named = document["components"]["schemas"]
    schemas = [
        named[parameter["schema"]["$ref"].rpartition("/")[2]] if "$ref" in parameter["schema"] else parameter["schema"]
        for *_, o in operations(document)
        for parameter in o.get("parameters", ())
    ]
    assert [schema for schema in schemas if schema["type"] not in {"string", "integer", "boolean", "array"}] == []
    assert all(parameter["description"] for *_, o in operations(document) for parameter in o.get("parameters", ()))
