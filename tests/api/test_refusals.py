"""The message of a 422: only a refused change says that nothing was stored."""

from typing import Any

import httpx
import pytest

PATIENTS = "/patients/patients/"
READ_DETAIL = "The request has errors."
CHANGE_DETAIL = "The request has errors, so nothing was stored."


@pytest.mark.parametrize(
    ("method", "path", "options"),
    [
        ("GET", f"{PATIENTS}?limit=0", {}),
        ("GET", "/hospitals/hospitals?cursor=x", {}),
        ("GET", "/audit/?limit=0", {}),
        ("GET", f"{PATIENTS}pat-1/", {"headers": {"X-Break-Glass": "x"}}),
        ("GET", f"{PATIENTS}pat-1/history/?limit=0", {}),
        ("GET", f"{PATIENTS}pat-1/history/x/", {}),
        ("GET", f"{PATIENTS}pat-1/access/?limit=0", {}),
        ("POST", f"{PATIENTS}search/", {"json": {"limit": 0}}),
        ("POST", f"{PATIENTS}search/?limit=1", {"json": {}}),
    ],
)
async def test_a_refused_read_does_not_speak_of_storing(
    client: httpx.AsyncClient, method: str, path: str, options: dict[str, Any]
) -> None:
    """A refused read, including a search, has a message that does not say that nothing was stored."""
    response = await client.request(method, path, **options)
    assert (response.status_code, response.json()["detail"]) == (422, READ_DETAIL)
    if method == "GET":
        head = await client.head(path, **options)
        # as long as the body of the same GET, apart from the request's id
        assert (head.status_code, head.headers["Content-Length"]) == (422, response.headers["Content-Length"])


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", PATIENTS, {"unknown": 1}),
        ("POST", PATIENTS, {"patient_last_name": "Doe", "hospital_ids": ["hos999"]}),
        ("PUT", f"{PATIENTS}pat-1/", {"unknown": 1}),
        ("PATCH", f"{PATIENTS}pat-1", {"patient_last_name": None}),
        ("POST", f"{PATIENTS}pat-1/restore/", {"version": 7}),
    ],
)
async def test_a_refused_change_says_that_nothing_was_stored(
    client: httpx.AsyncClient, method: str, path: str, body: dict[str, Any]
) -> None:
    """A refused change says that nothing was stored."""
    assert (await client.post(PATIENTS, json={"unique_id": "pat-1", "patient_last_name": "Doe"})).status_code == 201
    response = await client.request(method, path, json=body)
    assert (response.status_code, response.json()["detail"]) == (422, CHANGE_DETAIL)


async def test_a_refused_read_counts_the_errors_that_it_does_not_list(client: httpx.AsyncClient) -> None:
    """If a refused read has too many errors to list, its message still says how many there are."""
    response = await client.get(PATIENTS, params={f"unknown{number}": "1" for number in range(120)})
    assert response.json()["detail"] == f"{READ_DETAIL} These are the first 100 of 120 errors."
