"""Message framing: the service reads exactly the request that was sent, or refuses it."""

import asyncio
from collections.abc import Callable, Iterator
from typing import NamedTuple

import asyncpg

from tests.hostile.support import connected, read_to_end, send, single_bytes, statuses
from tests.support import ServiceProcess

Serve = Callable[..., ServiceProcess]

BODY = b'{"patient_last_name": "Doe"}'
CHUNK = b"%x\r\n%b\r\n" % (len(BODY), BODY)
TRANSFER_ENCODING_HEADER = b"Transfer-Encoding: chunked\r\n"
CONTENT_LENGTH_HEADER = b"Content-Length: %d\r\n" % len(BODY)
HOST_HEADER = b"Host: patients.test\r\n"
LAST_CHUNK = b"0\r\n\r\n"
H2C_UPGRADE_HEADERS = (
    b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQBAAAAAAIAAAAA\r\n"
)
"""The headers that Java's client offers with its first request on a connection."""
NEXT_REQUEST = b"GET /livez HTTP/1.1\r\nHost: patients.test\r\nX-Request-ID: next\r\nConnection: close\r\n\r\n"
PATIENTS = b"/patients/patients/"


class RawRequest(NamedTuple):
    """The head and the body of a request."""

    head: bytes
    body: bytes = b""


def post_request(
    headers: bytes, body: bytes = BODY, *, host: bytes = HOST_HEADER, version: bytes = b"HTTP/1.1"
) -> RawRequest:
    """Return a request that creates a patient."""
    first = b"POST %b %b\r\n" % (PATIENTS, version)
    return RawRequest(first + host + b"Content-Type: application/json\r\n" + headers + b"\r\n", body)


SERVED_REQUESTS = {
    "length": post_request(CONTENT_LENGTH_HEADER),
    "length and a tab": post_request(b"Content-Length: %d\t\r\n" % len(BODY)),
    "chunked": post_request(TRANSFER_ENCODING_HEADER, CHUNK + LAST_CHUNK),
    "chunked after a tab": post_request(b"Transfer-Encoding:\tCHUNKED\r\n", CHUNK + LAST_CHUNK),
    "chunk extensions": post_request(TRANSFER_ENCODING_HEADER, CHUNK.replace(b"\r\n", b';a="b;c"\r\n', 1) + LAST_CHUNK),
    "trailers": post_request(
        TRANSFER_ENCODING_HEADER, CHUNK + b"0\r\nX-Request-ID: trailer\r\nExpect: 100-continue\r\nHost: b\r\n\r\n"
    ),
    "trailers that ask for an upgrade": post_request(
        TRANSFER_ENCODING_HEADER, CHUNK + b"0\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
    ),
    "upgrade that Connection does not name": post_request(b"Upgrade: h2c\r\n" + CONTENT_LENGTH_HEADER),
    "blank lines before it": RawRequest(b"\r\n\r\n" + post_request(CONTENT_LENGTH_HEADER).head, BODY),
}
"""These create a patient, and the next request on the connection is served."""

SERVED_AS_LAST_REQUESTS = {
    "h2c and length": post_request(H2C_UPGRADE_HEADERS + CONTENT_LENGTH_HEADER),
    "h2c and chunked": post_request(H2C_UPGRADE_HEADERS + TRANSFER_ENCODING_HEADER, CHUNK + LAST_CHUNK),
    "h2c after the length": post_request(CONTENT_LENGTH_HEADER + H2C_UPGRADE_HEADERS),
    "websocket": post_request(
        b"Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        + CONTENT_LENGTH_HEADER
    ),
    "two Connection headers": post_request(
        b"Connection: keep-alive\r\nConnection: upgrade\r\nUpgrade: x\r\n" + CONTENT_LENGTH_HEADER
    ),
    "close and upgrade": post_request(b"Connection: close, upgrade\r\nUpgrade: x\r\n" + CONTENT_LENGTH_HEADER),
    "HTTP/1.0 and upgrade": post_request(
        b"Connection: upgrade\r\nUpgrade: x\r\n" + CONTENT_LENGTH_HEADER, version=b"HTTP/1.0"
    ),
    "HTTP/1.0 without Host": post_request(CONTENT_LENGTH_HEADER, host=b"", version=b"HTTP/1.0"),
    "HTTP/1.0 that would go on": post_request(
        b"Connection: keep-alive\r\n" + CONTENT_LENGTH_HEADER, version=b"HTTP/1.0"
    ),
    "close": post_request(b"Connection: close\r\n" + CONTENT_LENGTH_HEADER),
}
"""These create a patient, and nothing that follows is treated as a request."""

REFUSED_REQUESTS = {
    "both lengths": post_request(CONTENT_LENGTH_HEADER + TRANSFER_ENCODING_HEADER, CHUNK + LAST_CHUNK),
    "both lengths, the other way round": post_request(
        TRANSFER_ENCODING_HEADER + CONTENT_LENGTH_HEADER, CHUNK + LAST_CHUNK
    ),
    "both lengths and upgrade": post_request(
        H2C_UPGRADE_HEADERS + CONTENT_LENGTH_HEADER + TRANSFER_ENCODING_HEADER, CHUNK + LAST_CHUNK
    ),
    "length twice": post_request(CONTENT_LENGTH_HEADER + CONTENT_LENGTH_HEADER),
    "two lengths": post_request(CONTENT_LENGTH_HEADER + b"Content-Length: 0\r\n"),
    "list of lengths": post_request(b"Content-Length: %d, %d\r\n" % (len(BODY), len(BODY))),
    "length with a sign": post_request(b"Content-Length: +%d\r\n" % len(BODY)),
    "negative length": post_request(b"Content-Length: -1\r\n"),
    "hexadecimal length": post_request(b"Content-Length: 0x1c\r\n"),
    "empty length": post_request(b"Content-Length:\r\n"),
    "length beyond 64 bits": post_request(b"Content-Length: 18446744073709551644\r\n"),
    "xchunked": post_request(b"Transfer-Encoding: xchunked\r\n", CHUNK + LAST_CHUNK),
    "chunked, identity": post_request(b"Transfer-Encoding: chunked, identity\r\n", CHUNK + LAST_CHUNK),
    "identity, chunked": post_request(b"Transfer-Encoding: identity, chunked\r\n", CHUNK + LAST_CHUNK),
    "gzip, chunked": post_request(b"Transfer-Encoding: gzip, chunked\r\n", CHUNK + LAST_CHUNK),
    "identity": post_request(b"Transfer-Encoding: identity\r\n"),
    "empty encoding": post_request(b"Transfer-Encoding:\r\n" + CONTENT_LENGTH_HEADER),
    "chunked twice": post_request(TRANSFER_ENCODING_HEADER + TRANSFER_ENCODING_HEADER, CHUNK + LAST_CHUNK),
    "identity, then chunked": post_request(
        b"Transfer-Encoding: identity\r\n" + TRANSFER_ENCODING_HEADER, CHUNK + LAST_CHUNK
    ),
    "chunked after a vertical tab": post_request(b"Transfer-Encoding: \x0bchunked\r\n", CHUNK + LAST_CHUNK),
    "blank before the colon": post_request(b"Transfer-Encoding : chunked\r\n", CHUNK + LAST_CHUNK),
    "chunked in HTTP/1.0": post_request(TRANSFER_ENCODING_HEADER, CHUNK + LAST_CHUNK, version=b"HTTP/1.0"),
    "obsolete folding": post_request(b"X-A: a\r\n b\r\n" + CONTENT_LENGTH_HEADER),
    "folded encoding": post_request(b"Transfer-Encoding:\r\n chunked\r\n", CHUNK + LAST_CHUNK),
    "folded first header": post_request(CONTENT_LENGTH_HEADER, host=b" Host: patients.test\r\n"),
    "bare LF": RawRequest(post_request(CONTENT_LENGTH_HEADER).head.replace(b"\r\n", b"\n"), BODY),
    "bare LF after a header": post_request(b"X-A: a\n" + CONTENT_LENGTH_HEADER),
    "bare CR after a header": post_request(b"X-A: a\r" + CONTENT_LENGTH_HEADER),
    "bare LF at the end": RawRequest(post_request(CONTENT_LENGTH_HEADER).head[:-2] + b"\n", BODY),
    "NUL in a value": post_request(b"X-A: a\0b\r\n" + CONTENT_LENGTH_HEADER),
    "NUL in a name": post_request(b"X-\0: a\r\n" + CONTENT_LENGTH_HEADER),
    "header without a colon": post_request(b"X-A\r\n" + CONTENT_LENGTH_HEADER),
    "header without a name": post_request(b": a\r\n" + CONTENT_LENGTH_HEADER),
    "chunk size with a blank": post_request(TRANSFER_ENCODING_HEADER, CHUNK.replace(b"\r\n", b" \r\n", 1) + LAST_CHUNK),
    "chunk size with 0x": post_request(TRANSFER_ENCODING_HEADER, b"0x" + CHUNK + LAST_CHUNK),
    "negative chunk size": post_request(TRANSFER_ENCODING_HEADER, b"-" + CHUNK + LAST_CHUNK),
    "no chunk size": post_request(TRANSFER_ENCODING_HEADER, b"\r\n" + CHUNK + LAST_CHUNK),
    "chunk size beyond 64 bits": post_request(TRANSFER_ENCODING_HEADER, b"1000000000000000" + CHUNK + LAST_CHUNK),
    "chunk longer than its size": post_request(TRANSFER_ENCODING_HEADER, b"1\r\n%b\r\n" % BODY + LAST_CHUNK),
    "bare LF after a chunk size": post_request(TRANSFER_ENCODING_HEADER, CHUNK.replace(b"\r\n", b"\n", 1) + LAST_CHUNK),
    "bare LF after a chunk": post_request(TRANSFER_ENCODING_HEADER, CHUNK[:-2] + b"\n" + LAST_CHUNK),
    "bare LF after an extension": post_request(
        TRANSFER_ENCODING_HEADER, CHUNK.replace(b"\r\n", b";a\n", 1) + LAST_CHUNK
    ),
    "length in trailers": post_request(TRANSFER_ENCODING_HEADER, CHUNK + b"0\r\n" + CONTENT_LENGTH_HEADER + b"\r\n"),
    "encoding in trailers": post_request(
        TRANSFER_ENCODING_HEADER, CHUNK + b"0\r\n" + TRANSFER_ENCODING_HEADER + b"\r\n"
    ),
    "upgrade and a wrong chunk": post_request(
        H2C_UPGRADE_HEADERS + TRANSFER_ENCODING_HEADER, b"zz\r\n" + CHUNK + LAST_CHUNK
    ),
    "two hosts": post_request(CONTENT_LENGTH_HEADER, host=HOST_HEADER + b"Host: other.test\r\n"),
    "host twice": post_request(CONTENT_LENGTH_HEADER, host=HOST_HEADER + HOST_HEADER),
    "two hosts in HTTP/1.0": post_request(CONTENT_LENGTH_HEADER, host=HOST_HEADER + HOST_HEADER, version=b"HTTP/1.0"),
    "no host": post_request(CONTENT_LENGTH_HEADER, host=b""),
    "no host and upgrade": post_request(H2C_UPGRADE_HEADERS + CONTENT_LENGTH_HEADER, host=b""),
    "HTTP/0.9": RawRequest(b"GET /livez\r\n\r\n"),
    "HTTP/0.9 by its number": post_request(CONTENT_LENGTH_HEADER, version=b"HTTP/0.9"),
    "HTTP/1.2": post_request(CONTENT_LENGTH_HEADER, version=b"HTTP/1.2"),
    "HTTP/2.0": post_request(CONTENT_LENGTH_HEADER, version=b"HTTP/2.0"),
    "preface of HTTP/2": RawRequest(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    "no version": post_request(CONTENT_LENGTH_HEADER, version=b""),
    "tunnel": RawRequest(b"CONNECT patients.test:443 HTTP/1.1\r\n" + HOST_HEADER + b"\r\n"),
    "tunnel with a body": RawRequest(
        b"CONNECT patients.test:443 HTTP/1.1\r\n" + HOST_HEADER + CONTENT_LENGTH_HEADER + b"\r\n", BODY
    ),
    "no method": RawRequest(b" / HTTP/1.1\r\n" + HOST_HEADER + b"\r\n"),
    "TLS": RawRequest(b"\x16\x03\x01\x02\x00\x01"),
    "control character in the path": RawRequest(b"GET /livez\t HTTP/1.1\r\n" + HOST_HEADER + b"\r\n"),
    "large header": post_request(b"X-A: %b\r\n" % (b"a" * 33_000) + CONTENT_LENGTH_HEADER),
    "many headers": post_request(b"X-A: a\r\n" * 4_200 + CONTENT_LENGTH_HEADER),
    "long path": RawRequest(b"GET /%b HTTP/1.1\r\n" % (b"a" * 33_000) + HOST_HEADER + b"\r\n"),
}
"""These get a problem and create nothing, and nothing that follows is treated as a request."""


def deliveries(case: RawRequest, *, bytewise_too: bool) -> Iterator[list[bytes]]:
    """Yield the pieces to send: all at once; head, body and next request separately; and byte by byte."""
    yield [case.head + case.body + NEXT_REQUEST]
    yield [case.head, case.body, NEXT_REQUEST] if case.body else [case.head, NEXT_REQUEST]
    if bytewise_too:
        yield [case.head[:-3], *single_bytes(case.head[-3:] + case.body), NEXT_REQUEST]


async def exchange(served: ServiceProcess, pieces: list[bytes]) -> bytes:
    """Send pieces and return everything received until the service closes the connection."""
    async with connected(served.url) as plain:
        await send(plain, *pieces)
        return await read_to_end(plain)


async def test_each_request_ends_where_it_says(serve: Serve, database_url: str, connection: asyncpg.Connection) -> None:
    """Every valid way to delimit a request is served, and every invalid one is refused."""
    served = serve(DATABASE_URL=database_url)
    created = 0
    for cases, expected in ((SERVED_REQUESTS, [201, 204]), (SERVED_AS_LAST_REQUESTS, [201])):
        for name, case in cases.items():
            for number, pieces in enumerate(deliveries(case, bytewise_too=False)):
                received = await exchange(served, pieces)
                assert statuses(received) == expected, (name, number, received)
                created += 1
    for name, case in REFUSED_REQUESTS.items():
        for number, pieces in enumerate(deliveries(case, bytewise_too=False)):
            received = await exchange(served, pieces)
            assert statuses(received) in ([400], [431]), (name, number, received)
            assert received.count(b"content-type: application/problem+json\r\n") == 1, (name, number)
    assert await connection.fetchval("SELECT count(*) FROM patients") == created
    lines = [line for line in served.log_entries() if "request_id" in line]
    assert {line["event"] for line in lines} == {"request", "request refused"}
    assert "trailer" not in {line["request_id"] for line in lines}


async def test_a_body_that_looks_like_a_request_is_a_body(serve: Serve, database_url: str) -> None:
    """A body that looks like a request is read as a body, even after an upgrade offer, byte by byte, or unawaited."""
    served = serve(DATABASE_URL=database_url, PATIENTS_AUTH="required")
    for headers in (H2C_UPGRADE_HEADERS, b"", b"Connection: close\r\n"):
        case = post_request(headers + b"Content-Length: %d\r\n" % len(NEXT_REQUEST), NEXT_REQUEST)
        for pieces in ([case.head + case.body], [case.head, case.body], [case.head, *single_bytes(case.body)]):
            received = await exchange(served, [*pieces, *([] if headers else [NEXT_REQUEST])])
            assert statuses(received) == ([401] if headers else [401, 204]), (headers, received)
            assert received.count(b"x-request-id: next") == (0 if headers else 1)


async def test_expect_continue_works_with_an_upgrade(serve: Serve, database_url: str) -> None:
    """`Expect: 100-continue` works together with an upgrade offer, and the connection then ends."""
    served = serve(DATABASE_URL=database_url)
    go_on = b"HTTP/1.1 100 Continue\r\n\r\n"
    for headers, body in ((CONTENT_LENGTH_HEADER, BODY), (TRANSFER_ENCODING_HEADER, CHUNK + LAST_CHUNK)):
        case = post_request(H2C_UPGRADE_HEADERS + b"Expect: 100-continue\r\n" + headers, body)
        async with connected(served.url) as plain:
            await send(plain, case.head[:-3], *single_bytes(case.head[-3:]))
            async with asyncio.timeout(30):
                assert await asyncio.get_running_loop().sock_recv(plain, len(go_on)) == go_on
            await send(plain, *single_bytes(case.body), NEXT_REQUEST)
            assert statuses(await read_to_end(plain)) == [201]


async def test_http_1_0_knows_no_continue(serve: Serve, database_url: str) -> None:
    """A client of HTTP/1.0 gets one response, even if it sends `Expect: 100-continue`."""
    served = serve(DATABASE_URL=database_url)
    case = post_request(b"Expect: 100-continue\r\n" + CONTENT_LENGTH_HEADER, version=b"HTTP/1.0")
    async with connected(served.url) as plain:
        await send(plain, case.head, case.body)
        received = await read_to_end(plain)
    assert received.count(b"HTTP/1.1 ") == 1
    assert statuses(received) == [201]


async def test_a_final_response_instead_of_continue_ends_the_connection(serve: Serve, database_url: str) -> None:
    """After a final response instead of 100, the next request is not taken for the body: the connection ends."""
    served = serve(DATABASE_URL=database_url, PATIENTS_AUTH="required")
    async with connected(served.url) as plain:
        await send(plain, post_request(b"Expect: 100-continue\r\n" + CONTENT_LENGTH_HEADER).head)
        received = await read_to_end(plain)
    assert statuses(received) == [401]
    assert b"\r\nconnection: close\r\n" in received


async def test_a_request_gets_one_response(serve: Serve, database_url: str) -> None:
    """A request gets one response: later errors in its body, or bytes after it, cause no second response."""
    served = serve(DATABASE_URL=database_url, PATIENTS_AUTH="required")
    async with connected(served.url) as plain:
        await send(plain, post_request(TRANSFER_ENCODING_HEADER).head)
        async with asyncio.timeout(30):
            response = await asyncio.get_running_loop().sock_recv(plain, 65_536)
        await send(plain, b"zz\r\n", NEXT_REQUEST)
        assert statuses(response + await read_to_end(plain)) == [401]
    get = b"GET /patients/patients/ HTTP/1.1\r\n" + HOST_HEADER + b"\r\n"
    assert statuses(await exchange(served, [get + b"GARBAGE\r\n\r\n" + NEXT_REQUEST])) == [401]
    assert statuses(await exchange(served, [get + get + b"GARBAGE\r\n\r\n" + NEXT_REQUEST])) == [401, 401]
    assert statuses(
        await exchange(served, [get + post_request(TRANSFER_ENCODING_HEADER).head + b"zz\r\n" + NEXT_REQUEST])
    ) in ([], [401])
