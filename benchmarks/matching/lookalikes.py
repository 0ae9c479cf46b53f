"""How many people who look alike a scan takes for one person, and how many who are registered twice it finds."""

import argparse
from collections import Counter
from math import sqrt
from typing import NamedTuple

from app.matching.weights import STRONG_GRADES, Grade
from benchmarks.matching.febrl import Pair, find_pairs
from benchmarks.matching.lookalike_register import LookalikeRegister, Person
from benchmarks.report import table_head, table_row

CONFIDENCE_QUANTILE = 1.96
"""Quantile of the normal distribution for intervals of 95 %."""


def run(arguments: argparse.Namespace) -> None:
    """Print precision and recall with intervals of 95 %, and which look-alikes are taken for one person."""
    columns = ["register", "records", "grade", "pairs", "precision", "interval", "recall", "interval", "mistakes"]
    print(*table_head(columns), sep="\n")
    totals: dict[str, list[Counts]] = {}
    for seed in arguments.seeds:
        register = LookalikeRegister(seed, with_identifiers=arguments.identifiers)
        records = {unique_id: (person, fields) for unique_id, person, fields in register.records(arguments.groups)}
        found = find_pairs({"unique_id": unique_id, **fields} for unique_id, (_, fields) in records.items())
        persons = {unique_id: person for unique_id, (person, _) in records.items()}
        for name, grades in (("certain", {Grade.CERTAIN}), ("probable or better", STRONG_GRADES)):
            counts = _count({pair for pair, grade in found.items() if grade in grades}, persons)
            totals.setdefault(name, []).append(counts)
            print(table_row([f"seed {seed}", str(len(records)), name, *counts.cells()]), flush=True)
    for name, of_seeds in totals.items():
        print(table_row(["all", "", name, *Counts.sum(of_seeds).cells()]))


class Counts(NamedTuple):
    """How many pairs are one person, how many of these were found, and the others that were."""

    true: int
    hits: int
    mistakes: Counter[str]

    @classmethod
    def sum(cls, parts: list["Counts"]) -> "Counts":
        """Return the counts of several registers together."""
        mistakes = sum((part.mistakes for part in parts), Counter[str]())
        return cls(sum(part.true for part in parts), sum(part.hits for part in parts), mistakes)

    def cells(self) -> list[str]:
        """Return the cells of a row of the table."""
        found = self.hits + self.mistakes.total()
        mistakes = ", ".join(f"{count} {name}" for name, count in sorted(self.mistakes.items())) or "none"
        return [str(found), *_with_interval(self.hits, found), *_with_interval(self.hits, self.true), mistakes]


def _count(found: set[Pair], persons: dict[str, Person]) -> Counts:
    records = Counter(person.number for person in persons.values())
    true = sum(count * (count - 1) // 2 for count in records.values())
    mistakes = Counter[str]()
    for one, other in (tuple(pair) for pair in found):
        if persons[one].number != persons[other].number:
            is_group = persons[one].group == persons[other].group
            mistakes[persons[one].situation if is_group else "strangers"] += 1
    return Counts(true, len(found) - mistakes.total(), mistakes)


def _with_interval(hits: int, count: int) -> list[str]:
    """Return a share and its interval by Wilson."""
    share, square = hits / count, CONFIDENCE_QUANTILE**2
    center = (share + square / (2 * count)) / (1 + square / count)
    half = CONFIDENCE_QUANTILE * sqrt(share * (1 - share) / count + square / (4 * count**2)) / (1 + square / count)
    return [f"{share:.4f}", f"{center - half:.4f} to {center + half:.4f}"]
