"""Processes: several that serve beside each other, and the one that supervises them; those that end with others."""

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from mmap import mmap
from multiprocessing import get_context
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess

import structlog

log = structlog.get_logger()

CANNOT_START = 3
"""The exit status of a worker that would fail in the same way again; uvicorn's."""
PACE = 0.5
"""Seconds that a worker has to have run for another to take its place at once."""

BEAT = 1.0
"""Seconds between a worker's signs of life."""
PATIENCE = 30
"""Beats after which a worker that gives none is ended: it would keep its share of all new connections."""

_STOP = (signal.SIGINT, signal.SIGTERM)
_FORK = get_context("fork")


def end_after(other_ended: Callable[[], object]) -> None:
    """End this process gracefully as soon as another, which it cannot do without, has ended; without draining."""

    def end() -> None:
        other_ended()
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=end, daemon=True).start()


@dataclass
class _Worker:
    process: BaseProcess
    pid: int
    pulse: mmap
    """One byte, which the worker changes at each beat."""
    started: float = field(default_factory=time.monotonic)
    felt: int = 0
    missed: int = 0
    """Beats that it has not given."""


class Workers:
    """Worker processes, and their supervisor, which is the process that makes this.

    They are forked: what is loaded by then is in memory once for all of them, and they start in no time. One that ends
    is replaced at once, one that has stopped after half a minute, and the log tells of it.
    """

    def __init__(self, number: int, serve: Callable[[], None], *, forget: Callable[[int], None]) -> None:
        """So many that `serve`; `forget` is told the pid of each that has ended."""
        self._number = number
        self._serve = serve
        self._forget = forget
        self._workers: dict[int, _Worker] = {}
        """By what becomes readable when they end."""
        self._stopping = False
        self._failed = False
        self._alive, self._alive_here = os.pipe()
        """What becomes readable when the supervisor ends, and what keeps it from that."""

    def run(self) -> int:
        """Serve until SIGINT or SIGTERM, which both stop them gracefully; 0, or 1 where one cannot start.

        The second signal is a hurry.
        """
        with _signals() as signals:
            for _ in range(self._number):
                self._start()
            looked = time.monotonic()
            while self._workers:
                for ready in wait([signals, *self._workers], BEAT):
                    if isinstance(ready, int):
                        self._replace(self._workers.pop(ready), signals)
                    elif not set(_STOP).isdisjoint(signals.recv(64)):
                        self._stop()
                if time.monotonic() >= looked + BEAT:
                    looked = time.monotonic()
                    self._feel()
        return 1 if self._failed else 0

    def _start(self) -> int:
        pulse = mmap(-1, 1)
        process = _FORK.Process(target=self._work, args=[pulse])
        process.start()
        assert process.pid is not None, "it was started"  # noqa: S101
        self._workers[process.sentinel] = _Worker(process, process.pid, pulse)
        return process.pid

    def _work(self, pulse: mmap) -> None:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.close(self._alive_here)
        end_after(lambda: os.read(self._alive, 1))  # without its supervisor it would hold the port
        threading.Thread(target=_beat, args=[pulse], daemon=True).start()
        with suppress(KeyboardInterrupt):  # the server has shut down gracefully, and passes the signal on
            self._serve()

    def _feel(self) -> None:
        """End who has given no sign of life for too long; counted, as all may have been stopped for a while."""
        for worker in self._workers.values():
            worker.missed = worker.missed + 1 if worker.pulse[0] == worker.felt else 0
            worker.felt = worker.pulse[0]
            if worker.missed == PATIENCE:
                os.kill(worker.pid, signal.SIGKILL)

    def _replace(self, worker: _Worker, signals: socket.socket) -> None:
        worker.process.join()
        self._forget(worker.pid)
        if self._stopping:
            return
        log.warning("worker ended", pid=worker.pid, exit_code=worker.process.exitcode)
        if worker.process.exitcode == CANNOT_START:
            self._failed = True
            self._stop()
            return
        if time.monotonic() < worker.started + PACE:
            wait([signals], PACE)
        log.info("worker started", pid=self._start())

    def _stop(self) -> None:
        self._stopping = True
        for worker in self._workers.values():
            os.kill(worker.pid, signal.SIGTERM)


def _beat(pulse: mmap) -> None:
    while True:
        pulse[0] = (pulse[0] + 1) % 256
        time.sleep(BEAT)


@contextmanager
def _signals() -> Iterator[socket.socket]:
    """What there is a byte to read of for each signal that tells this process to stop: its number."""
    readable, written = socket.socketpair()
    with readable, written:
        written.setblocking(False)
        signal.set_wakeup_fd(written.fileno())
        for number in _STOP:
            signal.signal(number, _note)
        try:
            yield readable
        finally:
            signal.set_wakeup_fd(-1)


def _note(*_: object) -> None:
    """Nothing: that the signal has a handler has its number written."""
