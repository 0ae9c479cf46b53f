"""The kinds of request that are timed, and how much slower each may be in a large register."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from random import Random

from benchmarks.client import Client
from benchmarks.finding import queries
from benchmarks.finding.deployments import Deployment
from benchmarks.finding.filters import FILTER_COMBINATIONS, FILTERS, Filter
from benchmarks.finding.queries import Query
from benchmarks.finding.requests import PAGE_SIZE, Request, list_request, request_after_pages, search_request
from benchmarks.register import RegisteredPatient
from benchmarks.sides import SideError

DEEP_PAGES = 1000
"""The number of pages before a deep page."""
DEEP_ORDERED_PAGES = 150
"""The same for an ordering, which is as deep in a register of 10,000."""
ORDERINGS = (
    *("unique_id", "date_created", "last_updated"),
    *("patient_last_name", "patient_first_name", "patient_date_of_birth"),
)
TEXT_ORDERINGS = ("patient_last_name", "patient_first_name")

RequestFactory = Callable[[Deployment, Sequence[RegisteredPatient], int], list[Request]]
"""Returns the given number of requests to a deployment, from a sample of its patients."""


@dataclass(frozen=True)
class GoalGroup:
    """A group of kinds with the same goal."""

    name: str
    max_ratio: float
    """The limit for the median in the largest register, as a multiple of the median in the smallest."""
    max_p99_milliseconds: float | None = None
    """The limit in each register."""


PAGE_GROUP = GoalGroup("page", 1.3)
FILTER_GROUP = GoalGroup("filter", 2)
ORDERING_GROUP = GoalGroup("ordering", 2)
SEARCH_GROUP = GoalGroup("search", 4, 100)
FURTHER_FILTER_GROUP = GoalGroup("further filter", 2)
FURTHER_SEARCH_GROUP = GoalGroup("further search", 4, 100)


@dataclass(frozen=True)
class RequestKind:
    """A row of the table."""

    group: GoalGroup
    description: str
    make_requests: RequestFactory

    @property
    def name(self) -> str:
        """The name of the group, followed by the description."""
        return f"{self.group.name} {self.description}"


def _page_requests(parameters: str, depth: int) -> RequestFactory:
    """Return a factory that repeats the request for one page."""

    def make_requests(deployment: Deployment, _sample: Sequence[RegisteredPatient], count: int) -> list[Request]:
        # at most the last full page but one
        pages = min(depth, deployment.patient_count // PAGE_SIZE - 2)
        with closing(Client(deployment.service)) as client:
            return [request_after_pages(client, list_request(parameters), pages)] * count

    return make_requests


def _filter_requests(name: str, value_filter: Filter) -> RequestFactory:
    """Return a factory for pages of patients like one of the sample, a different one each time."""

    def make_requests(_site: Deployment, sample: Sequence[RegisteredPatient], count: int) -> list[Request]:
        random = Random(name)
        all_values = (value_filter(registered, random) for registered in sample)
        return _take_exactly((search_request(values) for values in all_values if values is not None), name, count)

    return make_requests


def _search_requests(name: str, query: Query) -> RequestFactory:
    """Return a factory for pages of search results, with a different query each time."""

    def make_requests(_site: Deployment, sample: Sequence[RegisteredPatient], count: int) -> list[Request]:
        query_texts = queries.generate_queries(query, (registered.patient for registered in sample), Random(name))
        return _take_exactly((search_request({"search": text}) for _, text in query_texts), name, count)

    return make_requests


def _take_exactly(requests: Iterable[Request], name: str, count: int) -> list[Request]:
    selected = list(islice(requests, count))
    if len(selected) < count:
        raise SideError(f"The register has only {len(selected)} patients for {name}, not {count}.")
    return selected


_SEARCHES: dict[str, Query] = {
    "full name": queries.full_name,
    "misspelt full name": queries.misspelt_name,
    "mobile in another spelling": queries.reformatted_mobile,
    "date of birth and last name": queries.birth_date_and_last_name,
}
_FURTHER_SEARCHES: dict[str, Query] = {
    "last name alone": queries.last_name,
    "three letters of both names": queries.name_prefixes,
    "initial and last name": queries.initial_and_last_name,
    "both names misspelt": queries.both_names_misspelt,
}

REQUEST_KINDS = (
    RequestKind(PAGE_GROUP, "first", _page_requests("", 0)),
    RequestKind(PAGE_GROUP, f"{DEEP_PAGES:,} deep", _page_requests("", DEEP_PAGES)),
    *(RequestKind(FILTER_GROUP, name, _filter_requests(name, one)) for name, one in FILTERS.items()),
    *(
        RequestKind(ORDERING_GROUP, f"{way}{name}", _page_requests(f"ordering={way}{name}", 0))
        for name in ORDERINGS
        for way in ("", "-")
    ),
    *(
        RequestKind(
            ORDERING_GROUP,
            f"{way}{name}, {DEEP_ORDERED_PAGES} deep",
            _page_requests(f"ordering={way}{name}", DEEP_ORDERED_PAGES),
        )
        for name in TEXT_ORDERINGS
        for way in ("", "-")
    ),
    *(RequestKind(SEARCH_GROUP, name, _search_requests(name, query)) for name, query in _SEARCHES.items()),
    *(
        RequestKind(FURTHER_FILTER_GROUP, name, _filter_requests(name, one))
        for name, one in FILTER_COMBINATIONS.items()
    ),
    *(
        RequestKind(FURTHER_SEARCH_GROUP, name, _search_requests(name, query))
        for name, query in _FURTHER_SEARCHES.items()
    ),
)
