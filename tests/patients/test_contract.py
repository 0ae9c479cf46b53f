"""The contract's examples, word for word."""

import httpx
import pytest

from tests.support import EXAMPLE

pytestmark = pytest.mark.usefixtures("directory")


async def test_create_answers_as_the_contract_prints_it(client: httpx.AsyncClient) -> None:
    """POST of the contract's example answers its example, with both hospitals."""
    answer = await client.post("/patients/patients/", json={**EXAMPLE, "unique_id": "pat123"})
    assert answer.status_code == 201
    created = answer.json()
    fields = {key: value for key, value in EXAMPLE.items() if not key.endswith("_ids")}
    hospitals = [
        {"unique_id": "hos123", "hospital_name": "General Hospital"},
        {"unique_id": "hos456", "hospital_name": "St. Mary's"},
    ]
    expected = {
        "unique_id": "pat123",
        **fields,
        "patient_hospital": hospitals,
        "patient_doctor": [{"unique_id": "doc123", "doctor_first_name": "Dr. Smith"}],
        "date_created": created["date_created"],
        "last_updated": created["date_created"],
    }
    assert list(created.items()) == list(expected.items())
