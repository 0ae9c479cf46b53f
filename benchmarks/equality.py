"""The proof that all sides do the same: their answers, key by key, and what they store."""

import json
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

from benchmarks.client import ask
from benchmarks.operations import PATIENTS, Operation
from benchmarks.sides import Running, SideError

COMPARED = 10
"""Requests of each operation on single patients."""
OWN = ("unique_id", "date_created", "last_updated")
"""What differs between two patients that are created alike."""


def check(reference: Running, other: Running, operations: Sequence[Operation]) -> None:
    """Compare two sides by what is asked of the second.

    Raises:
        SideError: they differ.
    """
    for operation in operations:
        if operation.lists and other.side.hospitals is not None:
            continue  # it shows other patients
        random = Random(operation.name)
        for number in range(COMPARED if len(operation.paths) > 1 or operation.bodies else 1):
            path = random.choice(operation.paths)
            if operation.method == "GET":
                _compare(operation, other, ask(reference, "GET", path), ask(other, "GET", path))
            elif operation.method == "POST":
                _check_creation(reference, other, operation, random.choice(operation.bodies), number)
            else:
                _check_update(reference, other, operation, path, random.sample(operation.bodies, 2))


def _check_creation(reference: Running, other: Running, operation: Operation, body: str, number: int) -> None:
    made = {
        run.port: ask(run, "POST", PATIENTS, body.replace("UNIQUE", f"{place}-{other.port}-{number}"))
        for place, run in enumerate((reference, other))
    }
    theirs = made[other.port]
    _compare(operation, other, ask(reference, "GET", f"{PATIENTS}{theirs['unique_id']}/"), theirs)
    _compare(operation, other, *(_without_own(patient) for patient in made.values()))


def _check_update(reference: Running, other: Running, operation: Operation, path: str, bodies: Sequence[str]) -> None:
    first, second = bodies
    ask(reference, "PUT", path, first)
    theirs = ask(other, "PUT", path, second)
    _compare(operation, other, ask(reference, "GET", path), theirs)
    ask(reference, "PUT", path, first)
    ours = ask(reference, "PUT", path, second)
    _compare(operation, other, {**ours, "last_updated": None}, {**theirs, "last_updated": None})


def _without_own(patient: Mapping[str, Any]) -> dict[str, Any]:
    profile = {**patient["patient_profile"], "unique_id": None, "email": None}  # UNIQUE in the request
    return {**patient, **dict.fromkeys(OWN), "patient_profile": profile}


def _compare(operation: Operation, other: Running, expected: Any, actual: Any) -> None:
    # as text: the order of the keys counts
    if json.dumps(expected) != json.dumps(actual):
        pair = (
            (expected, actual)
            if isinstance(expected, dict)
            else next(
                (pair for pair in zip(expected, actual, strict=False) if json.dumps(pair[0]) != json.dumps(pair[1])),
                (len(expected), len(actual)),
            )
        )
        raise SideError(f"{operation.name}: {other.side.name} answers\n{pair[1]}\nand not\n{pair[0]}")
