"""Mapping files that `--inspect --save` writes, which `--map` must understand as they are."""

import io
from typing import BinaryIO, cast

import pytest

from app.registers.inspection import Inspection
from app.registers.options import TableOptions, parse_mapping
from app.transfer.layout import Layout
from app.transfer.reading import RecordFile
from app.transfer.resources import RESOURCES

LAYOUT = Layout(RESOURCES["patients"].service_class.repository_class)


def record_file(text: str, options: TableOptions | None = None) -> RecordFile:
    return RecordFile(cast("BinaryIO", io.BytesIO(text.encode())), LAYOUT, "patients", options)


@pytest.mark.parametrize(
    "header",
    [
        "Surname,Tel,TEL",
        "Surname,Tel,Tel",
        "Surname,Tel,Notes,Notes",
        "Surname,Tel,,,x",
        "patient_last_name,patient_mobile_number,patient_last_name",
        "Surname,Tel,patient_last_name",
    ],
)
def test_a_saved_mapping_file_keeps_what_was_recognized(header: str) -> None:
    """Without an edit, the import with the mapping file stores the columns that the inspection has recognized."""
    text = f"{header}\n{','.join(f'08255501{place}' for place in range(header.count(',') + 1))}\n"
    inspection = Inspection(record_file(text).register())
    mapping = parse_mapping("\n".join(inspection.mapping()))
    assert len(mapping) == header.count(",") + 1
    (line,) = record_file(text, TableOptions(mapping=mapping)).lines()
    assert line.record is not None
    assert line.record["patient_mobile_number"] == "082555011"
    assert line.record["patient_last_name"] == (
        "082555012" if header.endswith("Tel,patient_last_name") else "082555010"
    )
