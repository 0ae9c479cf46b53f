"""What is asked of each side: the operations, and the requests that they are made of."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from benchmarks.database import PATIENTS_OF, ids
from benchmarks.register import patients

PATIENTS = "/patients/patients/"
OPERATIONS = ("get one", "page of 50", "whole list", "create", "update")
DRAWN = 5_000
"""Different paths and bodies of an operation."""


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
    """JSON; `UNIQUE` in it is to be another word in each request."""

    @property
    def lists(self) -> bool:
        """Whether the answer is a list of patients."""
        return self.method == "GET" and len(self.paths) == 1

    def write(self, directory: Path) -> RequestFiles:
        """Write the requests for wrk."""
        directory.mkdir()
        paths, bodies = directory / "paths", directory / "bodies"
        paths.write_text("\n".join(self.paths))
        bodies.write_text("\n".join(self.bodies))
        return RequestFiles(self.method, str(paths), str(bodies) if self.bodies else "-")


WHOLE_LIST = Operation("whole list", "GET", [PATIENTS])
"""Asked for once at a time, never under concurrency: a former service's memory would not hold it."""


def operations_on(url: str, hospitals: Sequence[str] | None) -> list[Operation]:
    """All operations, on patients of these hospitals or on all; reads first, while the register is as it was made."""
    known = ids(url, PATIENTS_OF, hospitals)
    everywhere = ids(url, "SELECT unique_id FROM hospitals ORDER BY unique_id")
    doctors = ids(url, "SELECT unique_id FROM doctors ORDER BY unique_id")
    random = Random(len(known))
    paths = [f"{PATIENTS}{unique_id}/" for unique_id in random.sample(known, min(DRAWN, len(known)))]
    choice = _Choice(hospitals or everywhere, doctors)
    return [
        Operation("get one", "GET", paths),
        Operation("page of 50", "GET", [f"{PATIENTS}?limit=50"]),
        WHOLE_LIST,
        Operation("create", "POST", [PATIENTS], choice.creations(random)),
        Operation("update", "PUT", paths, choice.updates(random)),
    ]


@dataclass(frozen=True)
class _Choice:
    hospitals: Sequence[str]
    doctors: Sequence[str]

    def _two(self, random: Random) -> list[str]:
        return random.sample(self.hospitals, min(2, len(self.hospitals)))

    def creations(self, random: Random) -> list[str]:
        """Bodies of POST: all fields, a new profile, two hospitals and a doctor."""
        bodies = []
        for patient, _, _, _ in patients(DRAWN, seed=2):
            fields = {name: value for name, value in patient._asdict().items() if name.startswith("patient_")}
            profile = {
                "unique_id": "prof-UNIQUE",
                "email": "UNIQUE@example.com",
                "first_name": patient.patient_first_name,
                "last_name": patient.patient_last_name,
            }
            links = {"hospital_ids": self._two(random), "doctor_ids": [random.choice(self.doctors)]}
            bodies.append(_json({"patient_profile": profile, **fields, **links}))
        return bodies

    def updates(self, random: Random) -> list[str]:
        """Bodies of PUT: other hospitals and three other values. Drawn apart from the patient, so that they differ."""
        return [
            _json(
                {
                    "patient_mobile_number": f"+27 8{random.randrange(10**8):08d}",
                    "patient_race": "African",
                    "patient_province": random.choice(("Gauteng", "Limpopo", "Western Cape", "Free State")),
                    "hospital_ids": self._two(random),
                }
            )
            for _ in range(DRAWN)
        ]


def _json(body: Mapping[str, Any]) -> str:
    return json.dumps(body, ensure_ascii=False, separators=(",", ":"))
