"""Small files that would be costly: an import stops before the cost arises, says why, and stores nothing."""

import gzip
import io
import zipfile
from pathlib import Path

import asyncpg
import pytest

from app.table_files.errors import UnreadableFileError
from app.table_files.lines import MAX_BLANK_LINES
from app.transfer.layout import Layout
from app.transfer.reading import RecordFile
from app.transfer.resources import RESOURCES
from tests.support import dump_tables
from tests.transfer.support import run_cli_on

MEGABYTE = 1024 * 1024
CSV_HEADER = b"patient_last_name,patient_first_name\n"
LAYOUT = Layout(RESOURCES["patients"].service_class.repository_class)

BLANK_LINES_ERROR = "is one of more than 1,048,576 blank lines"
LONG_LINE_ERROR = "is longer than 1 MiB"
ENDLESS_FILES = {
    "blank lines": (b"\n" * (MAX_BLANK_LINES + 1), BLANK_LINES_ERROR),
    "blank lines, gzipped": (gzip.compress(b"\n" * 16 * MEGABYTE), BLANK_LINES_ERROR),
    "blank rows": (CSV_HEADER + b",\n" * (MAX_BLANK_LINES + 1), BLANK_LINES_ERROR),
    "blank lines between records": (
        b'{"patient_last_name": "Doe"}\n' + b" \n" * (MAX_BLANK_LINES + 1),
        BLANK_LINES_ERROR,
    ),
    "members of a gzip": (gzip.compress(b"") * 1000 + gzip.compress(b"x" * 64 * MEGABYTE), LONG_LINE_ERROR),
    "gzipped twice": (gzip.compress(gzip.compress(b"\n" * MEGABYTE)), "is compressed twice"),
    "a line without end": (b"a" * 2 * MEGABYTE, LONG_LINE_ERROR),
    "a cell without end": (CSV_HEADER + b'"' + b"a\n" * MEGABYTE, "opens there and is never closed"),
    "a header without end": (b'"' + b"\n" * 2 * MEGABYTE, "wrong quotation marks"),
    "columns by the million": (b"," * 2 * MEGABYTE, LONG_LINE_ERROR),
    "one column many times": (
        b"patient_last_name," * 50_000 + b"\n",
        "is in column 1 already.*of 49,[0-9]+ more columns",
    ),
    "carriage returns alone": (b"\r" * (MAX_BLANK_LINES + 1) + b"a", BLANK_LINES_ERROR),
    "NUL": (b"\0" * 2 * MEGABYTE, LONG_LINE_ERROR),
}


@pytest.mark.parametrize("name", ENDLESS_FILES)
def test_endless_files_are_read_only_up_to_a_limit(name: str) -> None:
    """Reading a pathological file stops within limits for memory and lines."""
    content, expected = ENDLESS_FILES[name]
    source = RecordFile(io.BytesIO(content), LAYOUT)
    with pytest.raises(UnreadableFileError, match=expected):
        assert len(list(source.lines())) < 2


async def test_blank_rows_of_a_full_worksheet_are_accepted(tmp_path: Path) -> None:
    """Blank rows, which spreadsheets save, are accepted, because they take no memory."""
    file = tmp_path / "patients.csv"
    file.write_bytes(CSV_HEADER + b"Doe,Ann\n" + b",\n" * MAX_BLANK_LINES)
    with file.open("rb", buffering=0) as opened:
        (line,) = RecordFile(opened, LAYOUT).lines()
    assert line.record == {"patient_last_name": "Doe", "patient_first_name": "Ann"}


async def test_a_gzip_bomb_is_refused_and_stores_nothing(
    database_url: str, connection: asyncpg.Connection, tmp_path: Path
) -> None:
    """A small file that expands a thousandfold is refused, and nothing of it is stored."""
    before = await dump_tables(connection)
    bomb = tmp_path / "patients.ndjson.gz"
    bomb.write_bytes(gzip.compress(b'{"patient_last_name": "Doe"}\n' + b"0\n" * 48 * MEGABYTE))
    for options in ((), ("--on-error", "skip")):
        run = await run_cli_on(database_url, "import", bomb, *options)
        assert run.returncode == 1
        assert f"{bomb}: More than 100,000 lines were rejected: correct them first. Nothing was stored." in run.stderr
    bomb.write_bytes(gzip.compress(b'{"patient_last_name": "%s"}\n' % (b"a" * 1_000_000) * 100))
    run = await run_cli_on(database_url, "import", bomb)
    expected = (
        "The file expands to more than 100 times its size. If you expect that, decompress it first. Nothing was stored."
    )
    assert (run.returncode, f"{bomb}: {expected}" in run.stderr) == (1, True), run.stderr
    workbook = tmp_path / "patients.xlsx"
    with zipfile.ZipFile(workbook, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/worksheets/sheet1.xml", bytes(40 * MEGABYTE))
    run = await run_cli_on(database_url, "import", workbook)
    assert "If you expect that, save it as CSV. Nothing was stored." in run.stderr
    assert await dump_tables(connection) == before


def test_ordinary_files_stay_below_the_expansion_limit() -> None:
    """Documents with null in every field compress well but stay below the limit."""
    record = '{"unique_id": "pat%d", "patient_last_name": "Doe %d", ' + ", ".join(
        f'"{name}": null' for name in LAYOUT.columns[5:]
    )
    text = "".join(f"{record % (number, number)}}}\n" for number in range(50_000)).encode()
    packed = gzip.compress(text)
    assert len(text) > 20 * MEGABYTE
    assert sum(1 for _ in RecordFile(io.BytesIO(packed), LAYOUT).lines()) == 50_000
