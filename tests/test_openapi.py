"""The OpenAPI document, which integrators read and from which they generate clients."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import jsonschema_rs
import pytest

from app.http.problems import PROBLEM_MEDIA_TYPE
from app.main import create_app
from app.settings import Settings
from tests.support import EXAMPLE_PATIENT, PUT_EXAMPLE

Json = dict[str, Any]

COMMITTED_DOCUMENT_PATH = Path(__file__).parents[1] / "openapi.json"
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
REQUEST_SCHEMAS = {
    "patients": ["PatientCreate", "PatientUpdate"],
    "profiles": ["ProfileCreate", "ProfileUpdate", "ProfileUpsert"],
    "hospitals": ["HospitalCreate", "HospitalUpdate"],
    "doctors": ["DoctorCreate", "DoctorUpdate"],
}


@pytest.fixture(scope="module")
def document() -> Json:
    return create_app(Settings.model_validate({"database_url": "postgresql://never-asked/"})).openapi()


def operations(document: Json) -> Iterator[tuple[str, str, Json]]:
    """Yield each operation with its method and path, and with its responses resolved."""
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            responses = {
                status: document["components"]["responses"][response["$ref"].rpartition("/")[2]]
                if "$ref" in response
                else response
                for status, response in operation["responses"].items()
            }
            yield method, path, {**operation, "responses": responses}


def walk_objects(node: Any, pointer: str = "#") -> Iterator[tuple[str, Json]]:
    """Yield all objects inside `node`, each with its JSON pointer."""
    if isinstance(node, dict):
        yield pointer, node
        for key, value in node.items():
            yield from walk_objects(value, f"{pointer}/{key}")
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from walk_objects(value, f"{pointer}/{index}")


def operation_kind(operation_id: str) -> str:
    """Return the kind of an operation, whatever its resource: `list_history` for `list_patient_history`."""
    verb, *rest = operation_id.split("_")
    return "_".join([verb, *rest[1:]])


def required_scopes(operation: Json) -> set[str]:
    """Return the scopes that an operation requires, whichever way the credentials are sent."""
    return {scope for way in operation["security"] for scopes in way.values() for scope in scopes}


def text_schema(schema: Json) -> Json:
    """Return the branch of a field's schema that describes text, whether the field is optional or not."""
    branches: list[Json] = schema.get("anyOf", [schema])
    return next((branch for branch in branches if branch.get("type") in ("string", ["string", "null"])), {})


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


def test_examples_have_no_messages_of_pydantic(document: Json) -> None:
    """The examples of errors are messages of this service, as responses are."""
    text = json.dumps(document)
    assert "Must be" in text
    assert not [words for words in ("Input should", "String should", "Field required", "Value error") if words in text]


async def test_the_document_is_served(client: httpx.AsyncClient, document: Json) -> None:
    """`/openapi.json` returns the document."""
    response = await client.get("/openapi.json")
    assert response.headers["content-type"] == "application/json"
    assert response.json() == document


def test_the_committed_document_is_current(document: Json) -> None:
    """`openapi.json` in the repository is current, so that a change of the interface shows in its diff."""
    assert COMMITTED_DOCUMENT_PATH.exists(), "create it with `make openapi`"
    assert json.loads(COMMITTED_DOCUMENT_PATH.read_text()) == document, "update it with `make openapi`"


def test_paths_end_with_a_slash(document: Json) -> None:
    """The document shows the contract's form of each path, with a trailing slash, of the two that are served."""
    assert [path for path in document["paths"] if not path.endswith("/")] == ["/livez", "/readyz", "/metrics"]


def test_schemas_are_valid_json_schema_2020_12(document: Json) -> None:
    """Each schema is valid in JSON Schema 2020-12, the dialect of OpenAPI 3.1."""
    for name, schema in document["components"]["schemas"].items():
        assert jsonschema_rs.meta.is_valid({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}), name


def test_references_resolve(document: Json) -> None:
    """Every `$ref` resolves, and every schema and header is referenced."""
    references = {value["$ref"] for _, value in walk_objects(document) if "$ref" in value}
    for reference in references:
        node: Any = document
        for step in reference.removeprefix("#/").split("/"):
            assert step in node, reference
            node = node[step]
    assert references == {
        f"#/components/{kind}/{name}"
        for kind, named in document["components"].items()
        for name in named
        if kind != "securitySchemes"  # operations name them without a reference
    }


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


def test_fastapi_validation_errors_are_not_documented(document: Json) -> None:
    """FastAPI's validation errors, which the service never returns, are not documented."""
    assert not {"HTTPValidationError", "ValidationError"} & document["components"]["schemas"].keys()
    assert "HTTPValidationError" not in json.dumps(document)


def test_no_schema_has_a_default(document: Json) -> None:
    """No schema has a `default`: a generated client would send it, and an absent field is not null."""
    assert [
        place for place, value in walk_objects(document) if "default" in value and not place.endswith("properties")
    ] == []


@pytest.mark.parametrize("name", ["patient_latitude", "patient_longitude"])
@pytest.mark.parametrize("schema", ["Patient", "PatientCreate", "PatientUpdate"])
def test_degrees_are_strings_with_a_pattern(document: Json, schema: str, name: str) -> None:
    """Degrees are strings with a pattern that allows six decimals, never binary fractions."""
    pattern = text_schema(document["components"]["schemas"][schema]["properties"][name])["pattern"]
    assert re.search(pattern, EXAMPLE_PATIENT[name])
    assert not re.search(pattern, "north")


@pytest.mark.parametrize(("limit", "name"), [(90, "patient_latitude"), (180, "patient_longitude")])
def test_degree_patterns_accept_exactly_the_valid_range(document: Json, limit: int, name: str) -> None:
    """The pattern of degrees sent as text accepts exactly what the service accepts."""
    pattern = text_schema(document["components"]["schemas"]["PatientCreate"]["properties"][name])["pattern"]
    for fits in (f"{limit}", f"-{limit}.000000", f"+{limit - 1}.999999", "0", "00.5", "7."):
        assert re.search(pattern, fits), fits
    for wrong in (f"{limit}.000001", f"-{limit + 1}", "999"):
        assert not re.search(pattern, wrong), wrong


def optional_text_fields(document: Json) -> Iterator[tuple[str, Json]]:
    for name in (name for names in REQUEST_SCHEMAS.values() for name in names):
        for field, schema in document["components"]["schemas"][name]["properties"].items():
            typed = "$ref" in str(schema) or "format" in schema  # allowing a blank would cost clients the type
            if field != "unique_id" and "null" in str(schema) and text_schema(schema) and not typed:
                yield f"{name}.{field}", schema


def test_blanks_are_allowed_where_they_mean_null(document: Json) -> None:
    """Optional text fields allow `""`, which HTML forms send for an empty input and the service takes for null."""
    fields = dict(optional_text_fields(document))
    assert len(fields) > 40
    assert [name for name, schema in fields.items() if not jsonschema_rs.is_valid(schema, "")] == []


@pytest.mark.parametrize("table", REQUEST_SCHEMAS)
async def test_max_lengths_match_the_database_checks(
    document: Json, connection: asyncpg.Connection, table: str
) -> None:
    """The `maxLength` of each text field in a request is the limit of its column's CHECK constraint."""
    columns = await connection.fetch(
        "SELECT column_name FROM information_schema.columns WHERE table_name = $1 AND collation_name = 'pg_c_utf8'",
        table,
    )
    checks = await connection.fetch(
        "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE contype = 'c' AND conrelid = $1::regclass", table
    )
    found = [re.fullmatch(r"CHECK \(\(char_length\((\w+)\) <= (\d+)\)\)", check[0]) for check in checks]
    lengths = {match[1]: int(match[2]) for match in found if match}
    assert lengths.pop("unique_id") == 64
    assert lengths.keys() == {column[0] for column in columns}
    for name in REQUEST_SCHEMAS[table]:
        properties = document["components"]["schemas"][name]["properties"]
        assert {field: text_schema(properties[field]).get("maxLength") for field in lengths} == lengths, name


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
    """No two operations share a summary, so that PUT and PATCH can be told apart in a list."""
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


def test_response_gender_is_a_named_enum(document: Json) -> None:
    """The gender in responses is a named enum, so that generated clients have one type with a readable name."""
    gender = document["components"]["schemas"]["Patient"]["properties"]["patient_gender"]
    assert gender["anyOf"] == [{"$ref": "#/components/schemas/Gender"}, {"type": "null"}]
    assert document["components"]["schemas"]["Gender"]["enum"] == ["Male", "Female", "Other", "Unknown"]


def request_examples(document: Json, method: str, path: str) -> list[Json]:
    """Return the examples of a request body, next to its schema or inside it."""
    content = document["paths"][path][method]["requestBody"]["content"]["application/json"]
    beside = [content["example"]] if "example" in content else []
    named = [example["value"] for example in content.get("examples", {}).values()]
    schema = document["components"]["schemas"][content["schema"]["$ref"].rsplit("/", 1)[1]]
    return [*beside, *named, *schema.get("examples", [])]


def test_contract_requests_are_the_documented_examples(document: Json) -> None:
    """The documented examples include the contract's, so that `/docs` sends what the contract prints."""
    assert EXAMPLE_PATIENT in request_examples(document, "post", "/patients/patients/")
    assert PUT_EXAMPLE in request_examples(document, "put", "/patients/patients/{unique_id}/")


def test_examples_fit_their_schemas(document: Json) -> None:
    """Every example in the document is valid in its schema."""
    found = [(place, value, example) for place, value in walk_objects(document) for example in schema_examples(value)]
    assert len(found) > 100
    wrong = []
    for place, value, example in found:
        schema = {**value.get("schema", value), "components": document["components"]}
        wrong += [
            f"{place}: {error.message}" for error in jsonschema_rs.Draft202012Validator(schema).iter_errors(example)
        ]
    assert wrong == []


def schema_examples(value: Json) -> list[Any]:
    """Return the examples of a schema, or of the content that the schema describes."""
    examples = value.get("examples", [])
    beside = [value["example"]] if "example" in value and "schema" in value else []
    return [*beside, *(examples if isinstance(examples, list) else [])]
