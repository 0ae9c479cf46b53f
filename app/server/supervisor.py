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

STARTUP_FAILURE = 3
"""The exit status of a worker that would fail in the same way again; uvicorn's."""
RESTART_DELAY_SECONDS = 0.5
"""Seconds that a worker has to have run for another to take its place at once."""

HEARTBEAT_INTERVAL_SECONDS = 1.0
"""Seconds between a worker's signs of life."""
MAX_MISSED_HEARTBEATS = 30
"""Beats after which a worker that gives none is ended: it would keep its share of all new connections."""

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_FORK_CONTEXT = get_context("fork")


def exit_after(wait_for_end: Callable[[], object]) -> None:
    """End this process gracefully as soon as another, which it cannot do without, has ended; without draining."""

    def interrupt_when_ended() -> None:
        wait_for_end()
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt_when_ended, daemon=True).start()


@dataclass
class _Worker:
    process: BaseProcess
    pid: int
    heartbeat: mmap
    """One byte, which the worker changes at each beat."""
    started_at: float = field(default_factory=time.monotonic)
    last_heartbeat: int = 0
    missed_heartbeats: int = 0
    """Beats that it has not given."""


class Supervisor:
    """Worker processes, and their supervisor, which is the process that makes this.

    They are forked: what is loaded by then is in memory once for all of them, and they start in no time. One that ends
    is replaced at once, one that has stopped after half a minute, and the log tells of it.
    """

    def __init__(self, worker_count: int, serve: Callable[[], None], *, on_exit: Callable[[int], None]) -> None:
        """So many that `serve`; `forget` is told the pid of each that has ended."""
        self._worker_count = worker_count
        self._serve = serve
        self._on_exit = on_exit
        self._workers: dict[int, _Worker] = {}
        """By what becomes readable when they end."""
        self._next_start_at = 0.0
        """When the next may be started."""
        self._any_ended = False
        """Whether any has: that the first ones start is no news."""
        self._is_stopping = False
        self._has_failed = False
        self._lifeline_read, self._lifeline_write = os.pipe()
        """What becomes readable when the supervisor ends, and what keeps it from that."""

    def run(self) -> int:
        """Serve until SIGINT or SIGTERM, which both stop them gracefully; 0, or 1 where one cannot start.

        The second signal is a hurry.
        """
        try:
            with _signal_socket() as signals:
                self._supervise(signals)
        finally:
            os.close(self._lifeline_write)  # whatever happened here, nobody is left behind
        return 1 if self._has_failed else 0

    def _supervise(self, signals: socket.socket) -> None:
        self._spawn_missing()
        checked_at = time.monotonic()
        while self._workers or not self._is_stopping:
            for ready in wait(
                [signals, *self._workers], RESTART_DELAY_SECONDS if self._missing_count else HEARTBEAT_INTERVAL_SECONDS
            ):
                if isinstance(ready, int):
                    self._reap(self._workers.pop(ready))
                elif not set(_STOP_SIGNALS).isdisjoint(signals.recv(64)):
                    self._terminate_all()
            self._spawn_missing()
            if time.monotonic() >= checked_at + HEARTBEAT_INTERVAL_SECONDS:
                checked_at = time.monotonic()
                self._kill_hung()

    @property
    def _missing_count(self) -> int:
        return 0 if self._is_stopping else self._worker_count - len(self._workers)

    def _spawn_missing(self) -> None:
        """Start those that are lacking, unless the last one that ended, or was to be started, failed just now."""
        while self._missing_count and time.monotonic() >= self._next_start_at:
            try:
                pid = self._spawn()
            except OSError as error:  # there are too many processes, or too little memory
                log.error("worker not started", error=type(error).__name__)  # noqa: TRY400  # of no use with its trace
                self._next_start_at = time.monotonic() + RESTART_DELAY_SECONDS
            else:
                if self._any_ended:
                    log.info("worker started", pid=pid)

    def _spawn(self) -> int:
        heartbeat = mmap(-1, 1)
        process = _FORK_CONTEXT.Process(target=self._run_worker, args=[heartbeat])
        # what the worker is told before it can listen waits until it can, and is not taken for told to its supervisor
        signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
        try:
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP_SIGNALS)
        assert process.pid is not None, "it was started"  # noqa: S101
        self._workers[process.sentinel] = _Worker(process, process.pid, heartbeat)
        return process.pid

    def _run_worker(self, heartbeat: mmap) -> None:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.close(self._lifeline_write)
        with suppress(KeyboardInterrupt):  # the server has shut down gracefully, and passes the signal on
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP_SIGNALS)
            exit_after(lambda: os.read(self._lifeline_read, 1))  # without its supervisor it would hold the port
            threading.Thread(target=_send_heartbeats, args=[heartbeat], daemon=True).start()
            self._serve()

    def _kill_hung(self) -> None:
        """End who has given no sign of life for too long; counted, as all may have been stopped for a while."""
        for worker in self._workers.values():
            worker.missed_heartbeats = (
                worker.missed_heartbeats + 1 if worker.heartbeat[0] == worker.last_heartbeat else 0
            )
            worker.last_heartbeat = worker.heartbeat[0]
            if worker.missed_heartbeats == MAX_MISSED_HEARTBEATS:
                worker.process.kill()

    def _reap(self, worker: _Worker) -> None:
        worker.process.join()
        self._on_exit(worker.pid)
        if self._is_stopping:
            return
        self._any_ended = True
        log.warning("worker ended", pid=worker.pid, exit_code=worker.process.exitcode)
        if worker.process.exitcode == STARTUP_FAILURE:
            self._has_failed = True
            self._terminate_all()
        elif time.monotonic() < worker.started_at + RESTART_DELAY_SECONDS:
            self._next_start_at = time.monotonic() + RESTART_DELAY_SECONDS

    def _terminate_all(self) -> None:
        self._is_stopping = True
        for worker in self._workers.values():
            worker.process.terminate()


def _send_heartbeats(heartbeat: mmap) -> None:
    while True:
        heartbeat[0] = (heartbeat[0] + 1) % 256
        time.sleep(HEARTBEAT_INTERVAL_SECONDS)


@contextmanager
def _signal_socket() -> Iterator[socket.socket]:
    """What there is a byte to read of for each signal that tells this process to stop: its number."""
    readable, writable = socket.socketpair()
    with readable, writable:
        writable.setblocking(False)
        signal.set_wakeup_fd(writable.fileno())
        for signal_number in _STOP_SIGNALS:
            signal.signal(signal_number, _ignore_signal)
        try:
            yield readable
        finally:
            signal.set_wakeup_fd(-1)


def _ignore_signal(*_: object) -> None:
    """Nothing: that the signal has a handler has its number written."""
