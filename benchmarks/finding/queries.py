"""What a person types who looks for a patient: drawn from the patient, the same again for the same generator."""

import re
from collections.abc import Callable, Iterable, Iterator
from datetime import date
from random import Random

from benchmarks.finding.typing_errors import SHORT, takes_errors, with_errors
from benchmarks.folding import folded
from benchmarks.register import Patient

Query = Callable[[Patient, Random], str | None]
"""Makes what is typed; None where the patient lacks what it takes."""

LAST_DIGITS = 9
"""Of a mobile number of South Africa, behind 0 or +27."""
_NATIONAL = ("0{0}{1}{2}", "0{0} {1} {2}", "0{0}-{1}-{2}", "(0{0}) {1} {2}", "0{0}.{1}.{2}")
_INTERNATIONAL = ("+27{0}{1}{2}", "+27 {0} {1} {2}", "+27-{0}-{1}-{2}", "+27 (0){0} {1} {2}", "0027 {0} {1} {2}")
_DATES = ("%Y-%m-%d", "%d/%m/%Y", "%-d.%-m.%Y")


def full_name(patient: Patient, _random: Random | None = None) -> str | None:
    """All names in their order, where there is a first one."""
    first = patient.patient_first_name
    return first and f"{first} {patient.patient_last_name}"


def swapped(patient: Patient, _random: Random) -> str | None:
    """The last name first."""
    first = patient.patient_first_name
    return first and f"{patient.patient_last_name} {first}"


def without_accents(patient: Patient, _random: Random) -> str | None:
    """The full name in plain letters, where it has others."""
    name = full_name(patient)
    plain = name and folded(name)
    return plain if name and plain != name.lower() else None


def misspelt(patient: Patient, random: Random) -> str | None:
    """One error somewhere in the full name."""
    return _with_errors(full_name(patient), 1, random)


def misspelt_twice(patient: Patient, random: Random) -> str | None:
    """Two errors anywhere in the full name."""
    return _with_errors(full_name(patient), 2, random)


def both_misspelt(patient: Patient, random: Random) -> str | None:
    """One error in the first names, and one in the last."""
    first = _with_errors(patient.patient_first_name, 1, random)
    last = _with_errors(patient.patient_last_name, 1, random)
    return f"{first} {last}" if first and last else None


def _with_errors(name: str | None, count: int, random: Random) -> str | None:
    return with_errors(name, count, random) if name and takes_errors(name) else None


def national_number(mobile: str) -> str:
    """The digits of a mobile number that every spelling has."""
    return re.sub(r"\D", "", mobile)[-LAST_DIGITS:]


def mobile_spelt_otherwise(patient: Patient, random: Random) -> str | None:
    """A number that is stored with 0 in front with +27, and the other way round."""
    stored = patient.patient_mobile_number
    if stored is None:
        return None
    number = national_number(stored)
    spellings = _INTERNATIONAL if stored.lstrip("(").startswith("0") else _NATIONAL
    return random.choice(spellings).format(number[:2], number[2:5], number[5:])


def beginning_and_birth(patient: Patient, random: Random) -> str | None:
    """Three letters and more of the last name, and the date of birth in one of three forms."""
    born, last = patient.patient_date_of_birth, patient.patient_last_name
    if born is None or len(last) <= SHORT:
        return None
    beginning = last[: random.randint(SHORT + 1, max(SHORT + 1, len(last) - 1))]
    form = random.choice(_DATES)
    return f"{beginning.rstrip(' -')} {date.fromisoformat(born).strftime(form)}"


def birth_and_last_name(patient: Patient, _random: Random) -> str | None:
    """The date of birth, then the whole last name."""
    born = patient.patient_date_of_birth
    return born and f"{born} {patient.patient_last_name}"


def last_name(patient: Patient, _random: Random) -> str:
    """Nothing else: many have it."""
    return patient.patient_last_name


def beginnings(patient: Patient, _random: Random) -> str | None:
    """Three letters of the first and three of the last name."""
    first = patient.patient_first_name
    return first and f"{first[:3].rstrip()} {patient.patient_last_name[:3].rstrip()}"


def initial_and_last_name(patient: Patient, _random: Random) -> str | None:
    """One letter of the first name, then the last name."""
    first = patient.patient_first_name
    return first and f"{first[0]} {patient.patient_last_name}"


def asked(query: Query, patients: Iterable[Patient], random: Random) -> Iterator[tuple[Patient, str]]:
    """What is typed for each patient of whom that can be asked."""
    for patient in patients:
        typed = query(patient, random)
        if typed is not None:
            yield patient, typed
