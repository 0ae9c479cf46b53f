"""The weights of agreement and disagreement, and the thresholds of the grades.

A weight is the binary logarithm of a ratio: how much more often two records of one person compare in this way than two
records of different persons. Missing values have no weight. The weights are fixed, so that two records have the same
score in every register and for every principal. `docs/matching.md` explains them and says where they come from.
"""

from enum import StrEnum

from app.likeness.levels import Level


class Grade(StrEnum):
    """How likely it is that two patients are one person."""

    CERTAIN = "certain"
    PROBABLE = "probable"
    POSSIBLE = "possible"


STRONG_GRADES = frozenset([Grade.CERTAIN, Grade.PROBABLE])
"""The grades of pairs that are one person according to the comparison."""
THRESHOLDS = {Grade.CERTAIN: 20.0, Grade.PROBABLE: 11.0, Grade.POSSIBLE: 10.5}
"""The lowest score of each grade, from the best grade to the worst."""

WEIGHTS: dict[str, dict[Level, float]] = {
    "patient_first_name": {
        Level.SAME: 6.5,
        Level.SAME_FREQUENT: 5.0,
        Level.SPELLING: 4.5,
        Level.NEAR: 4.5,
        Level.SHORT_FORM: 4.0,
        Level.OTHER_FORM: 4.0,
        Level.PART: 4.0,
        Level.SIMILAR: 2.5,
        Level.SECOND: 2.5,
        Level.INITIAL: 1.5,
        Level.DIFFERENT: -5.0,
    },
    "patient_last_name": {
        Level.SAME: 7.5,
        Level.SAME_FREQUENT: 6.0,
        Level.SPELLING: 6.0,
        Level.NEAR: 6.0,
        Level.SHORT_FORM: 5.0,
        Level.OTHER_FORM: 5.0,
        Level.PART: 5.0,
        Level.SIMILAR: 4.0,
        Level.SECOND: 4.0,
        Level.INITIAL: 1.5,
        Level.DIFFERENT: -3.0,
    },
    "patient_date_of_birth": {
        Level.SAME: 11.0,
        Level.SWAPPED: 7.0,
        Level.NEAR: 6.0,
        Level.PLACEHOLDER: 2.5,
        Level.YEAR_ONLY: 1.5,
        Level.SAME_MONTH: 1.5,
        Level.DIFFERENT: -5.0,
    },
    "patient_gender": {Level.SAME: 0.5, Level.DIFFERENT: -2.5},
    "patient_mobile_number": {Level.SAME: 6.0, Level.NEAR: 3.0, Level.DIFFERENT: -0.5},
    "patient_email_address": {Level.SAME: 7.0, Level.NEAR: 5.0, Level.DIFFERENT: -0.5},
    "patient_physical_address": {
        Level.SAME: 9.0,
        Level.SIMILAR: 6.5,
        Level.STREET: 3.5,
        Level.PART: 3.0,
        Level.DIFFERENT: -1.5,
    },
    "patient_town": {Level.SAME: 2.5, Level.NEAR: 2.0, Level.DIFFERENT: -0.7},
    "patient_postal_code": {Level.SAME: 3.0, Level.NEAR: 1.5, Level.DIFFERENT: -0.7},
    "patient_province": {Level.SAME: 0.3, Level.DIFFERENT: -0.7},
    "patient_identifiers": {Level.SAME: 14.0, Level.NEAR: 7.0, Level.PART: 4.0, Level.DIFFERENT: -6.0},
}
"""The weight of each level of each field, in bits."""
SWAPPED_NAMES_WEIGHT = -1.0
"""The weight of first and last names that agree only if they are swapped in one of the records, besides their own."""
