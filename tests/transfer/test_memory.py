"""The memory of imports and exports does not grow with the file."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.crowd

SMALL_RECORD_COUNT = 1_000
RECORD_COUNT = 40_000
MAX_MEMORY_BYTES = 150_000_000
"""The limit for each process."""
MAX_GROWTH_BYTES = 20_000_000
"""The limit for the memory of each process beyond that for the small file: half a kilobyte for each record, or 80 bytes
for each error."""


INVALID_LINE = (
    json.dumps({"patient_last_name": "Doe", "hospital_ids": [f"hos{number}" for number in range(1000)]}) + "\n"
)
"""A patient with a thousand hospitals that do not exist."""


MEASURED_COMMAND = """
import resource
import sys
from pathlib import Path

import pytest
from app.cli import main
status = main()
print(Path("/proc/self/status").read_text(), file=sys.stderr)
print(f"VmHWM: {resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss} kB", file=sys.stderr)
sys.exit(status)
"""
"""A command that prints the peak memory of its own process, and of its largest child, at the end.

wait4 would include memory of the parent.
"""


def peak_memory_bytes(url: str, *arguments: str, status: int = 0) -> list[int]:
    """Run `patients-api` to its end and return the peak memory of its process, and of its largest child, in bytes."""
    result = subprocess.run(
        [sys.executable, "-c", MEASURED_COMMAND, *arguments],
        env={**os.environ, "DATABASE_URL": url},
        check=False,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert result.returncode == status
    peaks = [int(line.split()[1]) * 1024 for line in result.stderr.splitlines() if line.startswith("VmHWM:")]
    assert len(peaks) == 2
    return peaks


def write_hospitals(file: Path, count: int) -> None:
    def lines() -> Iterator[str]:
        yield "unique_id,hospital_name\n"
        for number in range(count):
            yield f"hos{number:07d},{'General Hospital ' * 14} {number}\n"

    with file.open("w", encoding="utf-8") as opened:
        opened.writelines(lines())


async def test_memory_does_not_grow_with_the_file(database_url: str, tmp_path: Path) -> None:
    """Import and export stay below 150 MB, including Python and its libraries, and hardly grow with the file."""
    small, file = tmp_path / "small" / "hospitals.csv", tmp_path / "hospitals.csv"
    small.parent.mkdir()
    await asyncio.to_thread(write_hospitals, small, SMALL_RECORD_COUNT)
    at_least = await asyncio.to_thread(peak_memory_bytes, database_url, "import", str(small), "--dry-run")
    await asyncio.to_thread(write_hospitals, file, RECORD_COUNT)
    imported = await asyncio.to_thread(peak_memory_bytes, database_url, "import", str(file))
    exported = await asyncio.to_thread(peak_memory_bytes, database_url, "export", "--resource", "hospitals")
    wrong = tmp_path / "patients.ndjson"
    await asyncio.to_thread(wrong.write_text, INVALID_LINE * 250)
    checked = await asyncio.to_thread(peak_memory_bytes, database_url, "import", str(wrong), "--dry-run", status=1)
    limits = [min(MAX_MEMORY_BYTES, peak + MAX_GROWTH_BYTES) for peak in at_least]
    for peaks in (imported, exported, checked):
        assert all(peak < limit for peak, limit in zip(peaks, limits, strict=True)), (imported, exported, checked)
