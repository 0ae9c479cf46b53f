"""Phases of a run: ordinary tests, then those marked `crowd` beside each other, then those marked `alone` one by one.

If each phase were a run of its own, each of its processes would import the application and create a PostgreSQL server
again, which takes eight seconds of CPU time on a busy machine, and start fork servers again.
"""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path

import pytest


class Phase(IntEnum):
    """The phases in their order."""

    ORDINARY = 0
    CROWD = 1
    ALONE = 2


def phase_of(item: pytest.Item) -> Phase:
    """Return the phase in which a test runs."""
    if item.get_closest_marker("alone") is not None:
        return Phase.ALONE
    return Phase.ORDINARY if item.get_closest_marker("crowd") is None else Phase.CROWD


class PhaseLocks:
    """The locks by which a process of pytest-xdist keeps others from running tests of a later phase.

    Byte `n` of a file that the processes share is locked by each process that may still run tests of phase `n`. The
    system unlocks what a process has locked when the process ends. Processes that it has forked hold no locks.
    """

    def __init__(self, path: Path) -> None:
        """Lock all phases, which all processes must do before one of them runs a test."""
        self._file = path.open("a+b")  # until the process ends
        self._phase = Phase.ORDINARY
        self._lock(fcntl.LOCK_SH, Phase.ORDINARY, Phase.ALONE)

    @contextmanager
    def running(self, phase: Phase) -> Iterator[None]:
        """Wait until no other process may run tests of an earlier phase, or in the last phase any test."""
        if phase is Phase.ALONE or phase is not self._phase:
            self._lock(fcntl.LOCK_UN, Phase.ORDINARY, phase)
            self._lock(fcntl.LOCK_EX, Phase.ORDINARY, phase)
            if phase is not Phase.ALONE:
                self._lock(fcntl.LOCK_UN, Phase.ORDINARY, phase)
                self._lock(fcntl.LOCK_SH, phase, Phase.ALONE)
        self._phase = phase
        try:
            yield
        finally:
            if phase is Phase.ALONE:
                self._lock(fcntl.LOCK_UN, Phase.ORDINARY, phase)

    def _lock(self, operation: int, first: Phase, end: Phase) -> None:
        if end > first:
            fcntl.lockf(self._file, operation, end - first, first)
