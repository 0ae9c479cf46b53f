"""The weights of the search score: how many points each kind of agreement between a search text and a patient adds."""

from typing import Final

WEIGHTS: Final = {
    "same id": 300,
    "same e-mail address": 160,
    "same date of birth": 160,
    "same mobile number": 160,
    "same part before the @": 130,
    "e-mail address with up to two errors": 120,
    "same word": 100,
    "same spelling": 95,
    "date of birth with one error": 90,
    "end of the mobile number": 90,
    "short form": 80,
    "name in the profile": 75,
    "one error": 75,
    "mobile number with one error": 75,
    "born in this period": 70,
    "sounds alike": 65,
    "address": 65,
    "beginning": 60,
    "hospital": 55,
    "doctor": 55,
    "same gender": 40,
    "one error in two or three letters": 50,
    "two errors": 45,
    "middle of a word": 40,
    "misspelled or abbreviated place": 40,
    "born up to a year before or after this period": 30,
    "first of the first names": 15,
    "title": 10,
    "another mobile number": -10,
    "another date of birth": -20,
}
"""Points by kind of agreement. docs/search.md contains the same table.

Each term of a search text adds the points of its best agreement with the patient, and nothing if it agrees with
nothing. Negative points are for a detail that the record has, but differently.
"""
RARITY_PERCENT = (100, 160)
"""Factor, in percent, for the points of a word that `MAX_SINGLE_PATIENTS` patients or more have, and of a unique one.

In between, it falls with the logarithm of the number of patients.
"""
INITIAL_PERCENT = 25
"""Factor, in percent, for the points of a single letter, which many names have."""
WEAK_AGREEMENT_PERCENT = 60
"""If the best patient has less than this share of the points of a patient that agrees with everything, nothing agrees
well."""
FEW_MATCHES = 10
"""If fewer patients agree with all terms, the best of the others follow, at most this many."""
