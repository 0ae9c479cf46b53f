"""What a person types who looks for a patient: drawn from the patient, the same again for the same generator."""

import re
from collections.abc import Callable, Iterable, Iterator
from datetime import date
from random import Random

from benchmarks.folding import fold_text
from benchmarks.register import Patient
from benchmarks.search.typos import MAX_ERROR_FREE_LENGTH, add_errors, can_have_errors

Query = Callable[[Patient, Random], str | None]
"""Makes what is typed; None where the patient lacks what it takes."""

NATIONAL_NUMBER_DIGITS = 9
"""Of a mobile number of South Africa, behind 0 or +27."""
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
    """All names in their order, where there is a first one."""
    first = patient.patient_first_name
    return first and f"{first} {patient.patient_last_name}"


def swapped_name(patient: Patient, _random: Random) -> str | None:
    """The last name first."""
    first = patient.patient_first_name
    return first and f"{patient.patient_last_name} {first}"


def name_without_accents(patient: Patient, _random: Random) -> str | None:
    """The full name in plain letters, where it has others."""
    name = full_name(patient)
    plain = name and fold_text(name)
    return plain if name and plain != name.lower() else None


def misspelt_name(patient: Patient, random: Random) -> str | None:
    """One error somewhere in the full name."""
    return _misspell(full_name(patient), 1, random)


def twice_misspelt_name(patient: Patient, random: Random) -> str | None:
    """Two errors anywhere in the full name."""
    return _misspell(full_name(patient), 2, random)


def both_names_misspelt(patient: Patient, random: Random) -> str | None:
    """One error in the first names, and one in the last."""
    first = _misspell(patient.patient_first_name, 1, random)
    last = _misspell(patient.patient_last_name, 1, random)
    return f"{first} {last}" if first and last else None


def _misspell(name: str | None, count: int, random: Random) -> str | None:
    return add_errors(name, count, random) if name and can_have_errors(name) else None


def national_number(mobile: str) -> str:
    """The digits of a mobile number that every spelling has."""
    return re.sub(r"\D", "", mobile)[-NATIONAL_NUMBER_DIGITS:]


def reformatted_mobile(patient: Patient, random: Random) -> str | None:
    """A number that is stored with 0 in front with +27, and the other way round."""
    stored = patient.patient_mobile_number
    if stored is None:
        return None
    number = national_number(stored)
    spellings = _INTERNATIONAL_FORMATS if stored.lstrip("(").startswith("0") else _NATIONAL_FORMATS
    return random.choice(spellings).format(number[:2], number[2:5], number[5:])


def prefix_and_birth_date(patient: Patient, random: Random) -> str | None:
    """Three letters and more of the last name, and the date of birth in one of three forms."""
    birth_date, last = patient.patient_date_of_birth, patient.patient_last_name
    if birth_date is None or len(last) <= MAX_ERROR_FREE_LENGTH:
        return None
    prefix = last[: random.randint(MAX_ERROR_FREE_LENGTH + 1, max(MAX_ERROR_FREE_LENGTH + 1, len(last) - 1))]
    date_format = random.choice(_DATE_FORMATS)
    return f"{prefix.rstrip(' -')} {date.fromisoformat(birth_date).strftime(date_format)}"


def birth_date_and_last_name(patient: Patient, _random: Random) -> str | None:
    """The date of birth, then the whole last name."""
    birth_date = patient.patient_date_of_birth
    return birth_date and f"{birth_date} {patient.patient_last_name}"


def last_name(patient: Patient, _random: Random) -> str:
    """Nothing else: many have it."""
    return patient.patient_last_name


def name_prefixes(patient: Patient, _random: Random) -> str | None:
    """Three letters of the first and three of the last name."""
    first = patient.patient_first_name
    return first and f"{first[:3].rstrip()} {patient.patient_last_name[:3].rstrip()}"


def initial_and_last_name(patient: Patient, _random: Random) -> str | None:
    """One letter of the first name, then the last name."""
    first = patient.patient_first_name
    return first and f"{first[0]} {patient.patient_last_name}"


def generate_queries(query: Query, patients: Iterable[Patient], random: Random) -> Iterator[tuple[Patient, str]]:
    """What is typed for each patient of whom that can be asked."""
    for patient in patients:
        query_text = query(patient, random)
        if query_text is not None:
            yield patient, query_text
