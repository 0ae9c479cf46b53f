"""Compares the identifiers of two patients."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Self

from rapidfuzz.distance import OSA

from app.likeness.levels import Level

FAMILY_TYPES = frozenset({"asylum", "medical_aid"})
"""Types of identifiers whose number the members of a family share."""
_UNTELLING_TYPES = frozenset({"other"})
"""Types of which a person may have several numbers, so that different numbers are no evidence."""
_EXACT_TYPES = frozenset({"passport", "za_id"})
"""Types in which numbers that differ by one character are those of two people, or a check digit reveals typing errors.
"""
MIN_NEAR_LENGTH = 6
"""Minimum length of two values that count as near if one character differs. In shorter values, it is no typing error as
often as it is one.
"""


class Identifier(NamedTuple):
    """An identifier in the form in which it is compared."""

    type: str
    value: str
    country: str
    hospital_id: str

    @classmethod
    def from_stored(cls, identifiers: Iterable[Mapping[str, Any]] | None) -> tuple[Self, ...]:
        """Return the identifiers of a patient, which are stored in this form (`app.patient_identifiers.resolving`)."""
        return tuple(
            cls(each["type"], each["normalized"], each.get("country") or "", each.get("hospital_id") or "")
            for each in identifiers or ()
        )

    def is_comparable(self, other: Self) -> bool:
        """Return whether both identifiers have the same type and, as far as it is known, the same issuer."""
        has_same_issuer = not (self.country and other.country) or self.country == other.country
        return self.type == other.type and self.hospital_id == other.hospital_id and has_same_issuer

    def compare(self, other: Self) -> Level | None:
        """Return how this identifier and a comparable one compare, or None if their difference is no evidence.

        Different folders of one hospital are no evidence, because a person who is registered there twice has two.
        """
        if self.value == other.value:
            return Level.PART if self.type in FAMILY_TYPES else Level.SAME
        if self.type in FAMILY_TYPES or self.hospital_id:
            return None
        is_long = min(len(self.value), len(other.value)) >= MIN_NEAR_LENGTH and self.type not in _EXACT_TYPES
        if is_long and OSA.distance(self.value, other.value) == 1:
            return Level.NEAR
        return None if self.type in _UNTELLING_TYPES else Level.DIFFERENT


_ORDER = (Level.SAME, Level.NEAR, Level.DIFFERENT, Level.PART)
"""The levels from the most to the least conclusive. One identifier in common outweighs different ones, because
passports are renewed.
"""


def compare_identifiers(one: tuple[Identifier, ...], other: tuple[Identifier, ...]) -> Level | None:
    """Return how the identifiers of two patients compare, or None if they are no evidence."""
    levels = {a.compare(b) for a in one for b in other if a.is_comparable(b)}
    return next((level for level in _ORDER if level in levels), None)
