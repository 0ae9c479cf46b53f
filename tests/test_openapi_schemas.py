"""The schemas and the examples in the OpenAPI document."""

import json
import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from typing import Any

import asyncpg
import jsonschema_rs
import pytest

from tests.openapi_document import Json, build_document, walk_objects
from tests.support import EXAMPLE_PATIENT, PUT_EXAMPLE

REQUEST_SCHEMAS = {
    "patients": ["PatientCreate", "PatientUpdate"],
    "profiles": ["ProfileCreate", "ProfileUpdate", "ProfileUpsert"],
    "hospitals": ["HospitalCreate", "HospitalUpdate"],
    "doctors": ["DoctorCreate", "DoctorUpdate"],
}


@pytest.fixture(scope="module")
def document() -> Json:
    return build_document()


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


def test_no_schema_contains_itself(document: Json) -> None:
    """No schema refers to itself, not even through others: the page of /docs inserts what references point to."""
    schemas = document["components"]["schemas"]
    graph = {
        name: {value["$ref"].rpartition("/")[2] for _, value in walk_objects(schema) if "$ref" in value}
        for name, schema in schemas.items()
    }
    TopologicalSorter(graph).prepare()  # raises an error that names the circle


def test_no_schema_has_a_default(document: Json) -> None:
    """No schema has a `default`: a generated client would send it, and an absent field is not null."""
    assert [
        place for place, value in walk_objects(document) if "default" in value and not place.endswith("properties")
    ] == []


def test_fastapi_validation_errors_are_not_documented(document: Json) -> None:
    """FastAPI's validation errors, which the service never returns, are not documented."""
    assert not {"HTTPValidationError", "ValidationError"} & document["components"]["schemas"].keys()
    assert "HTTPValidationError" not in json.dumps(document)


def text_schema(schema: Json) -> Json:
    """Return the branch of a field's schema that describes text, whether the field is optional or not."""
    branches: list[Json] = schema.get("anyOf", [schema])
    return next((branch for branch in branches if branch.get("type") in ("string", ["string", "null"])), {})


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


def test_response_gender_is_a_named_enum(document: Json) -> None:
    """The gender in responses is a named enum, so that generated clients have one type with a readable name."""
    gender = document["components"]["schemas"]["Patient"]["properties"]["patient_gender"]
    assert gender["anyOf"] == [{"$ref": "#/components/schemas/Gender"}, {"type": "null"}]
    assert document["components"]["schemas"]["Gender"]["enum"] == ["Male", "Female", "Other", "Unknown"]


def test_examples_have_no_messages_of_pydantic(document: Json) -> None:
    """The examples of errors are messages of this service, as responses are."""
    text = json.dumps(document)
    assert "Must be" in text
    assert not [words for words in ("Input should", "String should", "Field required", "Value error") if words in text]


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
