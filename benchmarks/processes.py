"""Kernel statistics of processes (Linux: /proc)."""

import os
import time
from pathlib import Path

_CLOCK_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_PARENT_PID_FIELD, _CHILDREN_CPU_FIELDS = 1, slice(13, 15)
"""Indexes in the fields after the name in /proc/PID/stat: ppid; cutime and cstime (proc_pid_stat(5))."""


def _stat_fields(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def process_tree(root: int) -> list[int]:
    """Return a process with all its descendants."""
    parents = {}
    for path in Path("/proc").iterdir():
        if path.name.isdecimal():
            try:
                parents[int(path.name)] = int(_stat_fields(int(path.name))[_PARENT_PID_FIELD])
            except (FileNotFoundError, ProcessLookupError):  # it has just ended
                continue
    pids = [root]
    for pid in pids:
        pids += [child for child, parent in parents.items() if parent == pid]
    return pids


def cpu_seconds(root: int) -> float:
    """Return the CPU time of a process and its descendants, including those that have ended."""
    while True:
        pids = process_tree(root)
        try:
            children_seconds = (
                sum(int(ticks) for pid in pids for ticks in _stat_fields(pid)[_CHILDREN_CPU_FIELDS])
                / _CLOCK_TICKS_PER_SECOND
            )
            seconds = children_seconds + sum(time.clock_gettime(_cpu_clock_id(pid)) for pid in pids)
        except OSError:  # one has just ended
            continue
        # otherwise a process would be missing, or counted in its parent's sum too
        if process_tree(root) == pids:
            return seconds


def _cpu_clock_id(pid: int) -> int:
    """Return the clock of a process's CPU time, as clock_getcpuclockid(3) does: nanoseconds, where /proc has 10 ms."""
    return ~pid << 3 | 2


def reset_memory_peaks(root: int) -> None:
    """Reset the memory peaks of a process and its descendants."""
    for pid in process_tree(root):
        Path(f"/proc/{pid}/clear_refs").write_text("5")


def peak_memory_bytes(root: int) -> int:
    """Return the peak memory of a process and its descendants since `reset_memory_peaks`.

    The kernel's peaks include memory that a process shares with others. Here shared memory counts once: the result is
    the current proportional share (Pss) plus the difference between the peak (VmHWM) and the current memory (VmRSS).
    """
    total = 0
    for pid in process_tree(root):
        status = _read_kilobytes(Path(f"/proc/{pid}/status"))
        total += _read_kilobytes(Path(f"/proc/{pid}/smaps_rollup"))["Pss"] + status["VmHWM"] - status["VmRSS"]
    return total * 1024


def _read_kilobytes(path: Path) -> dict[str, int]:
    """Return the amounts of memory in a file of /proc, in kilobytes."""
    lines = (line.partition(":") for line in path.read_text().splitlines())
    return {name: int(value.split()[0]) for name, _, value in lines if value.endswith("kB")}
