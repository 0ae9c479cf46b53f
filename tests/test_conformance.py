"""The service against its OpenAPI document: schemathesis sends what the document allows and what it forbids.

All checks are on: not_a_server_error, status_code_conformance, content_type_conformance, response_headers_conformance,
response_schema_conformance, negative_data_rejection, positive_data_acceptance, missing_required_header,
unsupported_method, allow_header_conformance, use_after_free, ensure_resource_availability, ignored_auth and
object_level_authorization. `filter_failure` dismisses failures that are no defects, and gives the reasons.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import jsonschema_rs
import schemathesis
from schemathesis.core.failures import AcceptedNegativeData, Failure
from schemathesis.core.parameters import ParameterLocation
from schemathesis.openapi.checks import JsonSchemaError, RejectedPositiveData

from app.fields.characters import is_blank
from tests.processes import run_cli
from tests.support import ServiceProcess

ERROR_TYPES_BEYOND_JSON_SCHEMA = {
    "cursor": "a cursor contains the position at which a page ended; no pattern describes the texts that contain one",
    "unknown_hospital": "the document does not know which hospitals exist",
    "unknown_doctor": "the document does not know which doctors exist",
    "name_missing": "whether a change leaves a name depends on the stored patient",
    "date_in_future": "the document does not know today's date",
    "read_only_links": "the document does not know the links of the stored patient",
    "unique_id_change": "a schema cannot require the id in the body to be that of the path",
    "missing_profile": "the document does not know which profiles were deleted",
    "missing_hospital": "the document does not know which hospitals were deleted",
    "missing_doctor": "the document does not know which doctors were deleted",
    "unknown_version": "the document does not know which versions a record has",
    "version_deleted": "the document does not know which versions are deletions",
    "idempotency_key_reused": "the document does not know which keys were sent before",
    "break_glass_reason": "no pattern can require a reason to be meaningful",
    "moment": "the format describes a timestamp; requiring one since 1900 would need a pattern instead of the format",
    "search_words": "a pattern that limits the number of words would be unreadable",
    "too_long_for_pages": "whether the filters are too long for a cursor depends on all of them together",
    "deleted_alone": "a schema of single parameters cannot forbid two of them together",
    "string_blank": "U+001C to U+001F are blanks to Python, but not to patterns",
    "string_nul": "a pattern that excludes NUL in every text would hide the meaningful pattern",
}
"""Error types of requests that are refused although the document allows them, and why it cannot forbid them."""

SCHEMATHESIS_CONFIGURATION = """
hooks = "tests.test_conformance"

[generation]
deterministic = true
max-examples = 25

[checks.negative_data_rejection]
expected-statuses = [400, 401, 403, 404, 405, 406, 409, 415, 422, 428, 429, 431, "5xx"]

[dictionaries]
patients = { values = ["pat123"] }
profiles = { values = ["prof123"] }
hospitals = { values = ["hos123", "hos456", "hos789", "hos-groote"] }
doctors = { values = ["doc123", "doc456", "doc-naidoo"] }
duplicates = { values = ["DUPLICATE_ID"] }
names = { values = ["Nomvula", "王", "O'Brien", "van der Merwe"] }

[[operations]]
include-path-regex = "^/patients/patients/"
[operations.parameters]
"path.unique_id" = { dictionary = "patients", probability = 0.3 }
"body.hospital_ids[*]" = { dictionary = "hospitals", probability = 0.8 }
"body.doctor_ids[*]" = { dictionary = "doctors", probability = 0.8 }
"body.patient_last_name" = { dictionary = "names", probability = 0.8 }

[[operations]]
include-path-regex = "^/patients/duplicates/"
[operations.parameters]
"path.unique_id" = { dictionary = "duplicates", probability = 0.3 }

[[operations]]
include-path-regex = "^/profiles/"
[operations.parameters]
"path.unique_id" = { dictionary = "profiles", probability = 0.3 }

[[operations]]
include-path-regex = "^/hospitals/"
[operations.parameters]
"path.unique_id" = { dictionary = "hospitals", probability = 0.3 }

[[operations]]
include-path-regex = "^/doctors/"
[operations.parameters]
"path.unique_id" = { dictionary = "doctors", probability = 0.3 }
"""
"""The configuration of schemathesis. Its ids are those of the demo data, because invented ids match no record.

`DUPLICATE_ID` stands for the id of a pair of patients that may be one person.
"""


@schemathesis.serializer("application/x-ndjson")
def serialize_lines(_: schemathesis.SerializationContext, value: Any) -> bytes:
    """Return a body of lines: text as it is, and anything else as one line of JSON."""
    return (value if isinstance(value, str) else json.dumps(value)).encode(errors="replace")


@schemathesis.hook
def filter_failure(
    context: schemathesis.HookContext,  # noqa: ARG001  # schemathesis passes it by name
    failure: Failure,
    case: schemathesis.Case[Any],
    response: schemathesis.Response,
) -> bool:
    """Return whether the failure of a check is a defect."""
    if response.status_code == 412:
        return False  # the document does not know the current tags
    if "429 Too Many Requests" in failure.message:
        return False  # where schemathesis expects a 401 for the thirty-first request without valid credentials
    if isinstance(failure, JsonSchemaError) and requests_fields(case):
        return False  # the document cannot make the required fields of a response depend on a parameter
    if isinstance(failure, RejectedPositiveData):
        errors = {error["type"] for error in response.json().get("errors", [])}
        return not errors or not errors <= ERROR_TYPES_BEYOND_JSON_SCHEMA.keys()
    if isinstance(failure, AcceptedNegativeData):
        return not is_valid_per_document(case)
    return True


def requests_fields(case: schemathesis.Case[Any]) -> bool:
    """Return whether the request asks for some fields of records only."""
    body = case.body if isinstance(case.body, dict) else {}
    return (case.query or {}).get("fields") is not None or body.get("fields") is not None


def is_valid_per_document(case: schemathesis.Case[Any]) -> bool:
    r"""Return whether the document allows the body, which only schemathesis considers invalid, or the body trimmed.

    It takes the pattern `\S`, one non-blank character, together with a length for `^\S{1,255}$`. The service trims
    texts, and takes invisible characters for blanks, which patterns and lengths cannot describe.
    """
    locations = case.meta.components if case.meta is not None else {}
    if [location for location, part in locations.items() if part.mode.is_negative] != [ParameterLocation.BODY]:
        return False
    document: dict[str, Any] = case.operation.schema.raw_schema
    operation = document["paths"][case.operation.path][case.operation.method]
    content = operation["requestBody"]["content"]
    if "application/json" not in content:
        return True  # lines of text, each of which has a result of its own
    schema = content["application/json"]["schema"]
    validator = jsonschema_rs.Draft202012Validator({**schema, "components": document["components"]})
    return validator.is_valid(trimmed(case.body))


def trimmed(value: Any) -> Any:
    """Return a JSON value whose texts have no blanks around them."""
    if isinstance(value, dict):
        return {name: trimmed(member) for name, member in value.items()}
    if isinstance(value, list):
        return [trimmed(member) for member in value]
    if isinstance(value, str):
        return "" if is_blank(value) else value.strip()
    return value


def create_duplicate(url: str, key: str) -> str:
    """Create two patients that may be one person, and return the id of the pair."""
    person = {"patient_first_name": "Nandipha", "patient_last_name": "Gqirana", "patient_date_of_birth": "1974-05-09"}
    with httpx.Client(base_url=url, headers={"X-API-Key": key}) as client:
        for _ in range(2):
            client.post("/patients/patients/", json=person).raise_for_status()
        (pair,) = client.get("/patients/duplicates/").json()
    pair_id: str = pair["unique_id"]
    return pair_id


def test_service_conforms_to_its_openapi_document(
    serve: Callable[..., ServiceProcess], database_url: str, tmp_path: Path
) -> None:
    """The service gives every request that schemathesis generates a response that the OpenAPI document promises.

    schemathesis exercises all operations with boundary values, random data and sequences of requests, on the demo data.
    Each operation has to succeed at least once, because agreement on refusals alone would prove little.
    """
    made = run_cli("keys", "create", "--name", "schemathesis", "--scope", "admin", DATABASE_URL=database_url)
    key = made.stdout.strip()
    served = serve("--demo", DATABASE_URL=database_url, PATIENTS_AUTH="required", PATIENTS_RATE_LIMIT="off")
    configuration, report = tmp_path / "schemathesis.toml", tmp_path / "report.json"
    configuration.write_text(SCHEMATHESIS_CONFIGURATION.replace("DUPLICATE_ID", create_duplicate(served.url, key)))
    command = [sys.executable, "-m", "schemathesis.cli", "--no-color", "--config-file", str(configuration), "run"]
    options = [
        "--header",
        f"X-API-Key: {key}",
        "--checks",
        "all",
        "--continue-on-failure",
        "--report",
        "json",
        "--report-json-path",
        str(report),
    ]
    run = subprocess.run(
        [*command, *options, f"{served.url}/openapi.json"], check=False, stdout=subprocess.PIPE, text=True, timeout=600
    )
    assert run.returncode == 0, run.stdout
    outcome = json.loads(report.read_text())
    assert outcome["operations"]["tested"] == outcome["operations"]["total"]
    assert {name: phase["status"] for name, phase in outcome["phases"].items()} == dict.fromkeys(
        ("examples", "coverage", "fuzzing", "stateful"), "success"
    )
    without_success = [
        operation
        for operation, phases in outcome["valid_rates"].items()
        if not any(phase["accepted"] for phase in phases.values())
    ]
    assert not without_success
    assert len(outcome["valid_rates"]) == outcome["operations"]["total"]
