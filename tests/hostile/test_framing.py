"""Where one request ends and the next begins: what the service reads is what it was sent, or it is refused."""

import asyncio
from collections.abc import Callable, Iterator
from typing import NamedTuple

import asyncpg

from tests.hostile.support import by_the_byte, connected, everything, send, statuses
from tests.support import Served

Serve = Callable[..., Served]

BODY = b'{"patient_last_name": "Doe"}'
CHUNK = b"%x\r\n%b\r\n" % (len(BODY), BODY)
CHUNKED = b"Transfer-Encoding: chunked\r\n"
LENGTH = b"Content-Length: %d\r\n" % len(BODY)
HOST = b"Host: patients.test\r\n"
LAST = b"0\r\n\r\n"
H2C = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQBAAAAAAIAAAAA\r\n"
"""What Java's client offers with its first request on a connection."""
NEXT = b"GET /livez HTTP/1.1\r\nHost: patients.test\r\nX-Request-ID: next\r\nConnection: close\r\n\r\n"
PATIENTS = b"/patients/patients/"


class Case(NamedTuple):
    """A request: what of it comes first, and what then."""

    head: bytes
    body: bytes = b""


def post(headers: bytes, body: bytes = BODY, *, host: bytes = HOST, version: bytes = b"HTTP/1.1") -> Case:
    """A request that creates a patient."""
    first = b"POST %b %b\r\n" % (PATIENTS, version)
    return Case(first + host + b"Content-Type: application/json\r\n" + headers + b"\r\n", body)


SERVED = {
    "length": post(LENGTH),
    "length and a tab": post(b"Content-Length: %d\t\r\n" % len(BODY)),
    "chunked": post(CHUNKED, CHUNK + LAST),
    "chunked after a tab": post(b"Transfer-Encoding:\tCHUNKED\r\n", CHUNK + LAST),
    "chunk extensions": post(CHUNKED, CHUNK.replace(b"\r\n", b';a="b;c"\r\n', 1) + LAST),
    "trailers": post(CHUNKED, CHUNK + b"0\r\nX-Request-ID: trailer\r\nExpect: 100-continue\r\nHost: b\r\n\r\n"),
    "trailers that ask for an upgrade": post(CHUNKED, CHUNK + b"0\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"),
    "upgrade that Connection does not name": post(b"Upgrade: h2c\r\n" + LENGTH),
    "blank lines before it": Case(b"\r\n\r\n" + post(LENGTH).head, BODY),
}
"""They create a patient, and the next request on the connection is served."""

SERVED_AS_THE_LAST = {
    "h2c and length": post(H2C + LENGTH),
    "h2c and chunked": post(H2C + CHUNKED, CHUNK + LAST),
    "h2c after the length": post(LENGTH + H2C),
    "websocket": post(
        b"Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n" + LENGTH
    ),
    "two Connection headers": post(b"Connection: keep-alive\r\nConnection: upgrade\r\nUpgrade: x\r\n" + LENGTH),
    "close and upgrade": post(b"Connection: close, upgrade\r\nUpgrade: x\r\n" + LENGTH),
    "HTTP/1.0 and upgrade": post(b"Connection: upgrade\r\nUpgrade: x\r\n" + LENGTH, version=b"HTTP/1.0"),
    "HTTP/1.0 without Host": post(LENGTH, host=b"", version=b"HTTP/1.0"),
    "HTTP/1.0 that would go on": post(b"Connection: keep-alive\r\n" + LENGTH, version=b"HTTP/1.0"),
    "close": post(b"Connection: close\r\n" + LENGTH),
}
"""They create a patient, and nothing that follows is taken for a request."""

REFUSED = {
    "both lengths": post(LENGTH + CHUNKED, CHUNK + LAST),
    "both lengths, the other way round": post(CHUNKED + LENGTH, CHUNK + LAST),
    "both lengths and upgrade": post(H2C + LENGTH + CHUNKED, CHUNK + LAST),
    "length twice": post(LENGTH + LENGTH),
    "two lengths": post(LENGTH + b"Content-Length: 0\r\n"),
    "list of lengths": post(b"Content-Length: %d, %d\r\n" % (len(BODY), len(BODY))),
    "length with a sign": post(b"Content-Length: +%d\r\n" % len(BODY)),
    "negative length": post(b"Content-Length: -1\r\n"),
    "hexadecimal length": post(b"Content-Length: 0x1c\r\n"),
    "empty length": post(b"Content-Length:\r\n"),
    "length beyond 64 bits": post(b"Content-Length: 18446744073709551644\r\n"),
    "xchunked": post(b"Transfer-Encoding: xchunked\r\n", CHUNK + LAST),
    "chunked, identity": post(b"Transfer-Encoding: chunked, identity\r\n", CHUNK + LAST),
    "identity, chunked": post(b"Transfer-Encoding: identity, chunked\r\n", CHUNK + LAST),
    "gzip, chunked": post(b"Transfer-Encoding: gzip, chunked\r\n", CHUNK + LAST),
    "identity": post(b"Transfer-Encoding: identity\r\n"),
    "empty encoding": post(b"Transfer-Encoding:\r\n" + LENGTH),
    "chunked twice": post(CHUNKED + CHUNKED, CHUNK + LAST),
    "identity, then chunked": post(b"Transfer-Encoding: identity\r\n" + CHUNKED, CHUNK + LAST),
    "chunked after a vertical tab": post(b"Transfer-Encoding: \x0bchunked\r\n", CHUNK + LAST),
    "blank before the colon": post(b"Transfer-Encoding : chunked\r\n", CHUNK + LAST),
    "chunked in HTTP/1.0": post(CHUNKED, CHUNK + LAST, version=b"HTTP/1.0"),
    "obsolete folding": post(b"X-A: a\r\n b\r\n" + LENGTH),
    "folded encoding": post(b"Transfer-Encoding:\r\n chunked\r\n", CHUNK + LAST),
    "folded first header": post(LENGTH, host=b" Host: patients.test\r\n"),
    "bare LF": Case(post(LENGTH).head.replace(b"\r\n", b"\n"), BODY),
    "bare LF after a header": post(b"X-A: a\n" + LENGTH),
    "bare CR after a header": post(b"X-A: a\r" + LENGTH),
    "bare LF at the end": Case(post(LENGTH).head[:-2] + b"\n", BODY),
    "NUL in a value": post(b"X-A: a\0b\r\n" + LENGTH),
    "NUL in a name": post(b"X-\0: a\r\n" + LENGTH),
    "header without a colon": post(b"X-A\r\n" + LENGTH),
    "header without a name": post(b": a\r\n" + LENGTH),
    "chunk size with a blank": post(CHUNKED, CHUNK.replace(b"\r\n", b" \r\n", 1) + LAST),
    "chunk size with 0x": post(CHUNKED, b"0x" + CHUNK + LAST),
    "negative chunk size": post(CHUNKED, b"-" + CHUNK + LAST),
    "no chunk size": post(CHUNKED, b"\r\n" + CHUNK + LAST),
    "chunk size beyond 64 bits": post(CHUNKED, b"1000000000000000" + CHUNK + LAST),
    "chunk longer than its size": post(CHUNKED, b"1\r\n%b\r\n" % BODY + LAST),
    "bare LF after a chunk size": post(CHUNKED, CHUNK.replace(b"\r\n", b"\n", 1) + LAST),
    "bare LF after a chunk": post(CHUNKED, CHUNK[:-2] + b"\n" + LAST),
    "bare LF after an extension": post(CHUNKED, CHUNK.replace(b"\r\n", b";a\n", 1) + LAST),
    "length in trailers": post(CHUNKED, CHUNK + b"0\r\n" + LENGTH + b"\r\n"),
    "encoding in trailers": post(CHUNKED, CHUNK + b"0\r\n" + CHUNKED + b"\r\n"),
    "upgrade and a wrong chunk": post(H2C + CHUNKED, b"zz\r\n" + CHUNK + LAST),
    "two hosts": post(LENGTH, host=HOST + b"Host: other.test\r\n"),
    "host twice": post(LENGTH, host=HOST + HOST),
    "two hosts in HTTP/1.0": post(LENGTH, host=HOST + HOST, version=b"HTTP/1.0"),
    "no host": post(LENGTH, host=b""),
    "no host and upgrade": post(H2C + LENGTH, host=b""),
    "HTTP/0.9": Case(b"GET /livez\r\n\r\n"),
    "HTTP/0.9 by its number": post(LENGTH, version=b"HTTP/0.9"),
    "HTTP/1.2": post(LENGTH, version=b"HTTP/1.2"),
    "HTTP/2.0": post(LENGTH, version=b"HTTP/2.0"),
    "preface of HTTP/2": Case(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    "no version": post(LENGTH, version=b""),
    "tunnel": Case(b"CONNECT patients.test:443 HTTP/1.1\r\n" + HOST + b"\r\n"),
    "tunnel with a body": Case(b"CONNECT patients.test:443 HTTP/1.1\r\n" + HOST + LENGTH + b"\r\n", BODY),
    "no method": Case(b" / HTTP/1.1\r\n" + HOST + b"\r\n"),
    "TLS": Case(b"\x16\x03\x01\x02\x00\x01"),
    "control character in the path": Case(b"GET /livez\t HTTP/1.1\r\n" + HOST + b"\r\n"),
    "large header": post(b"X-A: %b\r\n" % (b"a" * 33_000) + LENGTH),
    "many headers": post(b"X-A: a\r\n" * 4_200 + LENGTH),
    "long path": Case(b"GET /%b HTTP/1.1\r\n" % (b"a" * 33_000) + HOST + b"\r\n"),
}
"""They are answered by a problem, create nothing, and nothing that follows is taken for a request."""


def deliveries(case: Case, *, bytewise: bool) -> Iterator[list[bytes]]:
    """All at once; the body in a later read than the head, and what follows in one later still; and by the byte."""
    yield [case.head + case.body + NEXT]
    yield [case.head, case.body, NEXT] if case.body else [case.head, NEXT]
    if bytewise:
        yield [case.head[:-3], *by_the_byte(case.head[-3:] + case.body), NEXT]


async def answers(served: Served, pieces: list[bytes]) -> bytes:
    """All that is answered until the service closes the connection."""
    async with connected(served.url) as plain:
        await send(plain, *pieces)
        return await everything(plain)


async def test_each_request_ends_where_it_says(serve: Serve, database_url: str, connection: asyncpg.Connection) -> None:
    """Every way of saying where a request ends, and of being wrong about it."""
    served = serve(DATABASE_URL=database_url)
    created = 0
    for cases, wanted in ((SERVED, [201, 204]), (SERVED_AS_THE_LAST, [201])):
        for name, case in cases.items():
            for number, pieces in enumerate(deliveries(case, bytewise=False)):
                received = await answers(served, pieces)
                assert statuses(received) == wanted, (name, number, received)
                created += 1
    for name, case in REFUSED.items():
        for number, pieces in enumerate(deliveries(case, bytewise=False)):
            received = await answers(served, pieces)
            assert statuses(received) in ([400], [431]), (name, number, received)
            assert received.count(b"content-type: application/problem+json\r\n") == 1, (name, number)
    assert await connection.fetchval("SELECT count(*) FROM patients") == created
    lines = [line for line in served.log() if "request_id" in line]
    assert {line["event"] for line in lines} == {"request", "request refused"}
    assert "trailer" not in {line["request_id"] for line in lines}


async def test_a_body_that_looks_like_a_request_is_a_body(serve: Serve, database_url: str) -> None:
    """Also where it comes after an upgrade was asked for, by the byte, and where it is not waited for."""
    served = serve(DATABASE_URL=database_url, PATIENTS_AUTH="required")
    for headers in (H2C, b"", b"Connection: close\r\n"):
        case = post(headers + b"Content-Length: %d\r\n" % len(NEXT), NEXT)
        for pieces in ([case.head + case.body], [case.head, case.body], [case.head, *by_the_byte(case.body)]):
            received = await answers(served, [*pieces, *([] if headers else [NEXT])])
            assert statuses(received) == ([401] if headers else [401, 204]), (headers, received)
            assert received.count(b"x-request-id: next") == (0 if headers else 1)


async def test_who_asks_for_an_upgrade_may_ask_first(serve: Serve, database_url: str) -> None:
    """`Expect: 100-continue` together with an upgrade, the body sent when it is wanted; then the connection ends."""
    served = serve(DATABASE_URL=database_url)
    go_on = b"HTTP/1.1 100 Continue\r\n\r\n"
    for headers, body in ((LENGTH, BODY), (CHUNKED, CHUNK + LAST)):
        case = post(H2C + b"Expect: 100-continue\r\n" + headers, body)
        async with connected(served.url) as plain:
            await send(plain, case.head[:-3], *by_the_byte(case.head[-3:]))
            async with asyncio.timeout(30):
                assert await asyncio.get_running_loop().sock_recv(plain, len(go_on)) == go_on
            await send(plain, *by_the_byte(case.body), NEXT)
            assert statuses(await everything(plain)) == [201]


async def test_a_request_is_answered_once(serve: Serve, database_url: str) -> None:
    """What is wrong with the body of a request that has its answer ends the connection, without a second answer.

    What comes after a request that is being answered does not take its answer away.
    """
    served = serve(DATABASE_URL=database_url, PATIENTS_AUTH="required")
    async with connected(served.url) as plain:
        await send(plain, post(CHUNKED).head)
        async with asyncio.timeout(30):
            answer = await asyncio.get_running_loop().sock_recv(plain, 65_536)
        await send(plain, b"zz\r\n", NEXT)
        assert statuses(answer + await everything(plain)) == [401]
    get = b"GET /patients/patients/ HTTP/1.1\r\n" + HOST + b"\r\n"
    assert statuses(await answers(served, [get + b"GARBAGE\r\n\r\n" + NEXT])) == [401]
    assert statuses(await answers(served, [get + get + b"GARBAGE\r\n\r\n" + NEXT])) == [401, 401]
    assert statuses(await answers(served, [get + post(CHUNKED).head + b"zz\r\n" + NEXT])) in ([], [401])
