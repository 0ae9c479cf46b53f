"""Small files that would cost much: an import stops before the cost arises, says why, and stores nothing."""

import gzip
import io
from pathlib import Path

import asyncpg
import pytest

from app.transfer.layout import Layout
from app.transfer.reading import MAX_BLANK_LINES, Source, UnreadableFileError
from app.transfer.resources import RESOURCES
from tests.support import dump
from tests.transfer.support import command

MEGABYTE = 1024 * 1024
HEADER = b"patient_last_name,patient_first_name\n"
LAYOUT = Layout(RESOURCES["patients"].service.repository_class)

BLANK = "is one of more than 1,048,576 blank lines"
LONG = "is longer than 1 MiB"
FILES = {
    "blank lines": (b"\n" * (MAX_BLANK_LINES + 1), BLANK),
    "blank lines, packed": (gzip.compress(b"\n" * 16 * MEGABYTE), BLANK),
    "rows of nothing": (HEADER + b",\n" * (MAX_BLANK_LINES + 1), BLANK),
    "blank lines between records": (b'{"patient_last_name": "Doe"}\n' + b" \n" * (MAX_BLANK_LINES + 1), BLANK),
    "members of a gzip": (gzip.compress(b"") * 1000 + gzip.compress(b"x" * 64 * MEGABYTE), LONG),
    "packed twice": (gzip.compress(gzip.compress(b"\n" * MEGABYTE)), "is packed twice"),
    "a line without end": (b"a" * 2 * MEGABYTE, LONG),
    "a cell without end": (HEADER + b'"' + b"a\n" * MEGABYTE, "its quotation marks are wrong"),
    "a header without end": (b'"' + b"\n" * 2 * MEGABYTE, "quotation marks or line ends are wrong"),
    "columns by the million": (b"," * 2 * MEGABYTE, LONG),
    "one column many times": (b"patient_last_name," * 50_000 + b"\n", "twice"),
    "carriage returns alone": (b"patient_last_name\r" + b"a\r" * MEGABYTE, LONG),
    "NUL": (b"\0" * 2 * MEGABYTE, LONG),
}


@pytest.mark.parametrize("name", FILES)
def test_files_that_do_not_end(name: str) -> None:
    """What is read of them is bounded, in memory and in lines."""
    content, expected = FILES[name]
    source = Source(io.BytesIO(content), LAYOUT)
    with pytest.raises(UnreadableFileError, match=expected):
        assert len(list(source.lines())) < 2


async def test_as_many_blank_rows_as_a_worksheet_has(tmp_path: Path) -> None:
    """Spreadsheets save them; and they take no memory."""
    file = tmp_path / "patients.csv"
    file.write_bytes(HEADER + b"Doe,Ann\n" + b",\n" * MAX_BLANK_LINES)
    with file.open("rb", buffering=0) as opened:
        (line,) = Source(opened, LAYOUT).lines()
    assert line.record == {"patient_last_name": "Doe", "patient_first_name": "Ann"}


async def test_a_gzip_expands_within_bounds(database_url: str, connection: asyncpg.Connection, tmp_path: Path) -> None:
    """A bomb of identical records is 97 kB, and expands a thousandfold: nothing of it is stored."""
    before = await dump(connection)
    bomb = tmp_path / "patients.ndjson.gz"
    bomb.write_bytes(gzip.compress(b'{"patient_last_name": "Doe"}\n' + b"0\n" * 48 * MEGABYTE))
    for way in ((), ("--on-error", "skip")):
        run = await command(database_url, "import", bomb, *way)
        assert run.returncode == 1
        assert f"{bomb}: More than 100,000 lines are wrong: mend these first. Nothing was stored." in run.stderr
    bomb.write_bytes(gzip.compress(b'{"patient_last_name": "%s"}\n' % (b"a" * 1_000_000) * 100))
    run = await command(database_url, "import", bomb)
    expected = (
        "The file expands to more than 100 times its size. If that is right, unpack it first. Nothing was stored."
    )
    assert (run.returncode, f"{bomb}: {expected}" in run.stderr) == (1, True), run.stderr
    assert await dump(connection) == before


def test_what_honest_files_expand_to() -> None:
    """Documents with every field that is null, one after another, are far from the bound."""
    record = '{"unique_id": "pat%d", "patient_last_name": "Doe %d", ' + ", ".join(
        f'"{name}": null' for name in LAYOUT.columns[5:]
    )
    text = "".join(f"{record % (number, number)}}}\n" for number in range(50_000)).encode()
    packed = gzip.compress(text)
    assert len(text) > 20 * MEGABYTE
    assert sum(1 for _ in Source(io.BytesIO(packed), LAYOUT).lines()) == 50_000
