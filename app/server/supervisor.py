"""A pre-fork supervisor. It forks worker processes, which serve side by side, and replaces those that exit.

uvicorn's supervisor does not fork, so each of its workers loads all modules itself. gunicorn's `--preload` cannot give
each worker a socket of its own, and on a shared socket a single worker may get most of the traffic (uvicorn-worker
#34). This module can be removed when uvicorn has `--preload` (uvicorn #3031) together with a `reuse_port` option.
"""

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
"""Exit status of a worker that cannot start and would fail in the same way again. uvicorn uses the same status."""
RESTART_DELAY_SECONDS = 0.5
"""Number of seconds before another attempt if a worker exits early or cannot be started.

A worker exits early if it exits within this many seconds of its start. A worker that has run for longer is replaced at
once.
"""

HEARTBEAT_INTERVAL_SECONDS = 1.0
"""Seconds between two heartbeats of a worker."""
MAX_MISSED_HEARTBEATS = 30
"""Number of consecutive missed heartbeats after which a worker is killed. Otherwise, a worker that hangs would keep
receiving its share of new connections."""

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_FORK_CONTEXT = get_context("fork")


def exit_after(wait_for_end: Callable[[], object]) -> None:
    """Make this process exit when another process, on which it depends, has ended.

    `wait_for_end` is a function that blocks until the other process has ended. A background thread calls it and then
    sends SIGINT to this process. The signal makes this process exit gracefully but without draining.
    """

    def interrupt_when_ended() -> None:
        wait_for_end()
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt_when_ended, daemon=True).start()


@dataclass
class _Worker:
    process: BaseProcess
    pid: int
    heartbeat: mmap
    """One byte of memory that is shared with the worker. The worker changes it at each heartbeat."""
    started_at: float = field(default_factory=time.monotonic)
    last_heartbeat: int = 0
    missed_heartbeats: int = 0
    """Number of consecutive heartbeats that the worker has missed."""


class Supervisor:
    """Forks worker processes from the current process and supervises them.

    Modules that are loaded before the fork are in memory only once for all workers, and workers start quickly. A worker
    that exits is replaced. A worker that hangs is killed after half a minute and replaced. Both events are logged.
    """

    def __init__(self, worker_count: int, serve: Callable[[], None], *, on_exit: Callable[[int], None]) -> None:
        """Supervise `worker_count` processes that run `serve`. When a worker has ended, call `on_exit` with its pid."""
        self._worker_count = worker_count
        self._serve = serve
        self._on_exit = on_exit
        self._workers: dict[int, _Worker] = {}
        """Workers by their sentinel, a file descriptor that becomes readable when the worker ends."""
        self._next_start_at = 0.0
        """Earliest time at which the next worker may be started, on the monotonic clock."""
        self._any_ended = False
        """Whether any worker has ended. Until then, worker starts are not logged, because they are not replacements."""
        self._is_stopping = False
        self._has_failed = False
        self._lifeline_read, self._lifeline_write = os.pipe()
        """A pipe by which workers notice that the supervisor has ended: its read end then becomes readable, because
        only the supervisor holds the write end."""

    def run(self) -> int:
        """Supervise workers until SIGINT or SIGTERM arrives or a worker cannot start, then stop all workers gracefully.

        A second signal makes the workers skip draining. Return the exit status of the process: 0, or 1 if a worker
        could not start.
        """
        try:
            with _signal_socket() as signals:
                self._supervise(signals)
        finally:
            os.close(self._lifeline_write)  # all workers notice this and exit, even after an error in this process
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
        """Spawn the missing workers, except during the delay after a worker exited early or could not be started."""
        while self._missing_count and time.monotonic() >= self._next_start_at:
            try:
                pid = self._spawn()
            except OSError as error:  # there are too many processes or there is too little memory
                log.error("worker not started", error=type(error).__name__)  # noqa: TRY400  # a traceback would not help
                self._next_start_at = time.monotonic() + RESTART_DELAY_SECONDS
            else:
                if self._any_ended:
                    log.info("worker started", pid=pid)

    def _spawn(self) -> int:
        heartbeat = mmap(-1, 1)
        process = _FORK_CONTEXT.Process(target=self._run_worker, args=[heartbeat])
        # A signal to the worker stays pending until the worker sets its own handlers. The handlers that it inherits
        # would report the signal to the supervisor.
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
        with suppress(KeyboardInterrupt):  # the server shuts down gracefully and then raises the signal again
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP_SIGNALS)
            exit_after(lambda: os.read(self._lifeline_read, 1))  # otherwise the worker would keep the port
            threading.Thread(target=_send_heartbeats, args=[heartbeat], daemon=True).start()
            self._serve()

    def _kill_hung(self) -> None:
        """Kill workers that have missed too many heartbeats.

        The number of missed heartbeats decides, not the time since the last heartbeat, so that no worker is killed
        because the whole container was paused.
        """
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
    """Provide a socket that receives one byte, the signal's number, for each SIGINT or SIGTERM that arrives."""
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
    """Do nothing.

    This handler exists because Python writes a signal's number to the wakeup socket (`signal.set_wakeup_fd`) only if
    the signal has a handler.
    """
