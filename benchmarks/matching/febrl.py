"""The public sets of Febrl: how many of the pairs that are one person a scan finds, and how many others."""

import argparse
import csv
import json
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from itertools import combinations
from pathlib import Path
from typing import Any

from app.db.migrate import migrate
from app.embedded.server import EmbeddedPostgres
from app.matching.weights import Grade
from benchmarks.database import fetch_rows
from benchmarks.report import table_head, table_row

COLUMNS = {
    "given_name": "patient_first_name",
    "surname": "patient_last_name",
    "address_2": "patient_address_line_1",
    "suburb": "patient_town",
    "postcode": "patient_postal_code",
    "state": "patient_province",
}
"""Fields of patients by the columns of the set. The street number and `address_1` become `patient_physical_address`."""
Pair = frozenset[str]


def run(arguments: argparse.Namespace) -> None:
    """Import a set, scan it, and print precision, recall and F1 by grade, of even and odd persons apart."""
    with arguments.set.open(newline="", encoding="utf-8") as file:
        rows = [{key.strip(): value.strip() for key, value in row.items()} for row in csv.DictReader(file)]
    found = find_pairs(_patient(row, with_identifier=arguments.identifiers) for row in rows)
    print(*table_head(["grade", "persons", "pairs", "precision", "recall", "F1"]), sep="\n")
    grades: list[Grade] = []
    for grade in Grade:
        grades.append(grade)
        graded = {pair for pair, one in found.items() if one in grades}
        for name, remainders in (("all", {0, 1}), ("even", {0}), ("odd", {1})):
            ids = [row["rec_id"] for row in rows if _person(row["rec_id"]) % 2 in remainders]
            print(table_row([f"{grade} or better", name, *scores(graded, ids)]))


def find_pairs(patients: Iterable[Mapping[str, Any]]) -> dict[Pair, Grade]:
    """Import patients into an empty register, scan it, and return the grades of the pairs found."""
    with tempfile.TemporaryDirectory() as directory, EmbeddedPostgres(Path(directory)) as server:
        migrate(server.url)
        file = Path(directory, "patients.ndjson")
        file.write_text("\n".join(json.dumps(patient, default=str) for patient in patients))
        for command in (["import", str(file), "--duplicates", "ignore"], ["duplicates", "scan"]):
            environment = {"DATABASE_URL": server.url}
            subprocess.run([sys.executable, "-m", "app.cli", *command], env=environment, check=True, stdout=sys.stderr)
        rows = fetch_rows(server.url, "SELECT one_id, other_id, grade FROM duplicates")
    return {frozenset((one, other)): Grade(grade) for one, other, grade in rows}


def _patient(row: dict[str, str], *, with_identifier: bool) -> dict[str, Any]:
    address = f"{row['street_number']} {row['address_1']}".strip()
    number = row["soc_sec_id"] if with_identifier else ""
    has_name = row["given_name"] or row["surname"]
    return {
        "unique_id": row["rec_id"],
        **{field: row[column] or None for column, field in COLUMNS.items()},
        **({} if has_name else {"patient_last_name": "Unknown"}),
        "patient_physical_address": address or None,
        "patient_date_of_birth": _date(row["date_of_birth"]),
        "patient_identifiers": [{"type": "other", "value": number}] if number else [],
    }


def _date(text: str) -> str | None:
    try:
        return date.fromisoformat(f"{text[:4]}-{text[4:6]}-{text[6:]}").isoformat()
    except ValueError:
        return None  # such as 30 February


def _person(unique_id: str) -> int:
    return int(unique_id.split("-")[1])


def scores(found: Iterable[Pair], ids: Sequence[str]) -> list[str]:
    """Return the number of pairs of these ids that were found, their precision, recall, and F1.

    The person of a record is the number in its id, such as `rec-552-dup-3`.
    """
    records: dict[int, list[str]] = defaultdict(list)
    for unique_id in ids:
        records[_person(unique_id)].append(unique_id)
    true = {frozenset(pair) for group in records.values() for pair in combinations(group, 2)}
    of_these = {pair for pair in found if pair <= {*ids}}
    hits = len(true & of_these)
    precision, recall, f1 = hits / len(of_these), hits / len(true), 2 * hits / (len(of_these) + len(true))
    return [str(len(of_these)), f"{precision:.4f}", f"{recall:.4f}", f"{f1:.4f}"]
