"""A client without credentials behind a proxy that others use too acts in nobody's name.

Where the service takes a body for a request, that swallows the next request on the connection that the proxy shares.
"""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import asyncpg
import httpx
import pytest

from app.auth.scopes import Scope
from tests.auth.support import make_key
from tests.conftest import free_port
from tests.hostile.proxies import PROXIES, proxy_before
from tests.hostile.support import connected, send, statuses
from tests.http.test_hangups import insert_patients
from tests.processes import data_directory
from tests.support import Served

Serve = Callable[..., Served]

PATIENTS = "/patients/patients/"
PAUSES_SECONDS = (0.0, 0.01)
"""Between a head and its body: the proxy passes the head on before the body comes, and the answer is not over yet."""
SWALLOWING = b"\r\n" * 20_000 + (
    b"DELETE /patients/patients/pat0/ HTTP/1.1\r\nHost: patients.test\r\nX-Request-ID: smuggled\r\nX-Swallowed: "
)
"""A request without an end, whose last header takes the first line of the next one.

The blank lines before it mean nothing to a parser, and are too many to be sent or read together with a head.
"""
CHUNKED = b"%x\r\n%b\r\n0\r\n\r\n" % (len(SWALLOWING), SWALLOWING)
LENGTH = b"Content-Length: %d\r\n" % len(SWALLOWING)
VICTIM_TIMEOUT_SECONDS = 20
"""Longer than a slow disk takes to commit the audit of a read, shorter than the service waits for a client."""
ENCODING = b"Transfer-Encoding: chunked\r\n"

ATTACKS = {
    "upgrade": (b"Connection: Upgrade\r\nUpgrade: websocket\r\n" + LENGTH, SWALLOWING),
    "h2c": (
        b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMA\r\n" + LENGTH,
        SWALLOWING,
    ),
    "upgrade, chunked": (b"Connection: Upgrade\r\nUpgrade: x\r\n" + ENCODING, CHUNKED),
    "upgrade, and Expect": (b"Connection: Upgrade\r\nUpgrade: x\r\nExpect: 100-continue\r\n" + LENGTH, SWALLOWING),
    "both lengths": (LENGTH + ENCODING, b"0\r\n\r\n" + SWALLOWING),
    "two lengths": (b"Content-Length: 0\r\n" + LENGTH, SWALLOWING),
    "unknown encoding": (b"Transfer-Encoding: xchunked\r\n" + LENGTH, SWALLOWING),
    "encoding after a tab": (b"Transfer-Encoding:\tchunked\r\n" + LENGTH, b"0\r\n\r\n" + SWALLOWING),
    "encoding twice": (ENCODING + b"Transfer-Encoding: identity\r\n", b"0\r\n\r\n" + SWALLOWING),
    "folded encoding": (b"Transfer-Encoding:\r\n chunked\r\n" + LENGTH, b"0\r\n\r\n" + SWALLOWING),
    "extension with a bare LF": (ENCODING, b"0;\n\r\n\r\n" + SWALLOWING),
    "bare LF": (b"X-A: a\n" + ENCODING + LENGTH, b"0\r\n\r\n" + SWALLOWING),
    "trailers": (ENCODING, b"0\r\n" + LENGTH + b"\r\n" + SWALLOWING),
}


@pytest.fixture(params=PROXIES)
def proxy(request: pytest.FixtureRequest) -> Iterator[tuple[str, Path]]:
    """The name of a proxy, and a directory for its files, which it may enter whoever it runs as."""
    with data_directory() as directory:
        yield request.param, directory


@pytest.fixture
async def key(database_url: str, connection: asyncpg.Connection) -> str:
    """A key of somebody who may delete patients, of whom there is one."""
    await insert_patients(connection, 1)
    return await make_key(database_url, Scope.PATIENTS_READ, Scope.PATIENTS_WRITE)


async def attack(url: str, headers: bytes, body: bytes, pause: float) -> None:
    """Send a request without credentials, its body in a later read, and hang up when it is answered."""
    head = b"POST /patients/patients/ HTTP/1.1\r\nHost: patients.test\r\nContent-Type: application/json\r\n"
    async with connected(url) as plain:
        await send(plain, head + headers + b"\r\n")
        await asyncio.sleep(pause)
        await send(plain, body)
        answer = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(plain, 65_536), 10)
        assert set(statuses(answer)) <= {100, 400, 401, 408, 413, 429, 501, 502}, answer


async def ask(victim: httpx.AsyncClient) -> httpx.Response:
    """Read the patient; again, where the proxy sent that on a connection which the service was closing."""
    try:
        return await victim.get(f"{PATIENTS}pat0/")
    except httpx.RemoteProtocolError:
        return await victim.get(f"{PATIENTS}pat0/")


async def test_nothing_is_done_in_the_name_of_others(
    serve: Serve, database_url: str, connection: asyncpg.Connection, proxy: tuple[str, Path], key: str
) -> None:
    """After each attack others get their own answers, and the patient is there."""
    served = serve(DATABASE_URL=database_url, PATIENTS_AUTH="required")
    name, directory = proxy
    with proxy_before(served.url, name, directory, free_port()) as url:
        async with httpx.AsyncClient(
            base_url=url, headers={"X-API-Key": key}, timeout=VICTIM_TIMEOUT_SECONDS
        ) as victim:
            for attempt, sent in ATTACKS.items():
                for pause in PAUSES_SECONDS:
                    await attack(url, *sent, pause)
                    for _ in range(2):
                        answer = await ask(victim)
                        assert (answer.status_code, answer.json().get("unique_id")) == (200, "pat0"), attempt
    assert await connection.fetchval("SELECT count(*) FROM patients") == 1
    assert "smuggled" not in {line.get("request_id") for line in served.log()}
