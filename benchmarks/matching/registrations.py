"""Registrations of fictitious people at a desk: people who are registered already, and others who resemble them."""

from collections.abc import Callable, Iterator, Mapping
from datetime import date, timedelta
from random import Random
from typing import Any

from app.locality.names import SHORT_FORMS
from app.matching.person import COMPARED_FIELDS
from benchmarks.finding.typos import add_errors, can_have_errors
from benchmarks.register import generate_patients

Fields = dict[str, Any]
"""The fields of a patient by name."""
REGISTERED_FIELDS = tuple(name for name in COMPARED_FIELDS if name != "patient_identifiers")
"""The compared fields of the register, which has no identifiers."""
SHARE_WITHOUT_DATE = 0.2
"""Share of registrations without a date of birth."""
SHARES_WITHOUT = {
    "patient_mobile_number": 0.15,
    "patient_email_address": 0.5,
    "patient_physical_address": 0.2,
    "patient_postal_code": 0.2,
    "patient_gender": 0.05,
    "patient_initials": 0.5,
}
"""Shares of registrations without other fields."""
MONTHS = 12
SEED = 25


def new_people(count: int) -> Iterator[Fields]:
    """Generate people that are not in the register, whose names are those of the register."""
    for registered in generate_patients(count, seed=SEED):
        values = registered.patient._asdict()
        fields = {name: values[name] for name in REGISTERED_FIELDS}
        born = fields["patient_date_of_birth"]
        yield {**fields, "patient_date_of_birth": born and date.fromisoformat(born)}


class Registrar:
    """Registers people as a hurried clerk does."""

    def __init__(self, seed: int = SEED) -> None:
        self._random = Random(seed)
        self._others = new_people(10_000_000)

    def again(self, patient: Mapping[str, Any]) -> Fields:
        """Return another registration of a patient, with errors, other spellings, and what has changed since."""
        random, fields, other = self._random, dict(patient), next(self._others)
        for name in ("patient_first_name", "patient_last_name", "patient_physical_address"):
            text = fields[name]
            if self._happens(0.2) and text and can_have_errors(text):
                fields[name] = add_errors(text, 2 if self._happens(0.2) and " " in text else 1, random)
        self._rename(fields, other)
        if fields["patient_date_of_birth"]:
            fields["patient_date_of_birth"] = self._date_of_birth(fields["patient_date_of_birth"])
        if self._happens(0.3):  # has moved
            for name in ("patient_physical_address", "patient_address_line_1", "patient_town", "patient_postal_code"):
                fields[name] = other[name]
        if self._happens(0.3):
            fields["patient_mobile_number"] = other["patient_mobile_number"]
        for name, chance in SHARES_WITHOUT.items():
            if self._happens(chance):
                fields[name] = None
        return fields

    def _happens(self, chance: float) -> bool:
        return self._random.random() < chance

    def _rename(self, fields: Fields, other: Fields) -> None:
        first = fields["patient_first_name"]
        if first is None:
            return
        if self._happens(0.3):
            fields["patient_first_name"] = first.split()[0]
        short_forms = sorted(SHORT_FORMS.get(fields["patient_first_name"].lower(), ()))
        if short_forms and self._happens(0.2):
            fields["patient_first_name"] = self._random.choice(short_forms).title()
        if self._happens(0.05):
            fields["patient_first_name"] = f"{self._random.choice(['Mr', 'Mrs.', 'Dr'])} {first}"
        if self._happens(0.03):
            fields["patient_first_name"], fields["patient_last_name"] = fields["patient_last_name"], first
        elif self._happens(0.03):  # has married
            fields["patient_last_name"] = other["patient_last_name"]

    def _date_of_birth(self, born: date) -> date | None:
        if self._happens(SHARE_WITHOUT_DATE):
            return None
        if self._happens(0.05):
            return date(born.year, 1, 1)
        if self._happens(0.05) and born.day <= MONTHS:
            return date(born.year, born.day, born.month)
        if self._happens(0.08):
            return born + self._random.choice((-1, 1)) * timedelta(days=self._random.choice((1, 10, 30, 365)))
        return born

    def sibling(self, patient: Mapping[str, Any]) -> Fields:
        """Return a brother or sister of a patient who lives in the same household."""
        twin = self.twin(patient)
        born = patient["patient_date_of_birth"]
        months = self._random.choice((-1, 1)) * self._random.randint(11, 150)
        return {
            **twin,
            "patient_date_of_birth": born and born + timedelta(days=30 * months + self._random.randint(0, 29)),
        }

    def twin(self, patient: Mapping[str, Any]) -> Fields:
        """Return a twin of a patient who lives in the same household."""
        first = patient["patient_first_name"]
        other = next(
            other
            for other in self._others
            if other["patient_first_name"] and other["patient_first_name"].split()[0] not in (first or "").split()
        )
        personal = ("patient_first_name", "patient_initials", "patient_gender", "patient_email_address")
        return {**patient, **{name: other[name] for name in personal}}

    def namesake(self, patient: Mapping[str, Any]) -> Fields:
        """Return another person with the name of a patient."""
        names = ("patient_first_name", "patient_initials", "patient_last_name", "patient_gender")
        return {**next(self._others), **{name: patient[name] for name in names}}

    def newborn(self, patient: Mapping[str, Any]) -> Fields:
        """Return a newborn child of a patient, without a first name of its own."""
        first = patient["patient_first_name"] or ""
        return {
            **patient,
            "patient_first_name": self._random.choice(("Baby", "Baby Girl", f"Baby of {first}", f"{first} Baby")),
            "patient_initials": None,
            "patient_date_of_birth": date(2026, 10, 1),
            "patient_email_address": None,
        }

    def new(self, _: Mapping[str, Any]) -> Fields:
        """Return a person who resembles a patient by chance only."""
        return next(self._others)


KINDS: dict[str, Callable[[Registrar, Mapping[str, Any]], Fields]] = {
    "again": Registrar.again,
    "sibling": Registrar.sibling,
    "namesake": Registrar.namesake,
    "new": Registrar.new,
    "twin": Registrar.twin,
    "newborn": Registrar.newborn,
}
"""The kinds of registrations."""
