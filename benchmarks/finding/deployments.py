"""Services to search in: one with a single worker for each size of register, all running at once."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks import database, sides
from benchmarks.command import print_progress
from benchmarks.processes import cpu_seconds
from benchmarks.register import Patient, RegisteredPatient

SELECT_SAMPLE = f"""
    SELECT {", ".join(f"{name}::text" for name in Patient._fields)},
        ARRAY(SELECT hospital_id FROM patient_hospitals WHERE patient_id = unique_id ORDER BY hospital_id),
        ARRAY(SELECT doctor_id FROM patient_doctors WHERE patient_id = unique_id ORDER BY doctor_id)
    FROM patients ORDER BY md5(unique_id) LIMIT $1
"""  # noqa: S608 - its own words alone


@dataclass(frozen=True)
class Deployment:
    """A register, its PostgreSQL and its service."""

    patient_count: int
    database_server: database.DatabaseServer
    service: sides.SideServer

    def cpu_times(self) -> tuple[float, float]:
        """Return the seconds of CPU time of the service and of PostgreSQL so far."""
        return cpu_seconds(self.service.pid), cpu_seconds(self.database_server.postmaster_pid)

    def sample(self, count: int) -> list[RegisteredPatient]:
        """Return some patients as they are stored, always the same ones, without their profiles."""
        rows = database.fetch_rows(self.database_server.url, SELECT_SAMPLE, count)
        return [RegisteredPatient(Patient(*row[:-2]), None, row[-2], row[-1]) for row in map(tuple, rows)]


@contextmanager
def running_deployments(sizes: Sequence[int]) -> Iterator[list[Deployment]]:
    """Serve registers of these sizes, which are created first if necessary."""
    directories = []
    for size in sizes:
        print_progress(f"a register of {size:,} patients")
        directories.append(database.ensure_register(size))
    side = sides.service_side("service", workers=1)  # one connection sends the requests, and one worker serves it
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        deployments = []
        for size, directory in zip(sizes, directories, strict=True):
            database_server = stack.enter_context(database.register_server(directory, {}))
            logs = scratch / str(size)
            logs.mkdir()
            (server,) = stack.enter_context(sides.running_sides([side], database_server.url, logs))
            deployments.append(Deployment(size, database_server, server))
        yield deployments
