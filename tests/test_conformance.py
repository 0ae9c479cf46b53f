"""The service against its OpenAPI document: schemathesis sends what the document allows and what it forbids.

All checks are on: not_a_server_error, status_code_conformance, content_type_conformance, response_headers_conformance,
response_schema_conformance, negative_data_rejection, positive_data_acceptance, missing_required_header,
unsupported_method, allow_header_conformance, use_after_free, ensure_resource_availability, ignored_auth and
object_level_authorization. `filter_failure` in `tests/schemathesis_hooks.py` dismisses failures that are no defects,
and gives the reasons.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.processes import run_cli
from tests.support import ServiceProcess

SCHEMATHESIS_CONFIGURATION = """
hooks = "tests.schemathesis_hooks"

[generation]
deterministic = true
max-examples = {max_examples}

[checks.negative_data_rejection]
expected-statuses = [400, 401, 403, 404, 405, 406, 409, 415, 422, 428, 429, 431, "5xx"]

[dictionaries]
patients = { values = ["pat123"] }
profiles = { values = ["prof123"] }
hospitals = { values = ["hos123", "hos456", "hos789", "hos-groote"] }
doctors = { values = ["doc123", "doc456", "doc-naidoo"] }
duplicates = { values = ["DUPLICATE_ID"] }
others = { values = ["pat456"] }
merged = { values = ["pat789"] }
names = { values = ["Nomvula", "王", "O'Brien", "van der Merwe"] }

[[operations]]
include-path-regex = "^/patients/patients/{unique_id}/unmerge/"
[operations.parameters]
"path.unique_id" = { dictionary = "merged", probability = 0.5 }

[[operations]]
include-path-regex = "^/patients/patients/{unique_id}/merge/"
[operations.parameters]
"path.unique_id" = { dictionary = "patients", probability = 0.3 }
"body.from" = { dictionary = "others", probability = 0.5 }

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


def create_duplicate(url: str, key: str) -> str:
    """Create two patients that may be one person, and return the id of the pair."""
    person = {"patient_first_name": "Nandipha", "patient_last_name": "Gqirana", "patient_date_of_birth": "1974-05-09"}
    with httpx.Client(base_url=url, headers={"X-API-Key": key}) as client:
        for _ in range(2):
            client.post("/patients/patients/", json=person).raise_for_status()
        (pair,) = client.get("/patients/duplicates/").json()
    pair_id: str = pair["unique_id"]
    return pair_id


def create_merged(url: str, key: str) -> None:
    """Create a patient to merge, and one that is merged into it."""
    with httpx.Client(base_url=url, headers={"X-API-Key": key}) as client:
        for unique_id in ("pat456", "pat789"):
            client.post("/patients/patients/", json={"unique_id": unique_id, "patient_last_name": "Nkosi"})
        client.post("/patients/patients/pat456/merge/", json={"from": "pat789"}).raise_for_status()


@pytest.mark.long
@pytest.mark.parametrize("max_examples", [10, pytest.param(100, marks=pytest.mark.chaos)])
def test_service_conforms_to_its_openapi_document(
    serve: Callable[..., ServiceProcess], database_url: str, tmp_path: Path, max_examples: int
) -> None:
    """The service gives every request that schemathesis generates a response that the OpenAPI document promises.

    schemathesis exercises all operations with boundary values, random data and sequences of requests, on the demo data.
    Each operation has to succeed at least once, because agreement on refusals alone would prove little. Only the amount
    of random data and the number of sequences depend on `max_examples`: all checks apply to all operations each time.
    """
    made = run_cli("keys", "create", "--name", "schemathesis", "--scope", "admin", DATABASE_URL=database_url)
    key = made.stdout.strip()
    served = serve("--demo", DATABASE_URL=database_url, PATIENTS_AUTH="required", PATIENTS_RATE_LIMIT="off")
    configuration, report = tmp_path / "schemathesis.toml", tmp_path / "report.json"
    text = SCHEMATHESIS_CONFIGURATION.replace("DUPLICATE_ID", create_duplicate(served.url, key))
    create_merged(served.url, key)
    configuration.write_text(text.replace("{max_examples}", str(max_examples)))
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
        [*command, *options, f"{served.url}/openapi.json"], check=False, stdout=subprocess.PIPE, text=True, timeout=1200
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
