"""Compare reads of FHIR resources with the same reads of the contract's API: `python -m benchmarks.fhir`.

Both are requested from the same server in turns, so that what slows the machine slows both of them.
"""

import argparse
import json
import sys
import tempfile
from contextlib import closing
from pathlib import Path
from random import Random
from statistics import median
from urllib.parse import urlsplit

from app.fhir_resources.ids import logical_id
from benchmarks import command, database
from benchmarks.client import Client
from benchmarks.database import SELECT_PATIENT_IDS, fetch_ids
from benchmarks.measurement import Meter, Sample, require_wrk
from benchmarks.operations import MAX_DISTINCT_REQUESTS, PAGE_SIZE, PATIENTS_PATH, Operation
from benchmarks.pages import MAX_PAGES, page_paths
from benchmarks.report import table_head, table_row
from benchmarks.sides import SideServer, running_sides, service_side

FHIR_PATH = "/fhir/Patient"


def _fhir_page_paths(server: SideServer) -> list[str]:
    """Return the paths of the pages after the first one, by the links in the Bundles."""
    paths: list[str] = []
    path = f"{FHIR_PATH}?_count={PAGE_SIZE}"
    with closing(Client(server)) as client:
        while len(paths) < MAX_PAGES:
            links = json.loads(client.send("GET", path).content)["link"]
            following = [urlsplit(link["url"]) for link in links if link["relation"] == "next"]
            if not following:
                break
            path = f"{following[0].path}?{following[0].query}"
            paths.append(path)
    return paths


def _pairs(url: str, server: SideServer) -> dict[str, tuple[Operation, Operation]]:
    """Return the operation of the contract's API and that of the FHIR interface, by name."""
    ids = fetch_ids(url, SELECT_PATIENT_IDS, None)
    drawn = Random(len(ids)).sample(ids, min(MAX_DISTINCT_REQUESTS, len(ids)))
    paths = [f"{PATIENTS_PATH}{unique_id}/" for unique_id in drawn]
    fhir_paths = [f"{FHIR_PATH}/{logical_id(unique_id)}" for unique_id in drawn]
    return {
        "get one": (Operation("get", "GET", paths), Operation("read", "GET", fhir_paths)),
        f"different pages of {PAGE_SIZE}": (
            Operation("page", "GET", page_paths(url, server)),
            Operation("search", "GET", _fhir_page_paths(server)),
        ),
    }


def _row(name: str, connections: int, samples: list[tuple[Sample, Sample]]) -> str:
    speeds = [fhir.per_second / plain.per_second for plain, fhir in samples]
    times = [(plain.server_cpu + plain.database_cpu) / (fhir.server_cpu + fhir.database_cpu) for plain, fhir in samples]
    parts = [
        zip(*((one.server_cpu, one.database_cpu) for one in of_side), strict=True)
        for of_side in zip(*samples, strict=True)
    ]
    cpu = [" + ".join(f"{median(each):.2f}" for each in of_side) for of_side in parts]
    rates = [f"{median(sample.per_second for sample in of_side):,.0f}" for of_side in zip(*samples, strict=True)]
    return table_row([name, str(connections), *rates, f"{median(speeds):.2f}", *cpu, f"{median(times):.2f}"])


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fhir", description=__doc__.partition("\n")[0])
    parser.add_argument("--patients", type=int, default=100_000, help="in the register (100,000)")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each (5)")
    parser.add_argument("--seconds", type=int, default=4, help="of each measurement (4)")
    arguments = parser.parse_args()

    def work() -> None:
        require_wrk()
        with (
            database.register_copy_server(database.ensure_register(arguments.patients), {}) as server,
            tempfile.TemporaryDirectory() as scratch,
            running_sides([service_side("service")], server.url, Path(scratch)) as (run,),
        ):
            meter = Meter(server.postmaster_pid)
            head = ["operation", "connections", "contract/s", "FHIR/s", "of the speed", "CPU ms", "CPU ms, FHIR"]
            print("\n".join(table_head([*head, "of the CPU time"])))
            for name, pair in _pairs(server.url, run).items():
                files = [
                    {run.side.name: operation.write_files(Path(scratch) / f"{name} {place}".replace(" ", "-"))}
                    for place, operation in enumerate(pair)
                ]
                for connections in (1, 16):
                    samples = []
                    for _ in range(arguments.rounds + 1):
                        plain, fhir = (meter.measure_load(run, each, connections, arguments.seconds) for each in files)
                        samples.append((plain, fhir))
                    print(_row(name, connections, samples[1:]), flush=True)  # the first round warms up

    return command.run(work)


if __name__ == "__main__":
    sys.exit(main())
