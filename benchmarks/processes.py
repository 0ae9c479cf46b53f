"""What the kernel counts of processes (Linux: /proc)."""

import os
import time
from pathlib import Path

_CLOCK_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_PARENT_PID_FIELD, _CHILDREN_CPU_FIELDS = 1, slice(13, 15)
"""Of the fields behind the name in /proc/PID/stat: ppid; cutime, cstime (proc_pid_stat(5))."""


def _stat_fields(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def process_tree(root: int) -> list[int]:
    """A process with all that descend from it."""
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
    """What a process and its descendants have computed, those that have ended included."""
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
        # it would be missing, or be counted in its parent's sum too
        if process_tree(root) == pids:
            return seconds


def _cpu_clock_id(pid: int) -> int:
    """The clock of a process's CPU time, to the nanosecond, as clock_getcpuclockid(3) makes it; /proc counts 10 ms."""
    return ~pid << 3 | 2


def reset_memory_peaks(root: int) -> None:
    """Begin to measure the peaks of memory anew."""
    for pid in process_tree(root):
        Path(f"/proc/{pid}/clear_refs").write_text("5")


def peak_memory_bytes(root: int) -> int:
    """The most memory that a process and its descendants have had since `forget_peaks`.

    The kernel remembers peaks of each process with what it shares with others. What they share counts once here: the
    proportional share now (Pss), and what the peak (VmHWM) was above the memory of now (VmRSS).
    """
    total = 0
    for pid in process_tree(root):
        status = _read_kilobytes(Path(f"/proc/{pid}/status"))
        total += _read_kilobytes(Path(f"/proc/{pid}/smaps_rollup"))["Pss"] + status["VmHWM"] - status["VmRSS"]
    return total * 1024


def _read_kilobytes(path: Path) -> dict[str, int]:
    """The amounts of memory that a file of /proc names."""
    lines = (line.partition(":") for line in path.read_text().splitlines())
    return {name: int(value.split()[0]) for name, _, value in lines if value.endswith("kB")}
