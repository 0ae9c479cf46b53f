"""Who else a query may mean: another patient whom it fits as well as the one that is wanted, or better."""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import TypeVar

from rapidfuzz.distance import DamerauLevenshtein
from rapidfuzz.process import extract

from benchmarks.finding.queries import national_number
from benchmarks.finding.typing_errors import distance, words
from benchmarks.register import Patient

K = TypeVar("K", bound=Hashable)


class Rivals:
    """Counts the rivals of a patient in a register, by one rule for each kind of query."""

    def __init__(self, patients: Sequence[Patient]) -> None:
        self._words = {patient.unique_id: _name_words(patient) for patient in patients}
        self._choices = sorted({word for names in self._words.values() for word in names})
        self._holders = _grouped((word, key) for key, names in self._words.items() for word in set(names))
        self._same_words = _grouped((frozenset(names), key) for key, names in self._words.items())
        self._same_birth = _grouped((patient.patient_date_of_birth, patient.unique_id) for patient in patients)
        self._same_mobile = _grouped(
            (national_number(patient.patient_mobile_number), patient.unique_id)
            for patient in patients
            if patient.patient_mobile_number is not None
        )
        self._near: dict[tuple[str, int], Mapping[str, int]] = {}

    def same_words(self, wanted: Patient, _typed: str) -> int:
        """Others with the same words in their names, in any order and with any accents."""
        return len(self._same_words[frozenset(self._words[wanted.unique_id])]) - 1

    def same_mobile(self, wanted: Patient, typed: str) -> int:
        """Others with the same mobile number, however it is written."""
        return _others(self._same_mobile[national_number(typed)], wanted, lambda _: True)

    def same_beginning(self, wanted: Patient, typed: str) -> int:
        """Others born on the same day, in whose names each word that was typed begins one."""
        beginnings = words(typed)

        def fits(other: str) -> bool:
            return all(any(word.startswith(begun) for word in self._words[other]) for begun in beginnings)

        return _others(self._same_birth[wanted.patient_date_of_birth], wanted, fits)

    def as_near(self, wanted: Patient, typed: str) -> int:
        """Others who are no further from what was typed: its words' errors to the nearest of their words, added up."""
        asked = words(typed)
        own = self._words[wanted.unique_id]
        most = sum(min(distance(word, name) for name in own) for word in asked)
        near = [self._within(word, most) for word in asked]
        candidates = [{key for name in names for key in self._holders[name]} for names in near]

        def fits(other: str) -> bool:
            far = most + 1
            names = self._words[other]
            return sum(min(errors.get(name, far) for name in names) for errors in near) <= most

        # who is near has a name near to each word: those of the rarest are enough to look at
        fewest = min(candidates, key=len)
        return _others(fewest, wanted, fits)

    def _within(self, typed: str, most: int) -> Mapping[str, int]:
        """The errors between a word that was typed and those of the register, where they are not more than `most`."""
        key = typed, most
        if key not in self._near:
            found = extract(typed, self._choices, scorer=DamerauLevenshtein.distance, score_cutoff=most, limit=None)
            self._near[key] = {word: int(errors) for word, errors, _ in found}
        return self._near[key]


def _name_words(patient: Patient) -> list[str]:
    return words(f"{patient.patient_first_name or ''} {patient.patient_last_name}")


def _grouped(pairs: Iterable[tuple[K, str]]) -> Mapping[K, list[str]]:
    """The patients' ids under each key."""
    groups = defaultdict(list)
    for key, unique_id in pairs:
        groups[key].append(unique_id)
    return groups


def _others(found: Iterable[str], wanted: Patient, fits: Callable[[str], bool]) -> int:
    return sum(other != wanted.unique_id and fits(other) for other in found)
