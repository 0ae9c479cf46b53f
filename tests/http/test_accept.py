"""The `Accept` header chooses between a JSON array and one record per line."""

import httpx
import pytest

from tests.listing.support import PATIENTS

NDJSON = "application/x-ndjson"
JSON = "application/json"


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("", JSON),
        ("*/*", JSON),
        ("text/html", JSON),
        (NDJSON, NDJSON),
        ("Application/X-NDJSON ; charset=utf-8", NDJSON),
        (f"{NDJSON}, */*;q=0.1", NDJSON),
        (f"{JSON}, {NDJSON}", NDJSON),
        (f"{JSON}, {NDJSON};q=0.9", JSON),
        (f"{JSON};q=0.2, {NDJSON}; q=0.3", NDJSON),
        (f"*/*, {NDJSON};q=0.9", JSON),
        (f"application/*;q=0.1, {NDJSON};q=0.9", NDJSON),
        (f"{NDJSON};q=0", JSON),
        (f"{NDJSON};q=none", JSON),
        (f"{NDJSON};q=nan", JSON),
        (f"{NDJSON}-seq", JSON),
        (f",;,=,q;;q=1,{NDJSON}", NDJSON),
    ],
)
async def test_lists_have_the_media_type_that_the_client_prefers(
    client: httpx.AsyncClient, accept: str, media_type: str
) -> None:
    """A client gets lines only if it names NDJSON and does not prefer JSON."""
    response = await client.get(PATIENTS, params={"limit": 1}, headers={"Accept": accept})
    assert response.headers["Content-Type"] == media_type


async def test_several_accept_headers_are_one_list(client: httpx.AsyncClient) -> None:
    """A client or proxy may send the elements of the header on lines of their own."""
    response = await client.get(PATIENTS, params={"limit": 1}, headers=[("Accept", "text/html"), ("Accept", NDJSON)])
    assert response.headers["Content-Type"] == NDJSON
