"""Clients in a process of their own, honest ones and others: `python -m tests.hostile.crowd NAME PORT KEY SECONDS`.

It writes a line when it is ready, begins when it is given one, and writes what it heard: after so many seconds, or
after SIGTERM where that is 0.
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

from tests.hostile.wire import Wire
from tests.processes import Call
from tests.support import KINDS

PATIENTS = KINDS[0].path
ALLOWED_A_SECOND = 40
"""Requests of one key, by the default rate limit of two workers."""
ASKED_BEFORE_RECONNECTING = 20
"""Requests on one connection: which worker has it is chance, on which no phase of a measurement is to depend."""
MEBIBYTE = 1024 * 1024
LONG_LIST = b'{"patient_first_name": [' + b",".join([b"1"] * (MEBIBYTE // 2 - 20)) + b"]}"
UNREAD_LISTS = 300
SILENT_CONNECTIONS = 500
PATIENCE_SECONDS = 20
"""After which a client gives up an answer."""
READY = "ready"


class Known(NamedTuple):
    """What a client knows of the register, from a page of it."""

    ids: Sequence[str]
    names: Sequence[str]
    hospital: str


Calls = Iterator[Call]


def getting(random: Random, known: Known) -> Calls:
    """One patient after another."""
    while True:
        yield Call("GET", f"{PATIENTS}{random.choice(known.ids)}/")


def creating(random: Random, known: Known) -> Calls:
    """Patients that nothing is wrong with."""
    while True:
        names = {"patient_first_name": random.choice(known.names), "patient_last_name": random.choice(known.names)}
        yield Call("POST", PATIENTS, {**names, "hospital_ids": [known.hospital]})


def honest(random: Random, known: Known) -> Calls:
    """What clerks do: one patient, a page, a new patient."""
    one, new = getting(random, known), creating(random, known)
    while True:
        yield next(one)
        yield Call("GET", f"{PATIENTS}?limit=50")
        yield next(new)


def long_lists(_: Random, __: Known) -> Calls:
    """Bodies as long as bodies may be, each item of which is wrong."""
    return itertools.repeat(Call("POST", f"{PATIENTS}search/", content=LONG_LIST))


def searches(random: Random, known: Known) -> Calls:
    """Eight words of four letters, each but one or two errors apart from many names: of all words these cost most."""
    pairs = Counter(name[place : place + 2].lower() for name in known.names for place in range(1, len(name) - 1))
    ((pair, _),) = pairs.most_common(1)
    while True:
        words = [random.choice(ascii_lowercase) + pair + random.choice(ascii_lowercase) for _ in range(8)]
        yield Call("GET", f"{PATIENTS}?{urlencode({'search': ' '.join(words), 'limit': 20})}")


def refused(random: Random, known: Known, *, unknown: int) -> Calls:
    """Patients of hospitals that there are not."""
    for new in creating(random, known):
        hospitals = [f"hos-none-{random.randrange(10**9)}" for _ in range(unknown)]
        yield Call("POST", PATIENTS, {**(new.body or {}), "hospital_ids": hospitals})


@dataclass(frozen=True)
class Crowd:
    """So many connections, each of which asks as soon as it was answered, all together no faster than the pace."""

    connections: int
    calls: Callable[[Random, Known], Calls]
    a_second: int | None = None


CROWDS = {
    "4 honest clients": Crowd(4, honest),
    "16 honest creators": Crowd(16, creating),
    "4 well-behaved": Crowd(4, getting, ALLOWED_A_SECOND),
    "16 well-behaved": Crowd(16, getting, ALLOWED_A_SECOND),
    "16 more creators": Crowd(16, creating, ALLOWED_A_SECOND),
    "1 MiB of numbers": Crowd(4, long_lists, ALLOWED_A_SECOND),
    "8 words": Crowd(16, searches, ALLOWED_A_SECOND),
    "1 unknown hospital": Crowd(16, lambda *given: refused(*given, unknown=1), ALLOWED_A_SECOND),
    "290 unknown hospitals": Crowd(16, lambda *given: refused(*given, unknown=290), ALLOWED_A_SECOND),
}


class Clients:
    """A crowd at work."""

    def __init__(self, crowd: Crowd, port: int, key: str) -> None:
        self._crowd = crowd
        self._port = port
        self._headers = {"Authorization": f"Bearer {key}"}
        self._next = 0.0
        self._stopping = False
        self.heard: list[tuple[float, int]] = []
        """The seconds that each request took, and its status; 0 where there was none."""

    async def know(self) -> Known:
        heard = await Wire(self._port).ask(Call("GET", f"{PATIENTS}?limit=1000", headers=self._headers))
        patients: list[dict[str, Any]] = heard.document
        names = [patient[f"patient_{which}_name"] for patient in patients for which in ("first", "last")]
        hospital = next(one["unique_id"] for patient in patients for one in patient["patient_hospital"])
        return Known([patient["unique_id"] for patient in patients], [name for name in names if name], hospital)

    def stop(self) -> None:
        self._stopping = True

    async def work(self, known: Known) -> None:
        async with asyncio.TaskGroup() as clients:
            for number in range(self._crowd.connections):
                random = Random(number)  # noqa: S311  # nobody is to be kept from guessing
                clients.create_task(self._client(self._crowd.calls(random, known)))

    async def _client(self, calls: Calls) -> None:
        wire = Wire(self._port, PATIENCE_SECONDS)
        for number, call in enumerate(calls, 1):
            if self._stopping:
                break
            await self._wait()
            began = time.perf_counter()
            status = 0
            with suppress(OSError):
                call = Call(call.method, call.path, call.body, self._headers, call.content)  # noqa: PLW2901
                status = (await wire.ask(call)).status or 0
            self.heard.append((time.perf_counter() - began, status))
            if number % ASKED_BEFORE_RECONNECTING == 0:
                await wire.close()
        await wire.close()

    async def _wait(self) -> None:
        """Wait for this request's turn."""
        if self._crowd.a_second is None:
            return
        now = time.monotonic()
        self._next = max(self._next + 1 / self._crowd.a_second, now)
        await asyncio.sleep(self._next - now)


async def ask(crowd: Crowd, port: int, key: str, seconds: float) -> None:
    clients = Clients(crowd, port, key)
    known = await clients.know()
    await asyncio.to_thread(await_start)
    loop = asyncio.get_running_loop()
    began = time.perf_counter()
    work = asyncio.create_task(clients.work(known))
    if seconds:
        loop.call_later(seconds, clients.stop)  # what was asked until then is still answered
    else:
        loop.add_signal_handler(signal.SIGTERM, work.cancel)
    with suppress(asyncio.CancelledError):
        await work
    report(time.perf_counter() - began, clients.heard)


def await_start() -> None:
    print(READY, flush=True)
    sys.stdin.readline()


def report(seconds: float, heard: list[tuple[float, int]]) -> None:
    print(json.dumps({"seconds": seconds, "heard": heard}), flush=True)


def hold(connections: int, port: int, request: bytes) -> None:
    """Open connections, send the same on each, and read nothing, until SIGTERM."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    await_start()
    sockets = []
    for _ in range(connections):
        held = socket.socket()
        held.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sockets.append(held)
        with suppress(OSError):  # a service that has had enough of them may refuse the rest
            held.connect(("127.0.0.1", port))
            held.sendall(request)
    signal.sigwait({signal.SIGTERM})
    for held in sockets:
        held.close()
    report(0, [])


def main(name: str, port: int, key: str, seconds: float) -> None:
    if name == "unread lists":
        hold(UNREAD_LISTS, port, Call("GET", PATIENTS, headers={"Authorization": f"Bearer {key}"}).encoded())
    elif name == "silence":
        hold(SILENT_CONNECTIONS, port, b"")
    else:
        uvloop.run(ask(CROWDS[name], port, key, seconds))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3], float(sys.argv[4]))
