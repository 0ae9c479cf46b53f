"""Populations for the measurement of look-alikes: how names, towns and phone numbers are drawn."""

from collections.abc import Callable
from itertools import accumulate
from random import Random
from typing import NamedTuple


class NameList(NamedTuple):
    """Names of which the k-th is about `k ** -exponent` times as frequent as the first one."""

    names: list[str]
    cumulative_weights: list[float]
    tail_share: float
    """Share of people whose name is so rare that it is made up of syllables."""
    syllables: list[str]

    def draw(self, random: Random) -> str:
        """Return a random name."""
        if random.random() < self.tail_share:
            return "".join(random.choices(self.syllables, k=random.randint(2, 4))).title()
        return random.choices(self.names, cum_weights=self.cumulative_weights)[0]


class People(NamedTuple):
    """A population with its own names and habits."""

    female_names: NameList
    male_names: NameList
    last_names: NameList
    second_name_share: float
    """Share of people with a second first name."""
    new_year_share: float
    """Share of people whose date of birth is not known and recorded as 1 January."""
    spellings: list[list[str]]
    """Spellings of the same word, of which clerks take any."""
    short_forms: dict[str, list[str]]
    twins: list[list[str]]
    """Names that twins have because they are alike."""
    towns: list[tuple[str, str, str]]
    """Towns with postal code and province."""
    streets: list[str]
    phone: Callable[[Random], str]
    """Returns a random mobile number as people write it."""


def split_words(text: str) -> list[str]:
    return [word.replace("_", " ") for word in text.split()]


def name_list(text: str, exponent: float, tail: float, syllables: str) -> NameList:
    names = split_words(text)
    weights = list(accumulate((at + 1) ** -exponent for at in range(len(names))))
    return NameList(names, weights, tail, syllables.split())


def split_groups(text: str) -> list[list[str]]:
    return [group.split() for group in text.split(";")]


def split_short_forms(text: str) -> dict[str, list[str]]:
    return {group.split()[0]: group.split()[1:] for group in text.split(";")}


def split_towns(text: str) -> list[tuple[str, str, str]]:
    towns = (town.strip().split(":") for town in text.split(";"))
    return [(name, code, province) for name, code, province in towns]


def south_african_phone(random: Random) -> str:
    network, digits = random.choice("678"), f"{random.randint(0, 99_999_999):08}"
    number = network + digits
    return random.choice((f"0{number}", f"+27{number}", f"0{number[:2]} {number[2:5]} {number[5:]}"))


def foreign_phone(code: str, prefix: str, length: int) -> Callable[[Random], str]:
    def phone(random: Random) -> str:
        return f"+{code}{prefix}{random.randint(0, 10**length - 1):0{length}}"

    return phone
