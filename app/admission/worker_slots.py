"""Slots that the workers of one service share, so that the searches of one principal leave processors to others.

A slot of a principal is a byte of a file that a worker has locked. The system unlocks the bytes of a worker that ends,
however it ends. This can be removed when a library has a semaphore that processes share, with both this property and
asyncio.
"""

import asyncio
import fcntl
import mmap
import os
import struct
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from zlib import crc32

from app.admission.bulkhead import ADMISSION_TIMEOUT_SECONDS
from app.errors import TooManyRequestsError

POLL_SECONDS = 0.002
"""Interval at which a worker checks whether another one has released a slot."""
REST_SHARE = 0.5
"""How long a slot rests after work, as a share of the time that the work took. Others have the processor meanwhile."""
ACTIVITY_SECONDS = 5
"""How long a principal counts as active after a request."""
_NOTE = struct.Struct("=Id")
"""Format of a note: a number, and the time by the clock that all processes share."""
_NOTE_COUNT = 64
"""Number of notes of each kind. Two principals may share one, which then is that of the last one."""
_ACTIVITY_START = _NOTE_COUNT * _NOTE.size
"""Position of the notes of the principal that was active last. Those of the process that waited last are before."""


class WorkerSlots:
    """Grants slots for the work of a principal, up to a maximum number in all workers together.

    The maximum applies while other principals are active: alone, a principal may use all workers. The workers take
    turns, if several have work of the principal that waits.
    """

    def __init__(self, path: Path | None, max_per_principal: int) -> None:
        """Provide `max_per_principal` slots for each principal, by locks in the file at `path`.

        If `path` is None, there is only one worker, and no work waits.
        """
        self._is_shared = path is not None
        self._max_per_principal = max_per_principal
        self._held: set[int] = set()
        """Positions of the bytes that this process has locked. The system would grant it these locks again."""
        if path is not None:
            # open until the process ends: closing the file would release all locks of the process
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
            os.ftruncate(self._descriptor, 2 * _ACTIVITY_START)
            self._notes = mmap.mmap(self._descriptor, 2 * _ACTIVITY_START)

    @asynccontextmanager
    async def slot(self, principal: str) -> AsyncIterator[None]:
        """Wait for a slot for the work of a principal, and hold it while the context is entered.

        Afterwards the slot rests (`REST_SHARE`). If no other principal is active, the work needs no slot.

        Raises:
            TooManyRequestsError: the work of the principal in all workers occupied its slots for too long.
        """
        number = _number(principal)
        if not self._is_shared or not self._are_others_active(number):
            yield
            return
        position = None if self._is_awaited_elsewhere(number) else self._try_lock(number)
        if position is None:
            position = await self._wait_for_lock(number)
        began_at = time.monotonic()
        try:
            yield
        finally:
            asyncio.get_running_loop().call_later(REST_SHARE * (time.monotonic() - began_at), self._unlock, position)

    def note_activity(self, principal: str) -> None:
        """Note that a principal is active, so that the work of others leaves processors to it."""
        if self._is_shared:
            number = _number(principal)
            _NOTE.pack_into(self._notes, _ACTIVITY_START + _note_offset(number), number, time.monotonic())

    def _are_others_active(self, number: int) -> bool:
        earliest = time.monotonic() - ACTIVITY_SECONDS
        notes = _NOTE.iter_unpack(self._notes[_ACTIVITY_START:])
        return any(other != number and active_at > earliest for other, active_at in notes)

    async def _wait_for_lock(self, number: int) -> int:
        waits_until = time.monotonic() + ADMISSION_TIMEOUT_SECONDS
        while time.monotonic() < waits_until:
            _NOTE.pack_into(self._notes, _note_offset(number), os.getpid(), time.monotonic())
            await asyncio.sleep(POLL_SECONDS)
            if (position := self._try_lock(number)) is not None:
                return position
        raise TooManyRequestsError(1)

    def _try_lock(self, number: int) -> int | None:
        """Lock a byte of the principal that is not locked, and return its position, or None if all are locked."""
        first = number * self._max_per_principal
        for position in range(first, first + self._max_per_principal):
            if position not in self._held:
                try:
                    fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, position)
                except BlockingIOError:
                    continue
                self._held.add(position)
                return position
        return None

    def _unlock(self, position: int) -> None:
        self._held.remove(position)
        fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, position)

    def _is_awaited_elsewhere(self, number: int) -> bool:
        """Return whether another worker has waited just now. It would wait forever if this one took each slot again."""
        pid: int
        waited_at: float
        pid, waited_at = _NOTE.unpack_from(self._notes, _note_offset(number))
        return pid != os.getpid() and time.monotonic() - waited_at < 2 * POLL_SECONDS


def _number(principal: str) -> int:
    """Return a number that is the same for a principal in all workers, and hardly ever that of another one."""
    return crc32(principal.encode())


def _note_offset(number: int) -> int:
    return number % _NOTE_COUNT * _NOTE.size
