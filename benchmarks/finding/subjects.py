"""What a description is, and the patient to describe."""

from collections.abc import Callable, Sequence
from datetime import date
from random import Random
from typing import NamedTuple

from benchmarks.finding.facts import Fact, Facts, name_facts
from benchmarks.finding.typos import MAX_ERROR_FREE_LENGTH, add_errors, folded_words
from benchmarks.register import Patient, RegisteredPatient


class Description(NamedTuple):
    """A text that describes a patient."""

    text: str
    facts: Sequence[Fact]
    """What is true about the patient. Patients about whom all of it is true cannot be told apart."""
    as_typed: Sequence[Fact] = ()
    """What is typed, if it is not true, such as another date. The patient cannot be told apart from one who has it."""


class Subject:
    """The patient to describe, and the chance that decides how."""

    def __init__(self, registered: RegisteredPatient, facts: Facts, random: Random) -> None:
        self.registered, self.facts, self.random = registered, facts, random
        self.patient: Patient = registered.patient
        self.first = self.patient.patient_first_name or ""
        self.last = self.patient.patient_last_name
        self.name = f"{self.first} {self.last}".strip()

    @property
    def names(self) -> list[Fact]:
        return name_facts(self.name)

    @property
    def born(self) -> date | None:
        written = self.patient.patient_date_of_birth
        return date.fromisoformat(written) if written else None

    def misspell(self, text: str, count: int = 1) -> str | None:
        has_room = any(len(word) > count + MAX_ERROR_FREE_LENGTH for word in folded_words(text))
        return add_errors(text, count, self.random) if has_room else None


Describe = Callable[[Subject], Description | None]
"""Returns a description, or None if the patient lacks what it needs."""
