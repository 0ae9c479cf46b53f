"""Registers of a thousand fictitious patients in the layouts of other systems."""

import csv
import io
import random
from collections.abc import Callable, Iterator, Mapping
from datetime import date, timedelta
from pathlib import Path
from typing import NamedTuple

from openpyxl import Workbook

ROW_COUNT = 1000
FIRST_NAMES = ("Thandi", "Zoë", "Johan", "Anika", "Sipho", "Lerato", "Jürgen", "Fatima", "Pieter", "Nomvula")
LAST_NAMES = ("Dlamini", "van der Merwe", "Botha", "Nkosi", "O'Brien", "Müller", "du Plessis", "Naidoo", "Mokoena")
TOWNS = (("Paarl", "7646"), ("Durban", "4001"), ("Polokwane", "0699"), ("Cape Town", "8001"))
SIMULATED_COLUMNS = (
    *("Id", "BIRTHDATE", "DEATHDATE", "SSN", "PREFIX", "FIRST", "MIDDLE", "LAST", "MAIDEN", "MARITAL", "RACE"),
    *("ETHNICITY", "GENDER", "BIRTHPLACE", "ADDRESS", "CITY", "STATE", "COUNTY", "ZIP", "LAT", "LON"),
    *("HEALTHCARE_EXPENSES", "INCOME"),
)


class Person(NamedTuple):
    """A fictitious person."""

    number: int
    first_name: str
    last_name: str
    birth_date: date
    gender: str
    town: str
    postal_code: str
    phone: str


def people() -> Iterator[Person]:
    """Yield the same thousand people each time."""
    chance = random.Random(24)  # noqa: S311  # not a secret
    for number in range(1, ROW_COUNT + 1):
        town, postal_code = chance.choice(TOWNS)
        yield Person(
            number,
            chance.choice(FIRST_NAMES),
            chance.choice(LAST_NAMES),
            date(1930, 1, 1) + timedelta(days=chance.randrange(33_000)),
            chance.choice(("Male", "Female")),
            town,
            postal_code,
            f"082 555 {number % 10_000:04d}",
        )


def write_simulated_patients(file: Path) -> Mapping[str, object]:
    """Write patients as a simulator of health records does, after Excel in the United States has saved them.

    Return what is expected of the first patient.
    """
    rows = []
    for one in people():
        row = dict.fromkeys(SIMULATED_COLUMNS, "")
        row["Id"] = f"b9c610cd-28a6-4636-ccb6-{one.number:012x}"
        row["BIRTHDATE"] = f"{one.birth_date.month}/{one.birth_date.day}/{one.birth_date.year}"
        row["SSN"], row["PREFIX"] = f"999-{one.number:06}", "Mr." if one.gender == "Male" else "Ms."
        row["FIRST"], row["MIDDLE"], row["LAST"] = one.first_name, "A.", one.last_name
        row["MARITAL"], row["RACE"], row["ETHNICITY"], row["GENDER"] = "M", "white", "nonhispanic", one.gender[0]
        row["ADDRESS"], row["CITY"], row["STATE"] = f"{one.number} Main St", one.town, "Massachusetts"
        row["COUNTY"], row["ZIP"], row["LAT"], row["LON"] = "Suffolk County", one.postal_code, "42.3605", "-71.0602"
        row["HEALTHCARE_EXPENSES"], row["INCOME"] = "1234.56", "50000"
        rows.append(row)
    _write_csv(file, rows, ",", "utf-8-sig")
    first = next(people())
    return {
        "unique_id": "b9c610cd-28a6-4636-ccb6-000000000001",
        "patient_first_name": first.first_name,
        "patient_last_name": first.last_name,
        "patient_date_of_birth": first.birth_date.isoformat(),
        "patient_latitude": "42.360500",
    }


def write_hospital_patients(file: Path) -> Mapping[str, object]:
    """Write patients as the system of a South African hospital exports them, with full names and names of clinics."""
    rows = []
    for one in people():
        phone = one.phone.replace(" ", "\xa0") if one.number % 2 else "onbekend"
        # 1927 would be written 27, too
        born = f"{one.birth_date:%d/%m/%y}" if one.birth_date.year > 1935 else ""
        row = {
            "Lêernommer": f"{one.number}",
            "Pasiënt": f"{one.last_name}, {one.first_name}",
            "Geb. datum": born,
            "Geslag": {"Male": "Manlik", "Female": "Vroulik"}[one.gender],
            "Selfoon": phone,
            "Adres": f"Hoofstraat {one.number}",
            "Dorp": one.town,
            "Poskode": one.postal_code,
            "Kliniek": ("Kliniek Noord", "Berg-kliniek", "")[one.number % 3],
            "Nota": "geen" if one.number % 5 else "allergies",
        }
        rows.append(row)
    _write_csv(file, rows, ";", "cp1252")
    file.with_suffix(".toml").write_text(
        '"Pasiënt" = "patient_last_name, patient_first_name"\n"Nota" = false\n', encoding="utf-8"
    )
    first = next(people())
    return {
        "unique_id": "noord-1",
        "patient_first_name": first.first_name,
        "patient_last_name": first.last_name,
        "patient_date_of_birth": first.birth_date.isoformat(),
        "patient_hospital": ["Berg-kliniek"],
        "patient_mobile_number": first.phone,
    }


def write_pharmacy_customers(file: Path) -> Mapping[str, object]:
    """Write customers as a pharmacy keeps them in a workbook, with dates, numbers and blank rows."""
    workbook = Workbook()
    sheet = workbook.active
    assert sheet is not None
    sheet.append([])
    sheet.append(["Account No", "Surname", "First Names", "D.O.B.", "Sex", "Cell No", "E-Mail", "Suburb", "Post Code"])
    sheet.cell(2, 10, "Scripts")
    for one in people():
        email = f"c{one.number}@example.com" if one.number % 4 else "N/A"
        row = [
            f"K{one.number:05}",
            one.last_name,
            one.first_name,
            one.birth_date,
            one.gender[0],
            one.phone,
            email,
            one.town,
        ]
        sheet.append([*row, int(one.postal_code), one.number % 7])
        sheet.cell(sheet.max_row, 9).number_format = "0000"
    workbook.save(file)
    file.with_suffix(".toml").write_text('"Account No" = "unique_id"\nScripts = false\n', encoding="utf-8")
    first = next(people())
    return {
        "unique_id": "K00001",
        "patient_last_name": first.last_name,
        "patient_date_of_birth": first.birth_date.isoformat(),
        "patient_postal_code": first.postal_code,
        "patient_email_address": "c1@example.com",
    }


def write_medical_records(file: Path) -> Mapping[str, object]:
    """Write patients as an open system of medical records exports them, with timestamps as dates of birth."""
    rows = [
        {
            "Identifier": f"{one.number:06}-K",
            "Given Name": one.first_name,
            "Middle Name": "",
            "Family Name": one.last_name,
            "Gender": one.gender[0],
            "Birthdate": f"{one.birth_date.isoformat()} 00:00:00.0",
            "Birthdate Estimated": "false",
            "Address1": f"{one.number} Main Road",
            "City/Village": one.town,
            "State/Province": "",
            "Country": "South Africa",
            "Postal Code": one.postal_code,
            "Telephone Number": one.phone if one.number % 3 else "NULL",
            "Date Created": "2020-01-02 10:11:12.0",
        }
        for one in people()
    ]
    _write_csv(file, rows, ",", "utf-8")
    first = next(people())
    return {
        "unique_id": "000001-K",
        "patient_last_name": first.last_name,
        "patient_date_of_birth": first.birth_date.isoformat(),
        "patient_address_line_1": "1 Main Road",
        "patient_town": first.town,
        "date_created": "2020-01-02T10:11:12Z",
    }


def write_practice_patients(file: Path) -> Mapping[str, object]:
    """Write patients as the program of an Afrikaans practice exports them, with a title above the header."""
    rows = [
        {
            "Lêer Nr": f"A{one.number}",
            "Naam": f"{'Mnr' if one.gender == 'Male' else 'Mev.'} {one.first_name} {one.last_name}",
            "Geb. Datum": f"{one.birth_date:%Y/%m/%d}",
            "Geslag": one.gender[0].replace("F", "V"),
            "ID-nommer": "",
            "Selfoon Nr": one.phone.replace(" ", "-"),
            "E-pos": "geen" if one.number % 2 else f"a{one.number}@example.com",
            "Stad": one.town,
            "Poskode": one.postal_code,
            "Dokter": "",
            "Saldo": f"R {one.number},50",
        }
        for one in people()
    ]
    _write_csv(file, rows, ";", "cp1252")
    title = "Pasiënte van Dr. Nkosi\r\nGedruk op 2024/05/01\r\n\r\n"
    file.write_bytes(title.encode("cp1252") + file.read_bytes())
    file.with_suffix(".toml").write_text(
        'Naam = "patient_first_name, patient_last_name"\n"ID-nommer" = false\nSaldo = false\n', encoding="utf-8"
    )
    first = next(people())
    return {
        "unique_id": "A1",
        "patient_title": "Mnr" if first.gender == "Male" else "Mev.",
        "patient_first_name": first.first_name,
        "patient_last_name": first.last_name,
        "patient_date_of_birth": first.birth_date.isoformat(),
        "patient_gender": first.gender,
    }


def _write_csv(file: Path, rows: list[dict[str, str]], separator: str, encoding: str) -> None:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, rows[0], delimiter=separator)
    writer.writeheader()
    writer.writerows(rows)
    file.write_bytes(buffer.getvalue().encode(encoding))


class Layout(NamedTuple):
    """A layout of another system."""

    file_name: str
    write: Callable[[Path], Mapping[str, object]]
    options: tuple[str, ...]
    """The options of the command. `MAP` stands for the mapping file beside the file."""


LAYOUTS = {
    "a simulator, saved by Excel": Layout(
        "simulated.csv",
        write_simulated_patients,
        (
            *(
                "--ignore",
                "DEATHDATE",
                "--ignore",
                "SSN",
                "--ignore",
                "MIDDLE",
                "--ignore",
                "MAIDEN",
                "--ignore",
                "MARITAL",
            ),
            *("--ignore", "ETHNICITY", "--ignore", "BIRTHPLACE", "--ignore", "COUNTY"),
            *("--ignore", "HEALTHCARE_EXPENSES", "--ignore", "INCOME"),
        ),
    ),
    "a hospital": Layout(
        "hospital.csv",
        write_hospital_patients,
        ("--map", "MAP", "--encoding", "cp1252", "--create-hospitals", "--id-prefix", "noord-", "--drop-bad-values"),
    ),
    "a system of medical records": Layout(
        "records.csv", write_medical_records, ("--ignore", "Middle Name", "--ignore", "Birthdate Estimated")
    ),
    "an Afrikaans practice": Layout(
        "practice.csv", write_practice_patients, ("--map", "MAP", "--encoding", "cp1252", "--null", "geen")
    ),
    "a pharmacy's workbook": Layout("pharmacy.xlsx", write_pharmacy_customers, ("--map", "MAP")),
}
