"""The operations requested from each side, and the requests they consist of."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from app import contract
from benchmarks.database import SELECT_PATIENT_IDS, fetch_ids
from benchmarks.register import generate_patients

PATIENTS_PATH = "/patients/patients/"
OPERATION_NAMES = ("get one", "different pages of 50", "page of 50", "whole list", "create", "update")
PAGE_SIZE = 50
MAX_DISTINCT_REQUESTS = 5_000
"""The number of distinct paths and bodies of an operation."""


class RequestFiles(NamedTuple):
    """The first arguments of load.lua."""

    method: str
    paths: str
    bodies: str


@dataclass(frozen=True)
class Operation:
    """One kind of request."""

    name: str
    method: str
    paths: Sequence[str]
    bodies: Sequence[str] = ()
    """JSON, in which `UNIQUE` stands for a different word in each request."""

    @property
    def is_list(self) -> bool:
        """Whether the response is a list of patients."""
        return (self.method == "GET" and "?" in self.paths[0]) or self == WHOLE_LIST

    def write_files(self, directory: Path) -> RequestFiles:
        """Write the requests for wrk."""
        directory.mkdir()
        paths, bodies = directory / "paths", directory / "bodies"
        paths.write_text("\n".join(self.paths))
        bodies.write_text("\n".join(self.bodies))
        return RequestFiles(self.method, str(paths), str(bodies) if self.bodies else "-")


WHOLE_LIST = Operation("whole list", "GET", [PATIENTS_PATH])
"""Requested once at a time and never concurrently, because the former service's memory would not suffice."""


def operations_on(url: str, hospitals: Sequence[str] | None, different_pages: Sequence[str] = ()) -> list[Operation]:
    """Return all operations on patients of these hospitals, or on all; reads come first, on the unchanged register.

    `different_pages` are the paths that `page_paths` returns. Without them, there is no operation for different pages.
    """
    patient_ids = fetch_ids(url, SELECT_PATIENT_IDS, hospitals)
    all_hospital_ids = fetch_ids(url, "SELECT unique_id FROM hospitals ORDER BY unique_id")
    doctor_ids = fetch_ids(url, "SELECT unique_id FROM doctors ORDER BY unique_id")
    random = Random(len(patient_ids))
    paths = [
        f"{PATIENTS_PATH}{unique_id}/"
        for unique_id in random.sample(patient_ids, min(MAX_DISTINCT_REQUESTS, len(patient_ids)))
    ]
    body_generator = _BodyGenerator(hospitals or all_hospital_ids, doctor_ids)
    return [
        Operation("get one", "GET", paths),
        *([Operation("different pages of 50", "GET", different_pages)] if different_pages else []),
        Operation("page of 50", "GET", [f"{PATIENTS_PATH}?limit={PAGE_SIZE}"]),
        WHOLE_LIST,
        Operation("create", "POST", [PATIENTS_PATH], body_generator.create_bodies(random)),
        Operation("update", "PUT", paths, body_generator.update_bodies(random)),
    ]


@dataclass(frozen=True)
class _BodyGenerator:
    hospital_ids: Sequence[str]
    doctor_ids: Sequence[str]

    def _two_hospitals(self, random: Random) -> list[str]:
        return random.sample(self.hospital_ids, min(2, len(self.hospital_ids)))

    def create_bodies(self, random: Random) -> list[str]:
        """Return bodies of POST: all fields, a new profile, two hospitals and a doctor."""
        bodies = []
        for patient, _, _, _ in generate_patients(MAX_DISTINCT_REQUESTS, seed=2):
            fields = {name: value for name, value in patient._asdict().items() if name.startswith("patient_")}
            profile = {
                "unique_id": "prof-UNIQUE",
                "email": "UNIQUE@example.com",
                "first_name": patient.patient_first_name,
                "last_name": patient.patient_last_name,
            }
            links = {"hospital_ids": self._two_hospitals(random), "doctor_ids": [random.choice(self.doctor_ids)]}
            # the register may lack a field of the contract, which then has the value of the contract's example
            bodies.append(_compact_json({**contract.CREATE_BODY, "patient_profile": profile, **fields, **links}))
        return bodies

    def update_bodies(self, random: Random) -> list[str]:
        """Return bodies of PUT: other hospitals and three other values, drawn independently of the patient."""
        return [
            _compact_json(
                {
                    "patient_mobile_number": f"+27 8{random.randrange(10**8):08d}",
                    "patient_race": "African",
                    "patient_province": random.choice(("Gauteng", "Limpopo", "Western Cape", "Free State")),
                    "hospital_ids": self._two_hospitals(random),
                }
            )
            for _ in range(MAX_DISTINCT_REQUESTS)
        ]


def _compact_json(body: Mapping[str, Any]) -> str:
    return json.dumps(body, ensure_ascii=False, separators=(",", ":"))
