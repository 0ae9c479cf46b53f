"""The kinds of request whose speed is measured, and how much slower each may be in a large register."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from random import Random

from benchmarks.client import Client
from benchmarks.finding import queries
from benchmarks.finding.asking import LIMIT, Request, following, listing, search
from benchmarks.finding.filters import COMBINATIONS, FILTERS, Filter
from benchmarks.finding.queries import Query
from benchmarks.finding.sites import Site
from benchmarks.register import Registered
from benchmarks.sides import SideError

DEEP = 1000
"""Pages before one that is deep."""
SOME_DEEP = 150
"""The same of an ordering: as deep in a register of 10,000."""
ORDERINGS = (
    *("unique_id", "date_created", "last_updated"),
    *("patient_last_name", "patient_first_name", "patient_date_of_birth"),
)
BY_TEXT = ("patient_last_name", "patient_first_name")

Draw = Callable[[Site, Sequence[Registered], int], list[Request]]
"""Makes so many requests to a site, from a sample of its patients."""


@dataclass(frozen=True)
class Group:
    """Kinds with one goal."""

    name: str
    ratio: float
    """How many times the median of the smallest register that of the largest may be."""
    p99: float | None = None
    """Milliseconds, in each register."""


PAGES = Group("page", 1.3)
FILTERED = Group("filter", 2)
ORDERED = Group("ordering", 2)
SEARCHED = Group("search", 4, 100)
COMBINED = Group("further filter", 2)
LOOKED_UP = Group("further search", 4, 100)


@dataclass(frozen=True)
class Kind:
    """A row of the table."""

    group: Group
    what: str
    draw: Draw

    @property
    def name(self) -> str:
        """The group's, then its own."""
        return f"{self.group.name} {self.what}"


def _page(parameters: str, depth: int) -> Draw:
    """One page, again and again."""

    def draw(site: Site, _sample: Sequence[Registered], count: int) -> list[Request]:
        # no deeper than the last but one that is full
        pages = min(depth, site.patients // LIMIT - 2)
        with closing(Client(site.service)) as client:
            return [following(client, listing(parameters), pages)] * count

    return draw


def _filtered(name: str, one: Filter) -> Draw:
    """A page of those who are like one of the sample, another one each time."""

    def draw(_site: Site, sample: Sequence[Registered], count: int) -> list[Request]:
        random = Random(name)
        found = (one(registered, random) for registered in sample)
        return _enough((search(values) for values in found if values is not None), name, count)

    return draw


def _searched(name: str, query: Query) -> Draw:
    """A page of what is found by one query after another."""

    def draw(_site: Site, sample: Sequence[Registered], count: int) -> list[Request]:
        typed = queries.asked(query, (registered.patient for registered in sample), Random(name))
        return _enough((search({"search": text}) for _, text in typed), name, count)

    return draw


def _enough(requests: Iterable[Request], name: str, count: int) -> list[Request]:
    taken = list(islice(requests, count))
    if len(taken) < count:
        raise SideError(f"The register has only {len(taken)} patients for {name}, not {count}.")
    return taken


_SEARCHES: dict[str, Query] = {
    "full name": queries.full_name,
    "misspelt full name": queries.misspelt,
    "mobile in another spelling": queries.mobile_spelt_otherwise,
    "date of birth and last name": queries.birth_and_last_name,
}
_FURTHER_SEARCHES: dict[str, Query] = {
    "last name alone": queries.last_name,
    "three letters of both names": queries.beginnings,
    "initial and last name": queries.initial_and_last_name,
    "both names misspelt": queries.both_misspelt,
}

KINDS = (
    Kind(PAGES, "first", _page("", 0)),
    Kind(PAGES, f"{DEEP:,} deep", _page("", DEEP)),
    *(Kind(FILTERED, name, _filtered(name, one)) for name, one in FILTERS.items()),
    *(Kind(ORDERED, f"{way}{name}", _page(f"ordering={way}{name}", 0)) for name in ORDERINGS for way in ("", "-")),
    *(
        Kind(ORDERED, f"{way}{name}, {SOME_DEEP} deep", _page(f"ordering={way}{name}", SOME_DEEP))
        for name in BY_TEXT
        for way in ("", "-")
    ),
    *(Kind(SEARCHED, name, _searched(name, query)) for name, query in _SEARCHES.items()),
    *(Kind(COMBINED, name, _filtered(name, one)) for name, one in COMBINATIONS.items()),
    *(Kind(LOOKED_UP, name, _searched(name, query)) for name, query in _FURTHER_SEARCHES.items()),
)
