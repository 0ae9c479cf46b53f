"""Unusual spellings of paths reach the resource that they name, or none."""

from collections.abc import Callable

import asyncpg
import httpx
import pytest

from tests.hostile.support import connected, read_to_end, send, statuses
from tests.http.test_disconnects import insert_patients
from tests.support import RESOURCE_EXAMPLES, ResourceExample, ServiceProcess

ESCAPED_SLASH_PATHS = (
    "own%2Fhistory/",
    "own%2fhistory/",
    "own/history%2F",
    "own%2Frestore/",
    "own/%2F",
    "%2Fown/",
    "..%2Fpatients/",
)


@pytest.mark.parametrize("kind", RESOURCE_EXAMPLES, ids=lambda kind: kind.name)
async def test_an_escaped_slash_reaches_no_route(client: httpx.AsyncClient, kind: ResourceExample) -> None:
    """A path with an escaped slash is a 404 and changes nothing, whatever it means unescaped: no id has a slash."""
    assert (await client.post(kind.path, json=kind.create_body)).status_code == 201
    before = (await client.get(kind.record_path)).json()
    for path in (
        *(f"{kind.path}{end}" for end in ESCAPED_SLASH_PATHS),
        f"{kind.record_path[:-1]}%2F",
        kind.record_path.replace("/", "%2F"),
    ):
        for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"):
            response = await client.request(method, f"/{path.removeprefix('/')}", json={"version": 1})
            assert (response.status_code, response.headers["content-type"]) == (404, "application/problem+json"), path
    assert (await client.get(kind.record_path)).json() == before


async def test_path_spellings_reach_what_they_name_or_nothing(
    serve: Callable[..., ServiceProcess], database_url: str, connection: asyncpg.Connection
) -> None:
    """Dots, double slashes and backslashes are not normalized, and a URL in place of a path means its path."""
    await insert_patients(connection, 1)
    served = serve(DATABASE_URL=database_url)
    one = "/patients/patients/pat0/"
    spellings = {
        one: 200,
        "/patients/%70atients/pat%30/": 200,
        f"http://patients.test{one}": 200,
        "/patients/patients/./pat0/": 404,
        "/patients/patients/x/../pat0/": 404,
        "/patients/patients/%2e%2e/patients/pat0/": 404,
        "/patients//patients/pat0/": 404,
        f"/{one}": 404,
        f"{one}/": 404,
        "/patients/patients/pat0%5Chistory/": 404,
        "/patients\\patients/pat0/": 404,
        "/patients/patients/pat0%00/": 404,
        "/patients/patients/pat0%0d%0a/": 404,
        "/patients/patients/pat0;x=y/": 404,
        "/patients/patients/pat0%252Fhistory/": 404,
        "/docs/assets%2F..%2F..%2Fmain.py": 404,
        "*": 404,
    }
    for spelling, status in spellings.items():
        async with connected(served.url) as plain:
            head = f"GET {spelling} HTTP/1.1\r\nHost: patients.test\r\nConnection: close\r\n\r\n"
            await send(plain, head.encode())
            assert statuses(await read_to_end(plain)) == [status], spelling
