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
        self._not_before = 0.0
        """When the next may be started."""
        self._ended = False
        """Whether any has: that the first ones start is no news."""
        self._stopping = False
        self._failed = False
        self._alive, self._alive_here = os.pipe()
        """What becomes readable when the supervisor ends, and what keeps it from that."""

    def run(self) -> int:
        """Serve until SIGINT or SIGTERM, which both stop them gracefully; 0, or 1 where one cannot start.

        The second signal is a hurry.
        """
        try:
            with _signals() as signals:
                self._supervise(signals)
        finally:
            os.close(self._alive_here)  # whatever happened here, nobody is left behind
        return 1 if self._failed else 0

    def _supervise(self, signals: socket.socket) -> None:
        self._fill()
        looked = time.monotonic()
        while self._workers or not self._stopping:
            for ready in wait([signals, *self._workers], PACE if self._lacking else BEAT):
                if isinstance(ready, int):
                    self._bury(self._workers.pop(ready))
                elif not set(_STOP).isdisjoint(signals.recv(64)):
                    self._stop()
            self._fill()
            if time.monotonic() >= looked + BEAT:
                looked = time.monotonic()
                self._feel()

    @property
    def _lacking(self) -> int:
        return 0 if self._stopping else self._number - len(self._workers)

    def _fill(self) -> None:
        """Start those that are lacking, unless the last one that ended, or was to be started, failed just now."""
        while self._lacking and time.monotonic() >= self._not_before:
            try:
                pid = self._start()
            except OSError as error:  # there are too many processes, or too little memory
                log.error("worker not started", error=type(error).__name__)  # noqa: TRY400  # of no use with its trace
                self._not_before = time.monotonic() + PACE
            else:
                if self._ended:
                    log.info("worker started", pid=pid)

    def _start(self) -> int:
        pulse = mmap(-1, 1)
        process = _FORK.Process(target=self._work, args=[pulse])
        # what the worker is told before it can listen waits until it can, and is not taken for told to its supervisor
        signal.pthread_sigmask(signal.SIG_BLOCK, _STOP)
        try:
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP)
        assert process.pid is not None, "it was started"  # noqa: S101
        self._workers[process.sentinel] = _Worker(process, process.pid, pulse)
        return process.pid

    def _work(self, pulse: mmap) -> None:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.close(self._alive_here)
        with suppress(KeyboardInterrupt):  # the server has shut down gracefully, and passes the signal on
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP)
            end_after(lambda: os.read(self._alive, 1))  # without its supervisor it would hold the port
            threading.Thread(target=_beat, args=[pulse], daemon=True).start()
            self._serve()

    def _feel(self) -> None:
        """End who has given no sign of life for too long; counted, as all may have been stopped for a while."""
        for worker in self._workers.values():
            worker.missed = worker.missed + 1 if worker.pulse[0] == worker.felt else 0
            worker.felt = worker.pulse[0]
            if worker.missed == PATIENCE:
                worker.process.kill()

    def _bury(self, worker: _Worker) -> None:
        worker.process.join()
        self._forget(worker.pid)
        if self._stopping:
            return
        self._ended = True
        log.warning("worker ended", pid=worker.pid, exit_code=worker.process.exitcode)
        if worker.process.exitcode == CANNOT_START:
            self._failed = True
            self._stop()
        elif time.monotonic() < worker.started + PACE:
            self._not_before = time.monotonic() + PACE

    def _stop(self) -> None:
        self._stopping = True
        for worker in self._workers.values():
            worker.process.terminate()


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
