"""Search queries that a user might type for a patient, reproducible by the random generator."""

import re
from collections.abc import Callable, Iterable, Iterator
from datetime import date
from random import Random

from benchmarks.finding.typos import MAX_ERROR_FREE_LENGTH, add_errors, can_have_errors
from benchmarks.folding import fold_text
from benchmarks.register import Patient

Query = Callable[[Patient, Random], str | None]
"""Returns a query, or None if the patient lacks the required values."""

NATIONAL_NUMBER_DIGITS = 9
"""The digits of a South African mobile number after 0 or +27."""
_NATIONAL_FORMATS = ("0{0}{1}{2}", "0{0} {1} {2}", "0{0}-{1}-{2}", "(0{0}) {1} {2}", "0{0}.{1}.{2}")
_INTERNATIONAL_FORMATS = (
    "+27{0}{1}{2}",
    "+27 {0} {1} {2}",
    "+27-{0}-{1}-{2}",
    "+27 (0){0} {1} {2}",
    "0027 {0} {1} {2}",
)
_DATE_FORMATS = ("%Y-%m-%d", "%d/%m/%Y", "%-d.%-m.%Y")


def full_name(patient: Patient, _random: Random | None = None) -> str | None:
    """Return all names in order, if there is a first name."""
    first = patient.patient_first_name
    return first and f"{first} {patient.patient_last_name}"


def swapped_name(patient: Patient, _random: Random) -> str | None:
    """Return the last name before the first name."""
    first = patient.patient_first_name
    return first and f"{patient.patient_last_name} {first}"


def name_without_accents(patient: Patient, _random: Random) -> str | None:
    """Return the full name without accents, if it has any."""
    name = full_name(patient)
    plain = name and fold_text(name)
    return plain if name and plain != name.lower() else None


def misspelt_name(patient: Patient, random: Random) -> str | None:
    """Return the full name with one error."""
    return _misspell(full_name(patient), 1, random)


def twice_misspelt_name(patient: Patient, random: Random) -> str | None:
    """Return the full name with two errors anywhere."""
    return _misspell(full_name(patient), 2, random)


def both_names_misspelt(patient: Patient, random: Random) -> str | None:
    """Return the full name with one error in the first names and one in the last name."""
    first = _misspell(patient.patient_first_name, 1, random)
    last = _misspell(patient.patient_last_name, 1, random)
    return f"{first} {last}" if first and last else None


def _misspell(name: str | None, count: int, random: Random) -> str | None:
    return add_errors(name, count, random) if name and can_have_errors(name) else None


def national_number(mobile: str) -> str:
    """Return the digits that all spellings of a mobile number share."""
    return re.sub(r"\D", "", mobile)[-NATIONAL_NUMBER_DIGITS:]


def reformatted_mobile(patient: Patient, random: Random) -> str | None:
    """Return the number with +27 if it is stored with 0, and vice versa."""
    stored = patient.patient_mobile_number
    if stored is None:
        return None
    number = national_number(stored)
    spellings = _INTERNATIONAL_FORMATS if stored.lstrip("(").startswith("0") else _NATIONAL_FORMATS
    return random.choice(spellings).format(number[:2], number[2:5], number[5:])


def prefix_and_birth_date(patient: Patient, random: Random) -> str | None:
    """Return at least three letters of the last name, and the date of birth in one of three formats."""
    birth_date, last = patient.patient_date_of_birth, patient.patient_last_name
    if birth_date is None or len(last) <= MAX_ERROR_FREE_LENGTH:
        return None
    prefix = last[: random.randint(MAX_ERROR_FREE_LENGTH + 1, max(MAX_ERROR_FREE_LENGTH + 1, len(last) - 1))]
    date_format = random.choice(_DATE_FORMATS)
    return f"{prefix.rstrip(' -')} {date.fromisoformat(birth_date).strftime(date_format)}"


def birth_date_and_last_name(patient: Patient, _random: Random) -> str | None:
    """Return the date of birth followed by the whole last name."""
    birth_date = patient.patient_date_of_birth
    return birth_date and f"{birth_date} {patient.patient_last_name}"


def last_name(patient: Patient, _random: Random) -> str:
    """Return the last name only, which many patients share."""
    return patient.patient_last_name


def name_prefixes(patient: Patient, _random: Random) -> str | None:
    """Return the first three letters of the first and of the last name."""
    first = patient.patient_first_name
    return first and f"{first[:3].rstrip()} {patient.patient_last_name[:3].rstrip()}"


def initial_and_last_name(patient: Patient, _random: Random) -> str | None:
    """Return the first letter of the first name, followed by the last name."""
    first = patient.patient_first_name
    return first and f"{first[0]} {patient.patient_last_name}"


def generate_queries(query: Query, patients: Iterable[Patient], random: Random) -> Iterator[tuple[Patient, str]]:
    """Yield each patient that has a query of this kind, with the query."""
    for patient in patients:
        query_text = query(patient, random)
        if query_text is not None:
            yield patient, query_text
