"""The memory of imports and exports does not grow with the file."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.alone

MANY = 150_000
MOST = 150_000_000
"""Bytes of a process; the file alone has a third of it, and in Python's objects would have more than all."""


WRONG = json.dumps({"patient_last_name": "Doe", "hospital_ids": [f"hos{number}" for number in range(1000)]}) + "\n"
"""A patient with a thousand hospitals that do not exist."""


PROGRAM = """
import sys
from pathlib import Path
from app.cli import main
status = main()
print(Path("/proc/self/status").read_text(), file=sys.stderr)
sys.exit(status)
"""
"""The command, which at its end tells of its process; what wait4 tells has the memory of who forked it in it."""


def run(url: str, *arguments: str, status: int = 0) -> int:
    """Run `patients-api` to its end; the most memory that it had, in bytes."""
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        env={**os.environ, "DATABASE_URL": url},
        check=False,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert run.returncode == status
    return next(int(line.split()[1]) for line in run.stderr.splitlines() if line.startswith("VmHWM:")) * 1024


def write(file: Path) -> None:
    def lines() -> Iterator[str]:
        yield "unique_id,hospital_name\n"
        for number in range(MANY):
            yield f"hos{number:07d},{'General Hospital ' * 14} {number}\n"

    with file.open("w", encoding="utf-8") as opened:
        opened.writelines(lines())


async def test_constant_memory(database_url: str, tmp_path: Path) -> None:
    """Both stay below 150 MB, all of Python and its libraries included."""
    file = tmp_path / "hospitals.csv"
    await asyncio.to_thread(write, file)
    imported = await asyncio.to_thread(run, database_url, "import", str(file))
    exported = await asyncio.to_thread(run, database_url, "export", "--resource", "hospitals")
    wrong = tmp_path / "patients.ndjson"
    await asyncio.to_thread(wrong.write_text, WRONG * 1000)
    checked = await asyncio.to_thread(run, database_url, "import", str(wrong), "--dry-run", status=1)
    assert checked < MOST, "a million errors"
    assert imported < MOST
    assert exported < MOST
