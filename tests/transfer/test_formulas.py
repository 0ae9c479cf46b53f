"""Cells of CSV files that a spreadsheet would run as formulas."""

import csv
from pathlib import Path

import httpx
from hypothesis import given
from hypothesis import strategies as st

from app.table_files.formulas import escape_cell, escape_cell_for_excel, unescape_cell
from tests.transfer.support import PATIENTS, get_patient, ndjson, run_cli_on, run_import

FORMULAS = [
    "=1+1",
    "+1+1",
    "-1-1=2",
    "@SUM(A1)",
    "'=1",
    "''=1+cmd|' /C calc'!A0",
    "＝1+1",
    "-cmd|'x'!A0",
    "'-x",
    "+a",
    "'+27821234567",
    "'0699",
]
HARMLESS = [
    "O'Brien",
    "'t Hooft",
    "''",
    "'",
    "-",
    "+27 (82) 123-45.67",
    "a=b",
    "-25.746111",
    "Anne-Marie",
]


async def test_no_cell_is_a_formula(
    database_url: str, another_url: str, client: httpx.AsyncClient, tmp_path: Path
) -> None:
    """Text that would run as a formula has an apostrophe before it in the file, but not in an imported record."""
    texts = {f"pat{number}": text for number, text in enumerate(FORMULAS + HARMLESS)}
    for unique_id, text in texts.items():
        body = {"unique_id": unique_id, "patient_last_name": "Doe", "patient_physical_address": text}
        assert (await client.post(PATIENTS, json=body)).status_code == 201
    first, second = tmp_path / "patients.csv", tmp_path / "again.csv"
    assert (await run_cli_on(database_url, "export", "--output", first)).returncode == 0
    with first.open(newline="") as file:
        cells = {row["unique_id"]: row["patient_physical_address"] for row in csv.DictReader(file)}
    for unique_id, text in texts.items():
        assert cells[unique_id] == (f"'{text}" if text in FORMULAS else text)
    await run_import(another_url, first)
    assert (await run_cli_on(another_url, "export", "--output", second)).returncode == 0
    assert second.read_bytes() == first.read_bytes()
    await run_import(
        database_url, "-", "--update", stdin=ndjson([{"unique_id": "pat0", "patient_physical_address": "'=1"}])
    )
    assert (await get_patient(client, "pat0"))["patient_physical_address"] == "'=1", "NDJSON is not unescaped"


@given(st.text(alphabet="'=+-@\t\r\n1 a.(＝", max_size=8) | st.text(max_size=20))
def test_guarded_text_is_restored_exactly(text: str) -> None:
    """Escaping is reversible, and no escaped cell begins with a character that would start a formula."""
    for escape in (escape_cell, escape_cell_for_excel):
        assert unescape_cell(escape(text)) == text
    cell = escape_cell(text)
    assert cell[:1] not in set("=@\t\r\n＝＋－＠")
    assert cell[:1] not in set("+-") or set(cell) <= set("+-0123456789 ().")
