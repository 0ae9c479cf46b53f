"""Where patients are looked for: a service with one worker for each size of register, all running at once."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks import database, sides
from benchmarks.command import say
from benchmarks.processes import cpu_seconds
from benchmarks.register import Patient, Registered

SAMPLE = f"""
    SELECT {", ".join(f"{name}::text" for name in Patient._fields)},
        ARRAY(SELECT hospital_id FROM patient_hospitals WHERE patient_id = unique_id ORDER BY hospital_id),
        ARRAY(SELECT doctor_id FROM patient_doctors WHERE patient_id = unique_id ORDER BY doctor_id)
    FROM patients ORDER BY md5(unique_id) LIMIT $1
"""  # noqa: S608 - its own words alone


@dataclass(frozen=True)
class Site:
    """A register, its PostgreSQL and its service."""

    patients: int
    database: database.Served
    service: sides.Running

    def cpu(self) -> tuple[float, float]:
        """Seconds that the service has computed so far, and PostgreSQL."""
        return cpu_seconds(self.service.pid), cpu_seconds(self.database.postmaster)

    def sample(self, count: int) -> list[Registered]:
        """Some patients, always the same, as they are stored; their profiles are left out."""
        found = database.rows(self.database.url, SAMPLE, count)
        return [Registered(Patient(*row[:-2]), None, row[-2], row[-1]) for row in map(tuple, found)]


@contextmanager
def serving(sizes: Sequence[int]) -> Iterator[list[Site]]:
    """Serve registers of so many patients, which are made first where there are none."""
    directories = []
    for size in sizes:
        say(f"a register of {size:,} patients")
        directories.append(database.register(size))
    one = sides.service("service", workers=1)  # asked by one connection, which one worker serves
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        sites = []
        for size, directory in zip(sizes, directories, strict=True):
            served = stack.enter_context(database.served(directory, {}))
            logs = scratch / str(size)
            logs.mkdir()
            (run,) = stack.enter_context(sides.running([one], served.url, logs))
            sites.append(Site(size, served, run))
        yield sites
