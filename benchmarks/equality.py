"""The proof that all sides do the same: their responses, key by key, and what they store."""

import json
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

from benchmarks.client import request_json
from benchmarks.operations import PATIENTS_PATH, Operation
from benchmarks.sides import SideError, SideServer

COMPARED_REQUESTS = 10
"""Compared requests per operation on single patients."""
VARYING_FIELDS = ("unique_id", "date_created", "last_updated")
"""The fields that differ between two patients created alike."""


def check(
    reference: SideServer,
    other: SideServer,
    reference_operations: Sequence[Operation],
    operations: Sequence[Operation],
) -> None:
    """Compare two sides by means of the second side's operations. Paths of reads may differ, in the same order.

    Raises:
        SideError: the sides differ.
    """
    for reference_operation, operation in zip(reference_operations, operations, strict=True):
        if operation.is_list and other.side.hospitals is not None:
            continue  # it shows other patients
        random = Random(operation.name)
        for number in range(COMPARED_REQUESTS if len(operation.paths) > 1 or operation.bodies else 1):
            path = random.choice(operation.paths)
            if operation.method == "GET":
                reference_path = path
                if operation.is_list:
                    reference_path = reference_operation.paths[operation.paths.index(path)]
                expected = request_json(reference, "GET", reference_path)
                _ensure_equal(operation, other, expected, request_json(other, "GET", path))
            elif operation.method == "POST":
                _check_creation(reference, other, operation, random.choice(operation.bodies), number)
            else:
                _check_update(reference, other, operation, path, random.sample(operation.bodies, 2))


def _check_creation(reference: SideServer, other: SideServer, operation: Operation, body: str, number: int) -> None:
    created = {
        run.port: request_json(run, "POST", PATIENTS_PATH, body.replace("UNIQUE", f"{place}-{other.port}-{number}"))
        for place, run in enumerate((reference, other))
    }
    theirs = created[other.port]
    _ensure_equal(operation, other, request_json(reference, "GET", f"{PATIENTS_PATH}{theirs['unique_id']}/"), theirs)
    _ensure_equal(operation, other, *(_without_varying_fields(patient) for patient in created.values()))


def _check_update(
    reference: SideServer, other: SideServer, operation: Operation, path: str, bodies: Sequence[str]
) -> None:
    first, second = bodies
    request_json(reference, "PUT", path, first)
    theirs = request_json(other, "PUT", path, second)
    _ensure_equal(operation, other, request_json(reference, "GET", path), theirs)
    request_json(reference, "PUT", path, first)
    ours = request_json(reference, "PUT", path, second)
    _ensure_equal(operation, other, {**ours, "last_updated": None}, {**theirs, "last_updated": None})


def _without_varying_fields(patient: Mapping[str, Any]) -> dict[str, Any]:
    profile = {**patient["patient_profile"], "unique_id": None, "email": None}  # these contain UNIQUE in the request
    return {**patient, **dict.fromkeys(VARYING_FIELDS), "patient_profile": profile}


def _ensure_equal(operation: Operation, other: SideServer, expected: Any, actual: Any) -> None:
    # as text, because the order of the keys counts
    if json.dumps(expected) != json.dumps(actual):
        pair = (
            (expected, actual)
            if isinstance(expected, dict)
            else next(
                (pair for pair in zip(expected, actual, strict=False) if json.dumps(pair[0]) != json.dumps(pair[1])),
                (len(expected), len(actual)),
            )
        )
        raise SideError(f"{operation.name}: {other.side.name} returns\n{pair[1]}\ninstead of\n{pair[0]}")
