"""Request smuggling: a client without credentials behind a shared proxy cannot act as another client.

If the service mistook a body for a request, that request would swallow the next one on the proxy's shared connection.
"""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import asyncpg
import httpx
import pytest

from app.auth.scopes import Scope
from tests.auth.support import make_key
from tests.hostile.proxies import PROXY_COMMANDS, proxy_in_front_of
from tests.hostile.support import connected, send, statuses
from tests.http.test_disconnects import insert_patients
from tests.processes import data_directory, free_port
from tests.support import ServiceProcess

Serve = Callable[..., ServiceProcess]

PATIENTS = "/patients/patients/"
PAUSES_SECONDS = (0.0, 0.01)
"""Between a head and its body: the proxy forwards the head before the body arrives, while no response has ended."""
SMUGGLED_REQUEST = b"\r\n" * 20_000 + (
    b"DELETE /patients/patients/pat0/ HTTP/1.1\r\nHost: patients.test\r\nX-Request-ID: smuggled\r\nX-Swallowed: "
)
"""An incomplete request with a last header that takes in the first line of the next request.

The blank lines before it mean nothing to a parser, and are too many to be sent or read together with a head.
"""
CHUNKED_BODY = b"%x\r\n%b\r\n0\r\n\r\n" % (len(SMUGGLED_REQUEST), SMUGGLED_REQUEST)
CONTENT_LENGTH_HEADER = b"Content-Length: %d\r\n" % len(SMUGGLED_REQUEST)
VICTIM_TIMEOUT_SECONDS = 20
"""Longer than a slow disk takes to commit an audit row, and shorter than the service waits for a client."""
TRANSFER_ENCODING_HEADER = b"Transfer-Encoding: chunked\r\n"

ATTACKS = {
    "upgrade": (b"Connection: Upgrade\r\nUpgrade: websocket\r\n" + CONTENT_LENGTH_HEADER, SMUGGLED_REQUEST),
    "h2c": (
        b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMA\r\n" + CONTENT_LENGTH_HEADER,
        SMUGGLED_REQUEST,
    ),
    "upgrade, chunked": (b"Connection: Upgrade\r\nUpgrade: x\r\n" + TRANSFER_ENCODING_HEADER, CHUNKED_BODY),
    "upgrade, and Expect": (
        b"Connection: Upgrade\r\nUpgrade: x\r\nExpect: 100-continue\r\n" + CONTENT_LENGTH_HEADER,
        SMUGGLED_REQUEST,
    ),
    "both lengths": (CONTENT_LENGTH_HEADER + TRANSFER_ENCODING_HEADER, b"0\r\n\r\n" + SMUGGLED_REQUEST),
    "two lengths": (b"Content-Length: 0\r\n" + CONTENT_LENGTH_HEADER, SMUGGLED_REQUEST),
    "unknown encoding": (b"Transfer-Encoding: xchunked\r\n" + CONTENT_LENGTH_HEADER, SMUGGLED_REQUEST),
    "encoding after a tab": (
        b"Transfer-Encoding:\tchunked\r\n" + CONTENT_LENGTH_HEADER,
        b"0\r\n\r\n" + SMUGGLED_REQUEST,
    ),
    "encoding twice": (TRANSFER_ENCODING_HEADER + b"Transfer-Encoding: identity\r\n", b"0\r\n\r\n" + SMUGGLED_REQUEST),
    "folded encoding": (b"Transfer-Encoding:\r\n chunked\r\n" + CONTENT_LENGTH_HEADER, b"0\r\n\r\n" + SMUGGLED_REQUEST),
    "extension with a bare LF": (TRANSFER_ENCODING_HEADER, b"0;\n\r\n\r\n" + SMUGGLED_REQUEST),
    "bare LF": (b"X-A: a\n" + TRANSFER_ENCODING_HEADER + CONTENT_LENGTH_HEADER, b"0\r\n\r\n" + SMUGGLED_REQUEST),
    "trailers": (TRANSFER_ENCODING_HEADER, b"0\r\n" + CONTENT_LENGTH_HEADER + b"\r\n" + SMUGGLED_REQUEST),
}


@pytest.fixture(params=PROXY_COMMANDS)
def proxy(request: pytest.FixtureRequest) -> Iterator[tuple[str, Path]]:
    """Return the name of a proxy, and a directory for its files that any account may enter."""
    with data_directory() as directory:
        yield request.param, directory


@pytest.fixture
async def victim_key(database_url: str, connection: asyncpg.Connection) -> str:
    """Return a key that may read and write patients, with one patient stored."""
    await insert_patients(connection, 1)
    return await make_key(database_url, Scope.PATIENTS_READ, Scope.PATIENTS_WRITE)


async def attack(url: str, headers: bytes, body: bytes, pause: float) -> None:
    """Send a request without credentials, its body in a later read, and disconnect after the response."""
    head = b"POST /patients/patients/ HTTP/1.1\r\nHost: patients.test\r\nContent-Type: application/json\r\n"
    async with connected(url) as plain:
        await send(plain, head + headers + b"\r\n")
        await asyncio.sleep(pause)
        await send(plain, body)
        response = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(plain, 65_536), 10)
        assert set(statuses(response)) <= {100, 400, 401, 408, 413, 429, 501, 502}, response


async def get_patient(victim: httpx.AsyncClient) -> httpx.Response:
    """Read the patient, and retry if the proxy used a connection that the service was closing."""
    try:
        return await victim.get(f"{PATIENTS}pat0/")
    except httpx.RemoteProtocolError:
        return await victim.get(f"{PATIENTS}pat0/")


async def test_no_request_is_smuggled_into_anothers_connection(
    serve: Serve, database_url: str, connection: asyncpg.Connection, proxy: tuple[str, Path], victim_key: str
) -> None:
    """After each attack other clients get their own responses, and the patient still exists."""
    served = serve(DATABASE_URL=database_url, PATIENTS_AUTH="required")
    name, directory = proxy
    with proxy_in_front_of(served.url, name, directory, free_port()) as url:
        async with httpx.AsyncClient(
            base_url=url, headers={"X-API-Key": victim_key}, timeout=VICTIM_TIMEOUT_SECONDS
        ) as victim:
            for attempt, sent in ATTACKS.items():
                for pause in PAUSES_SECONDS:
                    await attack(url, *sent, pause)
                    for _ in range(2):
                        response = await get_patient(victim)
                        assert (response.status_code, response.json().get("unique_id")) == (200, "pat0"), attempt
    assert await connection.fetchval("SELECT count(*) FROM patients") == 1
    assert "smuggled" not in {line.get("request_id") for line in served.log_entries()}
