"""How responses leave the server: whole, in order, and at once."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import asyncpg
import pytest

from tests.processes import port_of
from tests.support import ServiceProcess

Serve = Callable[..., ServiceProcess]

PATIENT_PATH = "/patients/patients/pat1/"
UNKNOWN_PATIENT_PATH = "/patients/patients/none/"


@pytest.fixture
async def served(serve: Serve, database_url: str, connection: asyncpg.Connection) -> ServiceProcess:
    """Return a service with one patient."""
    await connection.execute("INSERT INTO patients (unique_id, patient_last_name) VALUES ('pat1', 'Doe')")
    return serve(DATABASE_URL=database_url)


@asynccontextmanager
async def connected_socket(served: ServiceProcess) -> AsyncIterator[socket.socket]:
    """Yield a plain socket that is connected to the service, without any HTTP library."""
    with socket.socket() as plain:
        plain.setblocking(False)
        await asyncio.get_running_loop().sock_connect(plain, ("127.0.0.1", port_of(served.url)))
        yield plain


def encode_request(method: str, path: str, *headers: str) -> bytes:
    return "\r\n".join((f"{method} {path} HTTP/1.1", "Host: patients.test", *headers, "", "")).encode()


async def receive(plain: socket.socket) -> bytes:
    """Return the received bytes as soon as there are any, or none if the connection was closed."""
    async with asyncio.timeout(30):
        return await asyncio.get_running_loop().sock_recv(plain, 65_536)


async def test_response_arrives_in_one_piece(served: ServiceProcess) -> None:
    """A response is one piece: small devices read once, and each piece costs both sides as much as the query."""
    loop = asyncio.get_running_loop()
    async with connected_socket(served) as plain:
        for _ in range(50):
            await loop.sock_sendall(plain, encode_request("GET", PATIENT_PATH))
            head, _, body = (await receive(plain)).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 OK\r\n")
            assert f"content-length: {len(body)}\r\n".encode() in head
            assert body.endswith(b"}")


async def test_responses_without_a_body_are_sent_immediately(served: ServiceProcess) -> None:
    """A HEAD, a 304 and a 204 on one connection are sent at once, each before the next request."""
    loop = asyncio.get_running_loop()
    async with connected_socket(served) as plain:
        await loop.sock_sendall(plain, encode_request("HEAD", PATIENT_PATH))
        head = await receive(plain)
        tag = next(line for line in head.decode().splitlines() if line.startswith("etag: ")).removeprefix("etag: ")
        await loop.sock_sendall(plain, encode_request("GET", PATIENT_PATH, f"If-None-Match: {tag}"))
        unchanged = await receive(plain)
        await loop.sock_sendall(plain, encode_request("DELETE", PATIENT_PATH))
        deleted = await receive(plain)
    assert [response.split(b"\r\n")[0] for response in (head, unchanged, deleted)] == [
        b"HTTP/1.1 200 OK",
        b"HTTP/1.1 304 Not Modified",
        b"HTTP/1.1 204 No Content",
    ]
    assert all(response.endswith(b"\r\n\r\n") for response in (head, unchanged, deleted))


async def test_pipelined_requests_get_their_responses_in_order(served: ServiceProcess) -> None:
    """Requests sent one after another without reading are answered in order, and the last closes the connection."""
    requests = (
        encode_request("GET", PATIENT_PATH),
        encode_request("HEAD", PATIENT_PATH),
        encode_request("GET", UNKNOWN_PATIENT_PATH),
        encode_request("GET", "/patients/patients/"),
        encode_request("GET", PATIENT_PATH, "Connection: close"),
    )
    async with connected_socket(served) as plain:
        await asyncio.get_running_loop().sock_sendall(plain, b"".join(requests))
        responses = b""
        while piece := await receive(plain):
            responses += piece
    statuses = [int(part[:3]) for part in responses.split(b"HTTP/1.1 ")[1:]]
    assert statuses == [200, 200, 404, 200, 200]
    assert responses.count(b'"unique_id":"pat1"') == 3


async def test_expect_100_continue_gets_its_response_before_the_body(served: ServiceProcess) -> None:
    """A client that sends `Expect: 100-continue` gets the 100 before it sends the body."""
    loop = asyncio.get_running_loop()
    body = b'{"patient_last_name": "Roe"}'
    headers = ("Content-Type: application/json", f"Content-Length: {len(body)}", "Expect: 100-continue")
    async with connected_socket(served) as plain:
        await loop.sock_sendall(plain, encode_request("POST", "/patients/patients/", *headers))
        assert await receive(plain) == b"HTTP/1.1 100 Continue\r\n\r\n"
        await loop.sock_sendall(plain, body)
        assert (await receive(plain)).startswith(b"HTTP/1.1 201 Created\r\n")
