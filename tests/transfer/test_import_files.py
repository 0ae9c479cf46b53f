"""File formats that an import reads, and its messages for files that it cannot read."""

import gzip
import io
import zipfile
from pathlib import Path

import asyncpg
import httpx
import pytest

from tests.support import dump_tables
from tests.transfer.support import (
    SAMPLES_DIRECTORY,
    get_patient,
    list_patients,
    ndjson,
    patient_bodies,
    run_cli_on,
    run_import,
)

pytestmark = pytest.mark.usefixtures("hospitals_and_doctors")

EXPECTED_CELLS = {
    "unique_id": ("a", "b"),
    "patient_first_name": ("Zoë", 'Ann "Nan"'),
    "patient_physical_address": ("4 Main Road, Durban", "Line one\nLine two; more"),
    "hospital_ids": ("hos123|hos456", ""),
    "patient_profile.unique_id": ("prof1", ""),
    "patient_profile.email": ("zoe@example.com", ""),
}


def csv_table(separator: str, *, ends: str = "\n", order: int = 1) -> str:
    """Return the rows as a spreadsheet saves them."""
    columns = list(EXPECTED_CELLS.items())[::order]
    rows = [[name for name, _ in columns], *([cells[place] for _, cells in columns] for place in (0, 1))]
    return "".join(
        separator.join('"' + cell.replace('"', '""') + '"' if set(cell) & set(',;\n"') else cell for cell in row) + ends
        for row in rows
    )


ONE_LINE_TABLE = csv_table(",").replace("Line one\n", "Line one ")
READABLE_FILES = {
    "comma": csv_table(",").encode(),
    "semicolon": csv_table(";").encode(),
    "tab": csv_table("\t").encode(),
    "other order": csv_table(",", order=-1).encode(),
    "Excel": b"\xef\xbb\xbf" + csv_table(";", ends="\r\n").encode(),
    "Excel, naming its separator": b"sep=;\r\n" + csv_table(";", ends="\r\n").encode(),
    "blank lines first": b"\n \n" + csv_table(",").encode(),
    "blank columns": "".join(f"{line},,\n" for line in ONE_LINE_TABLE.splitlines()).encode(),
    "blank rows": csv_table(",").encode() + b",,,,,\n\n , ,,,,\n",
    "no last line end": csv_table(",").rstrip("\n").encode(),
    "gzip": gzip.compress(csv_table(",").encode()),
    "UTF-16, as Excel's Unicode text": csv_table("\t").encode("utf-16"),
    "UTF-16, gzip": gzip.compress(csv_table(",").encode("utf-16")),
    "carriage returns": csv_table(",", ends="\r").replace("Line one\n", "Line one ").encode(),
    "ndjson": ndjson(
        [
            {
                "unique_id": "a",
                "patient_first_name": "Zoë",
                "patient_physical_address": "4 Main Road, Durban",
                "patient_hospital": [
                    {"unique_id": "hos123", "hospital_name": "any"},
                    {"unique_id": "hos456", "hospital_name": "any"},
                ],
                "patient_profile": {"unique_id": "prof1", "email": "zoe@example.com"},
            },
            {
                "unique_id": "b",
                "patient_first_name": 'Ann "Nan"',
                "patient_physical_address": "Line one\nLine two; more",
            },
        ]
    ).encode(),
}
READABLE_FILES |= {"ndjson, blank lines": b"\n\n" + READABLE_FILES["ndjson"] + b"\n"}
READABLE_FILES |= {"ndjson, gzip, byte order mark": gzip.compress(b"\xef\xbb\xbf" + READABLE_FILES["ndjson"] + b"\n")}


@pytest.mark.parametrize("name", READABLE_FILES)
async def test_every_file_format_imports_the_same_patients(
    name: str, database_url: str, client: httpx.AsyncClient, tmp_path: Path
) -> None:
    """The same two patients are imported from every supported file format."""
    file = tmp_path / "any.name"
    file.write_bytes(READABLE_FILES[name])
    run = await run_import(database_url, file)
    assert f"{file}: 2 records: 2 created, 0 updated, 0 unchanged, 0 rejected\nStored.\n" in run.stdout
    a, b = await get_patient(client, "a"), await get_patient(client, "b")
    assert a["patient_first_name"] == "Zoë"
    assert a["patient_physical_address"] == "4 Main Road, Durban"
    assert [hospital["unique_id"] for hospital in a["patient_hospital"]] == ["hos123", "hos456"]
    assert a["patient_profile"]["email"] == "zoe@example.com"
    assert b["patient_first_name"] == 'Ann "Nan"'
    assert b["patient_physical_address"] in {"Line one\nLine two; more", "Line one Line two; more"}
    assert b["patient_hospital"] == []
    assert b["patient_profile"] is None


async def test_import_reads_standard_input(database_url: str, client: httpx.AsyncClient) -> None:
    """An import reads standard input, which cannot be read a second time."""
    run = await run_import(database_url, "-", stdin=ndjson(patient_bodies(3000)))
    assert "3,000 created" in run.stdout
    assert len(await list_patients(client)) == 3000


async def test_documented_samples_can_be_imported(database_url: str, client: httpx.AsyncClient) -> None:
    """The documented samples can be imported, also where their hospitals and doctors already exist."""
    for name in ("hospitals", "doctors"):
        await run_import(database_url, SAMPLES_DIRECTORY / f"{name}.csv", "--update")
    run = await run_import(database_url, SAMPLES_DIRECTORY / "patients.csv")
    assert "3 created" in run.stdout
    o_brien = await get_patient(client, "reg-0002")
    assert o_brien["patient_last_name"] == "O'Brien, née Smith"
    assert o_brien["patient_physical_address"] == '4 "The Oaks"\nMain Road'
    assert o_brien["date_created"] == "2021-03-05T00:00:00Z"


async def test_resource_is_taken_from_file_name_or_option(
    database_url: str, client: httpx.AsyncClient, tmp_path: Path
) -> None:
    """The resource is taken from the file name, or from `--resource`."""
    (tmp_path / "doctors.csv").write_text("doctor_first_name,unique_id\nAnn,doc1\n")
    (tmp_path / "accounts.csv").write_text("unique_id,email\nprof1,ann@example.com\n")
    await run_import(database_url, tmp_path / "doctors.csv")
    await run_import(database_url, tmp_path / "accounts.csv", "--resource", "profiles")
    assert (await client.get("/doctors/doctors/doc1/")).json()["doctor_first_name"] == "Ann"
    assert (await client.get("/profiles/profiles/prof1/")).json()["email"] == "ann@example.com"


GZIPPED_FILE = gzip.compress(ndjson(patient_bodies(3000)).encode())
DAMAGED_GZIP_FILE = GZIPPED_FILE[:2000] + bytes(byte ^ 255 for byte in GZIPPED_FILE[2000:2008]) + GZIPPED_FILE[2008:]
NO_HEADER_MESSAGE = "Line 1 must name the columns, but may contain a record. Insert a line with their names above it"


def zip_archive(*names: str) -> bytes:
    """Return a ZIP archive with empty members of these names."""
    with io.BytesIO() as file:
        with zipfile.ZipFile(file, "w") as archive:
            for name in names:
                archive.writestr(name, "")
        return file.getvalue()


UNREADABLE_FILES = {
    "a ZIP archive": (zip_archive("patients.csv"), "is a ZIP archive. Unpack it, and import the files in it."),
    "an OpenDocument file": (zip_archive("mimetype", "content.xml"), "Save it as an Excel workbook (.xlsx) or as CSV."),
    "Latin-1 columns": ("unique_id,Straße\na,Doe\n".encode("latin-1"), "Line 1 is not in UTF-8"),
    "an array": (b'[{"unique_id": "a", "patient_last_name": "Doe"}]', "The file is one JSON array"),
    "no header": (b"a,Doe\nb,Roe\n", NO_HEADER_MESSAGE),
    "no header, and an id that is a column's": (
        b"unique_id,Roe,Jo\n",
        NO_HEADER_MESSAGE,
    ),
    "a workbook": (
        b"PK\x03\x04\x14\x00Roe",
        "readable Excel workbook (.xlsx): it may be damaged or protected by a password. Nothing was stored.",
    ),
    "no header, personal": (b"Doe Roe,a\n", NO_HEADER_MESSAGE),
    "mistyped": (
        b"unique_id,patient_lastnome\na,Doe\n",
        "Column 2, patient_lastnome, is not known (did you mean patient_last_name?). Map them with --map",
    ),
    "unknown": (
        b"unique_id,zzz\na,Doe\n",
        "Column 2, zzz, is not known. Map them with --map (the first line of a CSV export",
    ),
    "twice": (
        b"unique_id,patient_last_name,unique_id\na,Doe,b\n",
        "Column 3, unique_id, is not known (unique_id is in column 1 already)",
    ),
    "quotes": (b'unique_id,patient_last_name\na,"Doe" or so\n', "Line 2 has a cell with wrong quotation marks"),
    "open quotes": (
        b'unique_id,patient_last_name\na,"Doe\nb,Roe\n',
        "Line 2 has a cell with wrong quotation marks: one opens there and is never closed. Nothing was stored.",
    ),
    "a long line": (b'{"unique_id": "a", "patient_town": "' + b"x" * 1_100_000, "Line 1 is longer than 1 MiB"),
    "a row without end": (
        b"unique_id,patient_last_name\n" + b'"Doe\n",' * 200_000,
        "Line 2 has a cell with wrong quotation marks",
    ),
    "damaged": (DAMAGED_GZIP_FILE, "the file is damaged or cut off"),
    "cut off": (gzip.compress(ndjson(patient_bodies(3000)).encode())[:-300], "the file is damaged or cut off"),
}


@pytest.mark.parametrize("name", UNREADABLE_FILES)
async def test_unreadable_files_are_explained_and_store_nothing(
    name: str, database_url: str, connection: asyncpg.Connection, tmp_path: Path
) -> None:
    """The message says where the problem is and what to do, and nothing is stored, whatever preceded it."""
    content, message = UNREADABLE_FILES[name]
    file = tmp_path / "patients.csv"
    file.write_bytes(content)
    before = await dump_tables(connection)
    run = await run_cli_on(database_url, "import", file, "--on-error", "skip")
    assert run.returncode == 1
    assert message in run.stderr
    assert "Traceback" not in run.stderr
    assert "Roe" not in run.stderr
    assert await dump_tables(connection) == before


async def test_invalid_json_lines_are_reported_with_their_number(database_url: str) -> None:
    """An error in a JSON line has only the line number of the file."""
    run = await run_cli_on(database_url, "import", "-", stdin=f'{ndjson(patient_bodies(1))}\n{{"a":\n{{a\n')
    assert run.stderr.splitlines() == [
        "-: line 3: The line is not valid JSON: Expecting value at column 6",
        "-: line 4: The line is not valid JSON: Expecting property name enclosed in double quotes at column 2",
    ]


async def test_missing_files_are_explained(database_url: str, tmp_path: Path) -> None:
    """A missing input file, or an errors file that cannot be written, is named."""
    missing = await run_cli_on(database_url, "import", tmp_path / "none.csv")
    assert missing.returncode == 1
    assert missing.stderr == f"{tmp_path}/none.csv cannot be read: there is no such file.\n"
    (tmp_path / "patients.csv").write_text("unique_id\n")
    errors = tmp_path / "no" / "e.csv"
    nowhere = await run_cli_on(database_url, "import", tmp_path / "patients.csv", "--errors", errors)
    assert nowhere.returncode == 1
    assert nowhere.stderr == f"{errors} cannot be written: No such file or directory. Nothing was stored.\n"
    input_ = tmp_path / "patients.csv"
    itself = await run_cli_on(database_url, "import", input_, "--errors", input_)
    assert itself.returncode == 1
    assert "write the errors to another file" in itself.stderr
    assert input_.read_text() == "unique_id\n"


async def test_nothing_is_stored_if_errors_cannot_be_written(database_url: str, connection: asyncpg.Connection) -> None:
    """If the errors cannot be written nothing is stored, because the user would not learn of them."""
    lines = ndjson([*patient_bodies(3), {"patient_last_name": 7}])
    run = await run_cli_on(database_url, "import", "-", "--on-error", "skip", "--errors", "/dev/full", stdin=lines)
    assert run.returncode == 1
    assert "cannot be written: No space left on device. Nothing was stored." in run.stderr
    assert await connection.fetchval("SELECT count(*) FROM patients") == 0


async def test_other_files_in_a_directory_are_ignored(
    database_url: str, client: httpx.AsyncClient, tmp_path: Path
) -> None:
    """Files that a killed export or an editor left in a directory are ignored."""
    (tmp_path / "patients.ndjson").write_text(ndjson(patient_bodies(2)))
    for name in (".patients.ndjson.x1", "patients.ndjson.part", "patients.csv.bak", "patients.csv~"):
        (tmp_path / name).write_text(ndjson([{"unique_id": "other", "patient_last_name": "Doe"}]))
    run = await run_import(database_url, tmp_path)
    assert run.stdout.count(" records") == 1
    assert len(await list_patients(client)) == 2


async def test_lines_that_are_not_utf_8_are_reported(
    database_url: str, client: httpx.AsyncClient, tmp_path: Path
) -> None:
    """A line that is not UTF-8 is reported as an invalid line, and so is a cell that is too long."""
    file = tmp_path / "patients.csv"
    rows = ["unique_id,patient_last_name", "a,Doe", "b,Zoë", f"c,{'x' * 200_000}", "d,Roe"]
    file.write_bytes("".join(f"{row}\n" for row in rows).encode("latin-1"))
    run = await run_cli_on(database_url, "import", file, "--on-error", "skip")
    assert f"{file}: line 3: patient_last_name: Is not in UTF-8." in run.stderr
    assert f"{file}: line 4: patient_last_name: Must have at most 150 characters" in run.stderr
    assert {one["unique_id"] for one in await list_patients(client)} == {"a", "d"}
