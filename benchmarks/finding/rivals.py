"""Rivals: other patients that match a query as well as the expected one, or better."""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import TypeVar

from rapidfuzz.distance import DamerauLevenshtein
from rapidfuzz.process import extract

from benchmarks.finding.queries import national_number
from benchmarks.finding.typos import edit_distance, folded_words
from benchmarks.register import Patient

K = TypeVar("K", bound=Hashable)


class Rivals:
    """Counts the rivals of a patient in a register, with a separate rule for each kind of query."""

    def __init__(self, patients: Sequence[Patient]) -> None:
        self._words_by_id = {patient.unique_id: _name_words(patient) for patient in patients}
        self._all_words = sorted({word for names in self._words_by_id.values() for word in names})
        self._ids_by_word = _group_by_key(
            (word, key) for key, names in self._words_by_id.items() for word in set(names)
        )
        self._ids_by_word_set = _group_by_key((frozenset(names), key) for key, names in self._words_by_id.items())
        self._ids_by_birth_date = _group_by_key(
            (patient.patient_date_of_birth, patient.unique_id) for patient in patients
        )
        self._ids_by_mobile = _group_by_key(
            (national_number(patient.patient_mobile_number), patient.unique_id)
            for patient in patients
            if patient.patient_mobile_number is not None
        )
        self._close_words_cache: dict[tuple[str, int], Mapping[str, int]] = {}

    def count_same_words(self, target: Patient, _query_text: str) -> int:
        """Return the number of others with the same words in their names, in any order and with any accents."""
        return len(self._ids_by_word_set[frozenset(self._words_by_id[target.unique_id])]) - 1

    def count_same_mobile(self, target: Patient, query_text: str) -> int:
        """Return the number of others with the same mobile number in any spelling."""
        return _count_others(self._ids_by_mobile[national_number(query_text)], target, lambda _: True)

    def count_same_prefix(self, target: Patient, query_text: str) -> int:
        """Return the number of others born on the same day whose names have words beginning with each query word."""
        prefixes = folded_words(query_text)

        def fits(other: str) -> bool:
            return all(any(word.startswith(begun) for word in self._words_by_id[other]) for begun in prefixes)

        return _count_others(self._ids_by_birth_date[target.patient_date_of_birth], target, fits)

    def count_as_close(self, target: Patient, query_text: str) -> int:
        """Return the number of others with no more errors, summed from each query word to their nearest word."""
        query_words = folded_words(query_text)
        target_words = self._words_by_id[target.unique_id]
        max_errors = sum(min(edit_distance(word, name) for name in target_words) for word in query_words)
        close_words = [self._words_within(word, max_errors) for word in query_words]
        candidates = [{key for name in names for key in self._ids_by_word[name]} for names in close_words]

        def fits(other: str) -> bool:
            over_limit = max_errors + 1
            names = self._words_by_id[other]
            return sum(min(errors.get(name, over_limit) for name in names) for errors in close_words) <= max_errors

        # a close patient has a name close to every query word, so it suffices to check those of the rarest word
        smallest = min(candidates, key=len)
        return _count_others(smallest, target, fits)

    def _words_within(self, query_word: str, max_errors: int) -> Mapping[str, int]:
        """Return the register's words with at most `max_errors` errors from a query word, with their errors."""
        key = query_word, max_errors
        if key not in self._close_words_cache:
            matches = extract(
                query_word, self._all_words, scorer=DamerauLevenshtein.distance, score_cutoff=max_errors, limit=None
            )
            self._close_words_cache[key] = {word: int(errors) for word, errors, _ in matches}
        return self._close_words_cache[key]


def _name_words(patient: Patient) -> list[str]:
    return folded_words(f"{patient.patient_first_name or ''} {patient.patient_last_name}")


def _group_by_key(pairs: Iterable[tuple[K, str]]) -> Mapping[K, list[str]]:
    """Return the patients' ids for each key."""
    groups = defaultdict(list)
    for key, unique_id in pairs:
        groups[key].append(unique_id)
    return groups


def _count_others(patient_ids: Iterable[str], target: Patient, fits: Callable[[str], bool]) -> int:
    return sum(other != target.unique_id and fits(other) for other in patient_ids)
