"""Exports for Excel: opened and saved by a spreadsheet that retypes cells, and imported unchanged."""

import csv
import io
import re
from contextlib import suppress
from datetime import UTC, date, datetime
from pathlib import Path

import httpx
import openpyxl
import pytest

from tests.transfer.conftest import another_url
from tests.transfer.support import PATIENTS, ndjson, run_cli_on, run_import

__all__ = ["another_url"]

TRICKY_PATIENTS = [
    {
        "unique_id": "0012",
        "patient_last_name": "=1+1",
        "patient_first_name": "-Ann",
        "patient_mobile_number": "+27 82 555 0101",
        "patient_postal_code": "0699",
        "patient_date_of_birth": "1980-01-02",
        "patient_latitude": "-33.924870",
        "patient_physical_address": '4 "The Oaks"\nMain Road; Durban',
        "patient_town": "TRUE",
        "patient_region": "1-2",
        "patient_title": "@home",
    },
    {
        "unique_id": "12e4",
        "patient_last_name": "'0699",
        "patient_first_name": "May 1",
        "patient_mobile_number": "0825550101",
        "patient_race": "1/2",
        "patient_initials": "(5)",
        "patient_town": "12345678901234567890",
        "patient_country": "'t Hooft",
        "patient_province": "N/A",
    },
]


def retyped(cell: str) -> object:
    """Return the value that Excel in the United States gives to a cell of a CSV file that it opens."""
    text = cell.strip()
    if re.fullmatch(r"[+-]?[0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?|\([0-9]+\)", text):
        return -float(text[1:-1]) if text.startswith("(") else float(text)
    for pattern in ("%Y %Y-%m-%d", "%Y %m/%d/%Y", "%Y %m-%d", "%Y %m/%d", "%Y %b %d"):
        with suppress(ValueError):
            if pattern.count("%Y") == 1:
                return datetime.strptime(f"2026 {text}", pattern).replace(tzinfo=UTC).date()
            return datetime.strptime(text, pattern.removeprefix("%Y ")).replace(tzinfo=UTC).date()
    if text.upper() in {"TRUE", "FALSE"}:
        return text.upper() == "TRUE"
    if text[:1] in "=+-@" and text:
        return f"#NAME? {len(text)}"  # the result of a formula
    return cell


def displayed(value: object) -> str:
    """Return how Excel shows a value, which is what it saves as CSV."""
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, date):
        return f"{value.month}/{value.day}/{value.year}"
    if isinstance(value, int | float):
        return f"{value:.5E}" if abs(value) >= 1e11 else f"{value:g}"
    return "" if value is None else str(value)


def through_excel(content: bytes) -> bytes:
    """Return a CSV file as Excel saves it after opening it."""
    assert content.startswith(b"\xef\xbb\xbf"), "Excel recognizes UTF-8 by the mark"
    workbook = openpyxl.Workbook()
    sheet = workbook.active
    assert sheet is not None
    rows = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""))
    for number, row in enumerate(rows, start=1):
        for column, cell in enumerate(row, start=1):
            target = sheet.cell(number, column, retyped(cell))
            if isinstance(target.value, str):
                target.data_type = "s"  # openpyxl would take text after = for a formula
    stored = io.BytesIO()
    workbook.save(stored)
    reopened = openpyxl.load_workbook(stored).active
    assert reopened is not None
    saved = io.StringIO()
    cells = [[displayed(_plain(cell)) for cell in row] for row in reopened.iter_rows(values_only=True)]
    csv.writer(saved, delimiter=";").writerows(cells)
    return saved.getvalue().encode("utf-8-sig")


def _plain(value: object) -> object:
    return value.date() if isinstance(value, datetime) else value


async def test_an_export_for_excel_survives_excel(
    database_url: str, another_url: str, client: httpx.AsyncClient, tmp_path: Path
) -> None:
    """An export with `--excel` that Excel has opened and saved imports the same patients, and a plain one does not."""
    await run_import(database_url, "-", stdin=ndjson(TRICKY_PATIENTS))
    before = (await client.get(PATIENTS)).json()
    exported, saved = tmp_path / "patients.csv", tmp_path / "saved.csv"
    assert (await run_cli_on(database_url, "export", "--excel", "--output", exported)).returncode == 0
    saved.write_bytes(through_excel(exported.read_bytes()))
    await run_import(another_url, saved)
    run = await run_cli_on(another_url, "export", "--format", "ndjson")
    (tmp_path / "again.ndjson").write_text(run.stdout)
    again = [httpx.Response(200, text=line).json() for line in run.stdout.splitlines()]
    assert again == before
    run = await run_import(database_url, saved)
    assert "0 created, 0 updated, 2 unchanged" in run.stdout


@pytest.mark.parametrize("cell", ["0699", "+27825550101", "1-2", "1/2", "12e4", "May 1", "(5)", "1980-01-02"])
def test_excel_would_change_the_cells_that_have_a_guard(cell: str) -> None:
    """The simulation changes each of these cells without a guard, and none with it."""
    assert displayed(retyped(cell)) != cell
    assert displayed(retyped(f"'{cell}")) == f"'{cell}"
