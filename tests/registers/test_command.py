"""The options of `patients-api import` for registers of other systems, as a person uses them."""

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import get_args

import httpx
import pytest

from app.error_types import FileErrorType
from app.fields.types import TIMESTAMP_FIELDS
from app.registers import cells
from app.registers.formats import DATE_FIELDS
from app.registers.synonyms import SYNONYMS, header_key
from app.registers.values import GENDER_WORDS
from app.transfer.layout import Layout
from app.transfer.resources import RESOURCES
from tests.doc_commands import REPOSITORY_ROOT
from tests.processes import run_cli
from tests.transfer.support import list_patients, run_cli_on, run_import

GUIDE = (REPOSITORY_ROOT / "docs" / "import-export.md").read_text()
REGISTER = "Surname;First name;DOB;Sohn;Notes\nDlamini;Thandi;31/01/1980;x;Roe secret\nBotha;Anika;01/02/1981;;\n"


def test_a_file_is_inspected_mapped_and_imported(database_url: str, tmp_path: Path) -> None:
    """`--inspect` says what the columns are taken for, and saves a mapping file with which the import succeeds."""
    file, mapping = tmp_path / "clinic.csv", tmp_path / "map.toml"
    file.write_text(REGISTER)
    inspected = run_cli("import", str(file), "--inspect", "--save", str(mapping))
    assert inspected.returncode == 0, inspected.stderr
    report = inspected.stdout
    assert "CSV, separated by a semicolon, in utf-8; 2 rows below the header, which is in line 1" in report
    assert re.search(r"^1 Surname +patient_last_name +2 +Dlamini · Botha$", report, re.MULTILINE)
    assert re.search(r"^3 DOB +patient_date_of_birth +2 +31/01/1980 · 01/02/1981\n +dates: dmy", report, re.MULTILINE)
    assert re.search(r"^5 Notes +NOT KNOWN +1 +Roe secret$", report, re.MULTILINE)
    saved = tomllib.loads(mapping.read_text())
    assert saved == {
        "Surname": "patient_last_name",
        "First name": "patient_first_name",
        "DOB": "patient_date_of_birth",
        "Sohn": False,
        "Notes": False,
    }
    again = run_cli("import", str(file), "--inspect", "--save", str(mapping))
    assert again.returncode == 1, "an edited file is not overwritten"
    run = run_cli("import", str(file), "--map", str(mapping), DATABASE_URL=database_url)
    assert "2 created" in run.stdout, run.stderr


def test_messages_name_columns_but_show_no_data(tmp_path: Path, database_url: str) -> None:
    """A message about a file shows headers, but never a cell."""
    file, ignore = tmp_path / "clinic.csv", ("--ignore", "Sohn", "--ignore", "notes")
    for content, arguments, message in (
        (REGISTER, (), "Column 4, Sohn, is not known"),
        (
            REGISTER.replace("31/01", "03/01"),
            ("--ignore", "Sohn", "--ignore", "notes"),
            "dates that may be read as dmy or mdy",
        ),
        (REGISTER.replace("x;Roe", '"x;Roe'), ignore, "Line 2 has a cell with wrong quotation marks"),
        ("Roe;Thandi;31/01/1980\nRoe;Anika;01/02/1981\n", (), "may contain a record"),
    ):
        file.write_text(content)
        run = run_cli("import", str(file), *arguments, DATABASE_URL=database_url)
        assert run.returncode == 1
        assert message in run.stderr
        assert "Nothing was stored" in run.stderr
        assert not re.search("Roe|Thandi|Dlamini|1980", run.stdout + run.stderr)


async def test_dates_in_a_pipe_need_their_format(database_url: str) -> None:
    """Standard input cannot be read twice to find the format of dates, so a person must say it."""
    content = "Surname,DOB\nDoe,31/01/1980\n"
    run = await run_cli_on(database_url, "import", "-", stdin=content)
    assert "standard input cannot be read twice to find their format: specify --date-format" in run.stderr
    run = await run_import(database_url, "-", "--date-format", "dmy", stdin=content)
    assert "1 created" in run.stdout


def test_an_import_creates_the_embedded_database(tmp_path: Path) -> None:
    """An import works on a machine on which nothing was ever served."""
    file = tmp_path / "clinic.csv"
    file.write_text("Surname\nDoe\n")
    data_directory = str(tmp_path / "data")
    run = run_cli("import", str(file), PATIENTS_DATA_DIR=data_directory)
    assert run.returncode == 0, run.stderr
    exported = run_cli("export", PATIENTS_DATA_DIR=data_directory)
    assert '"patient_last_name":"Doe"' in exported.stdout.replace(": ", ":")


@pytest.mark.parametrize("content", ["", "\n\n", "Surname,First name\n"], ids=["empty", "blank", "header"])
async def test_an_empty_file_is_no_success(content: str, database_url: str, tmp_path: Path) -> None:
    """A file without records says so, and the exit status is 1."""
    file = tmp_path / "clinic.csv"
    file.write_text(content)
    run = await run_cli_on(database_url, "import", file)
    assert run.returncode == 1
    assert run.stdout == f"{file}: the file has no records.\nNothing was stored.\n"


async def test_remarks_are_reported_and_stored(database_url: str, client: httpx.AsyncClient, tmp_path: Path) -> None:
    """What was left out is reported like an error, but the record is stored and the exit status is 0."""
    file, errors = tmp_path / "clinic.csv", tmp_path / "errors.csv"
    file.write_text("Surname,Cell,Email\nDoe,011 555 0101 x12,nobody\n")
    run = await run_import(database_url, file, "--drop-bad-values", "--errors", errors)
    assert "1 created, 0 updated, 0 unchanged, 0 rejected" in run.stdout
    assert "2 remarks on lines that are not rejected" in run.stdout
    assert "line 2: patient_email_address: Left out: Must be an e-mail address such as name@example.com" in run.stderr
    assert "extension_left_out" in errors.read_text()
    (patient,) = await list_patients(client)
    assert (patient["patient_mobile_number"], patient["patient_email_address"]) == ("011 555 0101", None)


async def test_options_that_contradict_the_file_are_explained(database_url: str, tmp_path: Path) -> None:
    """An option that cannot apply is explained."""
    file = tmp_path / "clinic.csv"
    file.write_text("Surname\nDoe\n")
    (tmp_path / "patients.ndjson").write_text('{"patient_last_name": "Doe"}\n')
    (tmp_path / "bad.toml").write_text("Surname = [")
    for arguments, message in (
        ((file, "--sheet", "Old"), "The file is no Excel workbook"),
        ((file, "--encoding", "klingon"), "There is no encoding klingon"),
        ((file, "--date-format", "ydm"), "--date-format must be dmy, mdy, ymd, excel"),
        ((file, "--map", tmp_path / "bad.toml"), "The mapping file is not TOML"),
        ((file, "--map", tmp_path / "none.toml"), "none.toml cannot be read: No such file or directory"),
        ((file, "--save", tmp_path / "x.toml"), "Only --inspect writes a mapping file"),
        ((file, "--ignore", "Surname"), "All columns are left out"),
        ((tmp_path / "patients.ndjson", "--null", "x"), "whose keys are the API's: omit the options for tables"),
        ((tmp_path / "patients.ndjson", "--inspect"), "It has no columns to inspect"),
    ):
        run = await run_cli_on(database_url, "import", *arguments)
        assert run.returncode == 1, arguments
        assert message in run.stderr, arguments


def documented_table(heading: str) -> Mapping[str, list[str]]:
    """Return the rows of the table of the guide whose header begins with `heading`: the first cell, and the words."""
    (_, table) = GUIDE.split(f"| {heading} |")
    rows = [line.strip("|").split("|") for line in table.split("\n\n")[0].splitlines()[2:]]
    return {row[0].strip(" `"): [word.strip() for word in row[1].split(",")] for row in rows}


def test_synonyms_are_documented() -> None:
    """The guide lists exactly the names of columns and the words for genders that an import knows."""
    assert documented_table("field") == {name: list(words) for name, words in SYNONYMS["patients"].items()}
    assert documented_table("gender") == {name: list(words) for name, words in GENDER_WORDS.items()}


def test_types_of_errors_are_documented() -> None:
    """The guide lists exactly the types of errors that only imports have."""
    (_, table) = GUIDE.split("| `type` of an import |")
    cells_with_types = [line.split("|")[1] for line in table.split("\n\n")[0].splitlines()[2:]]
    assert {name for cell in cells_with_types for name in re.findall("`(.*?)`", cell)} == set(get_args(FileErrorType))


@pytest.mark.parametrize("resource", SYNONYMS)
def test_synonyms_name_columns_of_the_api(resource: str) -> None:
    """Each synonym stands for one column, and no synonym is the name of another column."""
    columns = Layout(RESOURCES[resource].service_class.repository_class).readable_columns
    assert set(SYNONYMS[resource]) <= set(columns)
    keys = [header_key(word) for words in SYNONYMS[resource].values() for word in words]
    assert len(keys) == len(set(keys))
    own_names = {header_key(column): column for column in columns}
    for name, words in SYNONYMS[resource].items():
        assert {own_names.get(header_key(word), name) for word in words} == {name}


def test_fields_with_formats_exist() -> None:
    """The fields whose texts are read in a special way are columns of the API."""
    layouts = [Layout(resource.service_class.repository_class) for resource in RESOURCES.values()]
    columns = {column for layout in layouts for column in layout.columns}
    named = {*DATE_FIELDS, *TIMESTAMP_FIELDS, *cells.PHONE_FIELDS, *cells.GENDER_FIELDS, *cells.DEGREES_FIELDS}
    assert named | {*cells.EMAIL_FIELDS, *cells.LINK_FIELDS} <= columns
