"""The values of a patient in the form in which they are compared."""

from collections.abc import Mapping
from datetime import date
from typing import Any, NamedTuple, Self

from app.likeness.values import address_words, joined_words, known_email, phone_digits
from app.locality.names import name_words
from app.matching.identifiers import Identifier

COMPARED_FIELDS = (
    "patient_first_name",
    "patient_initials",
    "patient_last_name",
    "patient_date_of_birth",
    "patient_gender",
    "patient_mobile_number",
    "patient_email_address",
    "patient_physical_address",
    "patient_address_line_1",
    "patient_town",
    "patient_postal_code",
    "patient_province",
    "patient_identifiers",
)
"""The fields of a patient that a comparison reads. Those without weights complete others: initials stand for a missing
first name, and the second line of an address belongs to the first."""
MAX_DIVIDED_WORDS = 6
"""Maximum number of words in one field that are taken for a first and a last name."""


class Person(NamedTuple):
    """The values of a patient in the form in which they are compared. Unknown values are empty or None."""

    first_name: tuple[str, ...]
    last_name: tuple[str, ...]
    date_of_birth: date | None
    gender: str | None
    phone: str
    email: str
    address: str
    town: str
    postal_code: str
    province: str
    identifiers: tuple[Identifier, ...]

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> Self:
        """Return the person with the values of a patient, which has at least the `COMPARED_FIELDS`."""
        gender = fields["patient_gender"]
        return cls(
            name_words(fields["patient_first_name"] or "") or name_words((fields["patient_initials"] or "")[:1]),
            name_words(fields["patient_last_name"] or ""),
            fields["patient_date_of_birth"],
            None if gender == "Unknown" else gender,
            phone_digits(fields["patient_mobile_number"] or ""),
            known_email(fields["patient_email_address"] or ""),
            address_words(fields["patient_physical_address"] or "", fields["patient_address_line_1"] or ""),
            joined_words(fields["patient_town"] or ""),
            joined_words(fields["patient_postal_code"] or ""),
            joined_words(fields["patient_province"] or ""),
            Identifier.from_stored(fields["patient_identifiers"]),
        )


def has_whole_name(person: Person) -> bool:
    """Return whether one of the two names may contain both, because it has several words and the other is missing."""
    return len(person.first_name) + len(person.last_name) > 1 and not (person.first_name and person.last_name)


def divisions(person: Person) -> list[Person]:
    """Return the person with each division of the name that may contain both, or as it is if none does."""
    words = person.first_name + person.last_name
    if not has_whole_name(person) or len(words) > MAX_DIVIDED_WORDS:
        return [person]
    halves = [(words[:number], words[number:]) for number in range(1, len(words))]
    return [
        person._replace(first_name=first, last_name=last)
        for one, other in halves
        for first, last in ((one, other), (other, one))
    ]
