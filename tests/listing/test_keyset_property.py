"""Pages for any filters and ordering match the result of a plain query, for restricted principals too."""

from collections.abc import AsyncIterator, Callable
from random import Random
from typing import NamedTuple

import asyncpg
import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.auth.support import client_for, make_key, secured_app
from tests.hospital_scope.conftest import REGULAR_SCOPES
from tests.listing.test_filters_and_cursors import SEARCH, walk_pages


class PlainFilter(NamedTuple):
    """The condition of a parameter in a plain query, and values to draw from."""

    condition: Callable[[str], str]
    values: list[str]


def _folded_filter(column: str, *values: str) -> PlainFilter:
    return PlainFilter(
        lambda value: f"lower(extensions.unaccent({column})) = lower(extensions.unaccent('{value}'))", list(values)
    )


TOWNS = ("Soweto", "soweto", "Çeşme", "cesme", "Elsewhere")
TIMESTAMPS = [
    "2025-11-30T22:00:00+00:00",
    "2026-01-02T00:00:00+00:00",
    "2026-02-15T12:00:00+00:00",
    "1999-01-01T00:00:00+00:00",
]
PERSON_NAMES = ("Nel", "nél", "Nkosi", "Ærø", "van Wyk", "Zulu")
PLAIN_FILTERS = {
    "patient_town": _folded_filter("patient_town", *TOWNS),
    "patient_race": _folded_filter("patient_race", "A", "b"),
    "patient_last_name": _folded_filter("patient_last_name", *PERSON_NAMES),
    "patient_last_name__startswith": PlainFilter(
        lambda value: (
            f"lower(extensions.unaccent(patient_last_name)) LIKE lower(extensions.unaccent('{value}')) || '%'"
        ),
        ["n", "Ae", "van", "q"],
    ),
    "date_created__gte": PlainFilter(lambda value: f"date_created >= '{value}'", TIMESTAMPS),
    "date_created__lt": PlainFilter(lambda value: f"date_created < '{value}'", TIMESTAMPS),
    "last_updated__gte": PlainFilter(lambda value: f"last_updated >= '{value}'", TIMESTAMPS),
    "last_updated__lt": PlainFilter(lambda value: f"last_updated < '{value}'", TIMESTAMPS),
    "patient_gender": PlainFilter(lambda value: f"patient_gender = '{value}'", ["Male", "Female"]),
    "hospital_id": PlainFilter(
        lambda value: (
            f"EXISTS (SELECT FROM patient_hospitals WHERE patient_id = unique_id AND hospital_id = '{value}')"
        ),
        ["hosA", "hosB", "hosC"],
    ),
    "patient_date_of_birth__gte": PlainFilter(
        lambda value: f"patient_date_of_birth >= '{value}'", ["1980-01-01", "1990-01-01"]
    ),
    "patient_date_of_birth__lte": PlainFilter(
        lambda value: f"patient_date_of_birth <= '{value}'", ["1985-01-01", "1979-01-01"]
    ),
}
SORT_EXPRESSIONS = {
    "unique_id": "NULL::text",
    "date_created": "date_created",
    "last_updated": "last_updated",
    "patient_last_name": "lower(extensions.unaccent(patient_last_name))",
    "patient_first_name": "lower(extensions.unaccent(patient_first_name))",
    "patient_date_of_birth": "patient_date_of_birth",
}
CREATION_MONTHS = ("2025-11", "2025-12", "2026-01", "2026-02", "2026-02")
IN_SCOPE_CONDITION = (
    "EXISTS (SELECT FROM patient_hospitals WHERE patient_id = unique_id AND hospital_id IN ('hosA', 'hosB'))"
)


class ListClients(NamedTuple):
    """Clients of one service, and a connection that bypasses it."""

    unrestricted: httpx.AsyncClient
    restricted: httpx.AsyncClient
    """Restricted to the hospitals A and B."""
    connection: asyncpg.Connection


@pytest.fixture
async def list_clients(database_url: str, connection: asyncpg.Connection) -> AsyncIterator[ListClients]:
    """Yield clients of a service with 150 patients that have few distinct values, some of them missing."""
    random = Random(7)  # noqa: S311  # the numbers need not be secret
    await connection.execute(
        "INSERT INTO hospitals (unique_id, hospital_name) SELECT id, id FROM unnest(ARRAY['hosA', 'hosB', 'hosC']) id"
    )

    def any_of(*values: str) -> str | None:
        return random.choice([*values, None])

    for number in range(150):
        unique_id = f"pat{random.randrange(10**6):06}-{number}"
        born = any_of("1979-05-05", "1985-01-01", "1990-01-01")
        await connection.execute(
            "INSERT INTO patients (unique_id, patient_first_name, patient_last_name, patient_town, patient_race, "
            "patient_gender, patient_date_of_birth, date_created, last_updated) VALUES "
            "($1, $2, $3, $4, $5, $6, $7::text::date, $8::text::timestamptz, $8::text::timestamptz)",
            *(unique_id, random.choice(PERSON_NAMES), any_of(*PERSON_NAMES), any_of(*TOWNS[:-1]), any_of("a", "B")),
            *(any_of("Male", "Female"), born, f"{random.choice(CREATION_MONTHS)}-0{random.randrange(1, 5)}"),
        )
        hospitals = [name for name in ("hosA", "hosB", "hosC") if random.random() < 0.4]
        await connection.executemany(
            "INSERT INTO patient_hospitals VALUES ($1, $2)", [(unique_id, name) for name in hospitals]
        )
    async with secured_app(database_url, rate_limit="off") as app:
        unrestricted = client_for(app, await make_key(database_url, *REGULAR_SCOPES, name="free"))
        restricted = client_for(
            app, await make_key(database_url, *REGULAR_SCOPES, name="limited", hospitals=["hosA", "hosB"])
        )
        async with unrestricted, restricted:
            yield ListClients(unrestricted, restricted, connection)


def _draw_filters_and_ordering(random: Random) -> tuple[dict[str, list[str]], str | None]:
    """Return random filters and a random ordering."""
    names = random.sample(sorted(PLAIN_FILTERS), random.choice((0, 1, 1, 2, 3)))
    if random.random() < 0.2:
        names = [name for name in PLAIN_FILTERS if name.startswith("date_created")][random.randrange(2) :]
    filters = {name: random.sample(PLAIN_FILTERS[name].values, random.choice((1, 1, 2))) for name in names}
    ordering = random.choice([None, *SORT_EXPRESSIONS, *(f"-{name}" for name in SORT_EXPRESSIONS)])
    return filters, ordering


@given(seed=st.integers(0, 2**32))
@settings(
    max_examples=60,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
async def test_pages_match_a_plain_query_for_any_filters_and_ordering(list_clients: ListClients, seed: int) -> None:
    """Pages match a plain query for any filters, ordering, size and principal, by links and by cursors in bodies."""
    random = Random(seed)  # noqa: S311  # the numbers need not be secret
    filters, ordering = _draw_filters_and_ordering(random)
    restricted = random.random() < 0.5
    conditions = [
        f"({' OR '.join(PLAIN_FILTERS[name].condition(value) for value in values)})" for name, values in filters.items()
    ]
    key, direction = (
        SORT_EXPRESSIONS[(ordering or "unique_id").removeprefix("-")],
        "DESC" if ordering and ordering[0] == "-" else "ASC",
    )
    condition = " AND ".join([IN_SCOPE_CONDITION if restricted else "true", *conditions])
    statement = (
        f"SELECT unique_id FROM patients WHERE {condition} "  # noqa: S608
        f'ORDER BY {key} COLLATE "C" {direction} NULLS LAST, unique_id {direction}'
    )
    if "date" in key or "updated" in key:
        statement = statement.replace(' COLLATE "C"', "")
    expected = [unique_id for (unique_id,) in await list_clients.connection.fetch(statement)]
    client = list_clients.restricted if restricted else list_clients.unrestricted
    query = {**filters, **({"ordering": ordering} if ordering else {})}
    size = random.choice((1, 2, 3, 7, 50, 150, None))
    assert await walk_pages(client, query, size, body=random.random() < 0.5) == expected
    counted = await client.post(SEARCH, json={**query, "limit": 1, "count": "exact"})
    assert counted.headers["X-Total-Count"] == str(len(expected))
