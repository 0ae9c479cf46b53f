"""Processes that run tests at the same time wait for each other between phases."""

import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.phases import Phase
from tests.support import eventually

SCRIPT = """
import sys
from pathlib import Path
from tests.phases import Phase, PhaseLocks

locks = PhaseLocks(Path(sys.argv[1]))
print("locked", flush=True)
for line in sys.stdin:
    with locks.running(Phase[line.strip()]):
        print("running", flush=True)
        sys.stdin.readline()
    print("ended", flush=True)
"""
"""Runs a test of the phase that each line names, until the next line."""


class Runner:
    """A process that runs tests."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        self.expect("locked")

    def send(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def expect(self, line: str) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == f"{line}\n"

    def fileno(self) -> int:
        """Return the descriptor to wait for a line."""
        assert self.process.stdout is not None
        return self.process.stdout.fileno()

    def start(self, phase: Phase) -> None:
        self.send(phase.name)
        self.expect("running")

    def end(self) -> None:
        self.send("")
        self.expect("ended")

    def start_waiting(self, phase: Phase) -> None:
        """Start a test, and return when the process waits for another one."""
        self.send(phase.name)
        eventually(lambda: self.is_waiting)

    @property
    def is_waiting(self) -> bool:
        waiting = (line.split() for line in Path("/proc/locks").read_text().splitlines() if "->" in line)
        return str(self.process.pid) in {fields[5] for fields in waiting}


@pytest.fixture
def runners(tmp_path: Path) -> Iterator[list[Runner]]:
    """Yield two processes of one run."""
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "phases")]
    with ExitStack() as stack:
        yield [
            Runner(
                stack.enter_context(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
            )
            for _ in range(2)
        ]


@pytest.mark.skipif(sys.platform != "linux", reason="the test reads in /proc/locks who waits")
def test_processes_wait_for_each_other_between_phases(runners: list[Runner]) -> None:
    """Tests of a phase begin when all processes have left the earlier ones, and the last ones run one at a time."""
    first, second = runners
    first.start_waiting(Phase.CROWD)
    second.start(Phase.ORDINARY)
    assert first.is_waiting
    second.end()
    assert first.is_waiting  # there may be more tests for the second
    second.start(Phase.CROWD)
    first.expect("running")
    first.end()
    first.start_waiting(Phase.ALONE)
    second.end()
    assert first.is_waiting
    second.send(Phase.ALONE.name)
    (running, *_), _, _ = select.select(runners, [], [], 30)
    waiting = first if running is second else second
    running.expect("running")
    eventually(lambda: waiting.is_waiting)
    running.end()
    waiting.expect("running")
    waiting.end()


def test_a_process_that_ends_is_not_waited_for(runners: list[Runner]) -> None:
    """When a process has run its last test, or dies, the other one begins the last phase."""
    first, second = runners
    second.start(Phase.ORDINARY)
    second.process.kill()
    first.start(Phase.ALONE)
    first.end()
