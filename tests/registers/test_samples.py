"""Files as other systems write them: `samples` has each beside what a person would expect of it.

The tests import each file into the same database with the engine of the command, and undo it.
"""

import argparse
import json
import tomllib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from app.arguments.commands import COMMANDS
from app.cli.import_ import import_options, table_options
from app.db.connection import Connection
from app.db.database import Database
from app.listing.query import ListQuery
from app.staging.results import RowError
from app.table_files.errors import UnreadableFileError
from app.transfer.exporting import Export
from app.transfer.importing import ImportSummary, import_file
from app.transfer.layout import Layout
from app.transfer.reading import RecordFile
from app.transfer.resources import RESOURCES

SAMPLES_DIRECTORY = Path(__file__).parent / "samples"
EXPECTATIONS = {path.stem: tomllib.loads(path.read_text("utf-8")) for path in sorted(SAMPLES_DIRECTORY.glob("*.toml"))}
"""What is expected of each file: a sentence (`expects`) with options, patients, errors, remarks or a problem."""
STORED_RECORDS = {
    "hospitals": [
        {"unique_id": "hos123", "hospital_name": "General Hospital"},
        {"unique_id": "hos456", "hospital_name": "St. Mary's Hospital"},
        {"unique_id": "hos777", "hospital_name": "Clinic North"},
        {"unique_id": "hos778", "hospital_name": "Clinic North"},
        {"unique_id": "k1", "hospital_name": "One"},
        {"unique_id": "k-1", "hospital_name": "Other"},
    ],
    "doctors": [
        {"unique_id": "doc123", "doctor_first_name": "Dr. Smith"},
        {"unique_id": "doc456", "doctor_first_name": "Thandi", "doctor_last_name": "Nkosi"},
    ],
    "patients": [
        {
            "unique_id": "1",
            "patient_first_name": "John",
            "patient_last_name": "Doe",
            "patient_date_of_birth": "1980-01-01",
            "patient_mobile_number": "0825550101",
            "patient_postal_code": "0699",
        },
        {"unique_id": "2", "patient_first_name": "Ann", "patient_last_name": "Roe"},
    ],
}


class UndoError(Exception):
    """Raised to undo an import."""


def sample_file(name: str) -> Path:
    (file,) = (path for path in SAMPLES_DIRECTORY.glob(f"{name}.*") if path.suffix not in {".toml", ".map"})
    return file


def parse_options(options: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    COMMANDS["import"].add_arguments(parser)
    return parser.parse_args(["file", *options])


async def import_sample(
    connection: Connection, file: Path, options: Sequence[str], resource: str = "patients"
) -> tuple[ImportSummary, list[RowError]]:
    """Import a file as the command does, and return the summary with all errors and remarks."""
    arguments = parse_options([str(SAMPLES_DIRECTORY / one) if one.endswith(".map") else one for one in options])
    reported: list[RowError] = []
    layout = Layout(RESOURCES[resource].service_class.repository_class)
    with file.open("rb", buffering=0) as opened:
        record_file = RecordFile(opened, layout, resource, table_options(arguments))
        summary = await import_file(
            connection, resource, record_file, lambda _, errors, __: reported.extend(errors), import_options(arguments)
        )
    return summary, reported


async def stored_patients(connection: Connection) -> list[dict[str, Any]]:
    """Return the fields that have values of all patients, and the names of their hospitals and doctors."""
    export = Export([connection], RESOURCES["patients"], ListQuery())
    documents = [json.loads(document) async for page in export.batches() for document in page.documents()]
    for document in documents:
        document["patient_hospital"] = sorted(one["hospital_name"] for one in document["patient_hospital"])
        document["patient_doctor"] = [one["doctor_first_name"] for one in document["patient_doctor"]]
    documents.sort(key=lambda document: str(document["patient_last_name"]))
    return [{name: value for name, value in document.items() if value} for document in documents]


@pytest.fixture(scope="module")
async def database(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Database]:
    """Yield a database with the `STORED_RECORDS`."""
    async with Database(module_database_url, pool_size=1, with_timeouts=False) as opened:

        async def store(connection: Connection) -> None:
            for resource, records in STORED_RECORDS.items():
                file = tmp_path_factory.mktemp("stored") / f"{resource}.ndjson"
                file.write_text("".join(f"{json.dumps(record)}\n" for record in records))
                summary, _ = await import_sample(connection, file, [], resource)
                assert not summary.rejected

        await opened.transaction(store)
        yield opened


@pytest.mark.parametrize("name", EXPECTATIONS)
async def test_a_file_of_another_system_is_taken_as_a_person_expects(name: str, database: Database) -> None:
    """A file is taken as a person expects: its patients, its wrong lines, or a message that says what to do."""
    expected = EXPECTATIONS[name]
    expected_patients = expected.get("patients", [])

    async def work(connection: Connection) -> None:
        before = await stored_patients(connection)
        if "problem" in expected:
            with pytest.raises(UnreadableFileError) as raised:
                await import_sample(connection, sample_file(name), expected.get("options", []))
            assert expected["problem"] in str(raised.value) + " Nothing"
            raise UndoError
        summary, reported = await import_sample(connection, sample_file(name), expected.get("options", []))
        assert summary.created_links == expected.get("created_links", summary.created_links)
        for is_remark, key in ((False, "errors"), (True, "remarks")):
            assert [
                [line, ".".join(map(str, error.loc)), error.type]
                for line, error, remark in reported
                if remark is is_remark
            ] == expected.get(key, []), [error.msg for _, error, _ in reported]
        if "message" in expected:
            assert all(expected["message"] in error.msg for _, error, _ in reported)
        changed = [patient for patient in await stored_patients(connection) if patient not in before]
        assert len(changed) == len(expected_patients)
        for patient, fields in zip(changed, expected_patients, strict=True):
            ignored = {"unique_id", "date_created", "last_updated"} - fields.keys()
            assert {field: value for field, value in patient.items() if field not in ignored} == fields
        raise UndoError

    with pytest.raises(UndoError):
        await database.transaction(work, max_attempts=1)


def test_each_file_has_an_expectation() -> None:
    """Each of the at least forty files has an expectation in words."""
    assert len(EXPECTATIONS) >= 40
    assert {path.name.partition(".")[0] for path in SAMPLES_DIRECTORY.iterdir()} == set(EXPECTATIONS)
    assert all(expected["expects"].endswith(".") for expected in EXPECTATIONS.values())
