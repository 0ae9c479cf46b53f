"""What the kernel counts of processes (Linux: /proc)."""

import os
import time
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_PARENT, _TIMES_OF_ENDED = 1, slice(13, 15)
"""Of the fields behind the name in /proc/PID/stat: ppid; cutime, cstime (proc_pid_stat(5))."""


def _stat(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def tree(root: int) -> list[int]:
    """A process with all that descend from it."""
    parents = {}
    for path in Path("/proc").iterdir():
        if path.name.isdecimal():
            try:
                parents[int(path.name)] = int(_stat(int(path.name))[_PARENT])
            except (FileNotFoundError, ProcessLookupError):  # it has just ended
                continue
    found = [root]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found


def cpu_seconds(root: int) -> float:
    """What a process and its descendants have computed, those that have ended included."""
    while True:
        pids = tree(root)
        try:
            ended = sum(int(ticks) for pid in pids for ticks in _stat(pid)[_TIMES_OF_ENDED]) / _TICKS
            seconds = ended + sum(time.clock_gettime(_clock(pid)) for pid in pids)
        except OSError:  # one has just ended
            continue
        # it would be missing, or be counted in its parent's sum too
        if tree(root) == pids:
            return seconds


def _clock(pid: int) -> int:
    """The clock of a process's CPU time, to the nanosecond, as clock_getcpuclockid(3) makes it; /proc counts 10 ms."""
    return ~pid << 3 | 2


def forget_peaks(root: int) -> None:
    """Begin to measure the peaks of memory anew."""
    for pid in tree(root):
        Path(f"/proc/{pid}/clear_refs").write_text("5")


def peak_bytes(root: int) -> int:
    """The most memory that a process and its descendants have had since `forget_peaks`.

    The kernel remembers peaks of each process with what it shares with others. What they share counts once here: the
    proportional share now (Pss), and what the peak (VmHWM) was above the memory of now (VmRSS).
    """
    total = 0
    for pid in tree(root):
        status = _kilobytes(Path(f"/proc/{pid}/status"))
        total += _kilobytes(Path(f"/proc/{pid}/smaps_rollup"))["Pss"] + status["VmHWM"] - status["VmRSS"]
    return total * 1024


def _kilobytes(path: Path) -> dict[str, int]:
    """The amounts of memory that a file of /proc names."""
    lines = (line.partition(":") for line in path.read_text().splitlines())
    return {name: int(value.split()[0]) for name, _, value in lines if value.endswith("kB")}
