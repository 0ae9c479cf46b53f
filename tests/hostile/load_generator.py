"""Honest and hostile clients in a separate process: `python -m tests.hostile.load_generator NAME PORT KEY SECONDS`.

The process prints a line when it is ready, starts when it reads one, and prints its results after the given seconds or,
if those are 0, after SIGTERM.
"""

import asyncio
import itertools
import json
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from random import Random
from string import ascii_lowercase
from typing import Any, NamedTuple
from urllib.parse import urlencode

import uvloop

from tests.hostile.client_connection import ClientConnection
from tests.processes import RawRequest
from tests.support import RESOURCE_EXAMPLES

PATIENTS = RESOURCE_EXAMPLES[0].path
MAX_REQUESTS_PER_SECOND = 40
"""The request rate of one key with the default rate limit and two workers."""
REQUESTS_PER_CONNECTION = 20
"""Requests per connection: the kernel chooses its worker by chance, and no phase of a measurement may depend on that.

"""
MEBIBYTE = 1024 * 1024
LONG_LIST_BODY = b'{"patient_first_name": [' + b",".join([b"1"] * (MEBIBYTE // 2 - 20)) + b"]}"
UNREAD_LIST_COUNT = 300
SILENT_CONNECTION_COUNT = 500
RESPONSE_TIMEOUT_SECONDS = 20
"""The timeout after which a client gives up on a response."""
READY_MESSAGE = "ready"


class RegisterSample(NamedTuple):
    """A page of the register as a client knows it."""

    ids: Sequence[str]
    names: Sequence[str]
    hospital: str


Calls = Iterator[RawRequest]


def get_calls(random: Random, sample: RegisterSample) -> Calls:
    """Yield reads of random single patients."""
    while True:
        yield RawRequest("GET", f"{PATIENTS}{random.choice(sample.ids)}/")


def create_calls(random: Random, sample: RegisterSample) -> Calls:
    """Yield creations of valid patients."""
    while True:
        names = {"patient_first_name": random.choice(sample.names), "patient_last_name": random.choice(sample.names)}
        yield RawRequest("POST", PATIENTS, {**names, "hospital_ids": [sample.hospital]})


def clerk_calls(random: Random, sample: RegisterSample) -> Calls:
    """Yield a clerk's requests: read a patient, list a page, create a patient."""
    one, new = get_calls(random, sample), create_calls(random, sample)
    while True:
        yield next(one)
        yield RawRequest("GET", f"{PATIENTS}?limit=50")
        yield next(new)


def long_list_calls(_: Random, __: RegisterSample) -> Calls:
    """Yield bodies of the maximum length in which every item is invalid."""
    return itertools.repeat(RawRequest("POST", f"{PATIENTS}search/", content=LONG_LIST_BODY))


def search_calls(random: Random, sample: RegisterSample) -> Calls:
    """Yield searches for eight four-letter words one or two edits from many names, the costliest to expand."""
    pairs = Counter(name[place : place + 2].lower() for name in sample.names for place in range(1, len(name) - 1))
    ((pair, _),) = pairs.most_common(1)
    while True:
        words = [random.choice(ascii_lowercase) + pair + random.choice(ascii_lowercase) for _ in range(8)]
        yield RawRequest("GET", f"{PATIENTS}?{urlencode({'search': ' '.join(words), 'limit': 20})}")


def refused_create_calls(random: Random, sample: RegisterSample, *, unknown_hospitals: int) -> Calls:
    """Yield creations of patients with hospitals that do not exist."""
    for new in create_calls(random, sample):
        hospitals = [f"hos-none-{random.randrange(10**9)}" for _ in range(unknown_hospitals)]
        yield RawRequest("POST", PATIENTS, {**(new.body or {}), "hospital_ids": hospitals})


@dataclass(frozen=True)
class ClientGroup:
    """A number of connections, each sending its next request after a response, together at most at the given rate."""

    connections: int
    make_calls: Callable[[Random, RegisterSample], Calls]
    requests_per_second: int | None = None


CLIENT_GROUPS = {
    "4 honest clients": ClientGroup(4, clerk_calls),
    "16 honest creators": ClientGroup(16, create_calls),
    "4 well-behaved": ClientGroup(4, get_calls, MAX_REQUESTS_PER_SECOND),
    "16 well-behaved": ClientGroup(16, get_calls, MAX_REQUESTS_PER_SECOND),
    "16 more creators": ClientGroup(16, create_calls, MAX_REQUESTS_PER_SECOND),
    "1 MiB of numbers": ClientGroup(4, long_list_calls, MAX_REQUESTS_PER_SECOND),
    "8 words": ClientGroup(16, search_calls, MAX_REQUESTS_PER_SECOND),
    "1 unknown hospital": ClientGroup(
        16, lambda *given: refused_create_calls(*given, unknown_hospitals=1), MAX_REQUESTS_PER_SECOND
    ),
    "290 unknown hospitals": ClientGroup(
        16, lambda *given: refused_create_calls(*given, unknown_hospitals=290), MAX_REQUESTS_PER_SECOND
    ),
}


class RunningClients:
    """Clients of a group while they run."""

    def __init__(self, group: ClientGroup, port: int, key: str) -> None:
        self._group = group
        self._port = port
        self._headers = {"Authorization": f"Bearer {key}"}
        self._next = 0.0
        self._stopping = False
        self.results: list[tuple[float, int]] = []
        """The seconds that each request took, and its status, or 0 if there was none."""

    async def sample_register(self) -> RegisterSample:
        response = await ClientConnection(self._port).send(
            RawRequest("GET", f"{PATIENTS}?limit=1000", headers=self._headers)
        )
        patients: list[dict[str, Any]] = response.document
        names = [patient[f"patient_{which}_name"] for patient in patients for which in ("first", "last")]
        hospital = next(one["unique_id"] for patient in patients for one in patient["patient_hospital"])
        return RegisterSample(
            [patient["unique_id"] for patient in patients], [name for name in names if name], hospital
        )

    def stop(self) -> None:
        self._stopping = True

    async def run(self, sample: RegisterSample) -> None:
        async with asyncio.TaskGroup() as clients:
            for number in range(self._group.connections):
                random = Random(number)  # noqa: S311  # no secrets: the seed makes runs repeatable
                clients.create_task(self._client(self._group.make_calls(random, sample)))

    async def _client(self, calls: Calls) -> None:
        wire = ClientConnection(self._port, RESPONSE_TIMEOUT_SECONDS)
        for number, call in enumerate(calls, 1):
            if self._stopping:
                break
            await self._await_turn()
            began = time.perf_counter()
            status = 0
            with suppress(OSError):
                call = RawRequest(call.method, call.path, call.body, self._headers, call.content)  # noqa: PLW2901
                status = (await wire.send(call)).status or 0
            self.results.append((time.perf_counter() - began, status))
            if number % REQUESTS_PER_CONNECTION == 0:
                await wire.close()
        await wire.close()

    async def _await_turn(self) -> None:
        """Wait so that the group keeps to its request rate."""
        if self._group.requests_per_second is None:
            return
        now = time.monotonic()
        self._next = max(self._next + 1 / self._group.requests_per_second, now)
        await asyncio.sleep(self._next - now)


async def run_clients(group: ClientGroup, port: int, key: str, seconds: float) -> None:
    clients = RunningClients(group, port, key)
    sample = await clients.sample_register()
    await asyncio.to_thread(await_start)
    loop = asyncio.get_running_loop()
    began = time.perf_counter()
    work = asyncio.create_task(clients.run(sample))
    if seconds:
        loop.call_later(seconds, clients.stop)  # requests sent until then still get their responses
    else:
        loop.add_signal_handler(signal.SIGTERM, work.cancel)
    with suppress(asyncio.CancelledError):
        await work
    report(time.perf_counter() - began, clients.results)


def await_start() -> None:
    print(READY_MESSAGE, flush=True)
    sys.stdin.readline()


def report(seconds: float, results: list[tuple[float, int]]) -> None:
    print(json.dumps({"seconds": seconds, "heard": results}), flush=True)


def hold_connections(connections: int, port: int, request: bytes) -> None:
    """Open connections, send the same bytes on each, and read nothing until SIGTERM."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    await_start()
    sockets = []
    for _ in range(connections):
        held = socket.socket()
        held.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sockets.append(held)
        with suppress(OSError):  # a service with too many connections may refuse the rest
            held.connect(("127.0.0.1", port))
            held.sendall(request)
    signal.sigwait({signal.SIGTERM})
    for held in sockets:
        held.close()
    report(0, [])


def main(name: str, port: int, key: str, seconds: float) -> None:
    if name == "unread lists":
        hold_connections(
            UNREAD_LIST_COUNT, port, RawRequest("GET", PATIENTS, headers={"Authorization": f"Bearer {key}"}).to_bytes()
        )
    elif name == "silence":
        hold_connections(SILENT_CONNECTION_COUNT, port, b"")
    else:
        uvloop.run(run_clients(CLIENT_GROUPS[name], port, key, seconds))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3], float(sys.argv[4]))
