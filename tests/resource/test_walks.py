"""Pages of any filters and ordering are what a plain query answers, for who is limited to hospitals too."""

from collections.abc import AsyncIterator, Callable
from random import Random
from typing import NamedTuple

import asyncpg
import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.auth.support import client_of, make_key, secured
from tests.resource.test_finding import SEARCH, walk
from tests.walls.conftest import SCOPES


class Plain(NamedTuple):
    """How a plain query says what a parameter does, and values to draw from."""

    condition: Callable[[str], str]
    values: list[str]


def _folded(column: str, *values: str) -> Plain:
    return Plain(
        lambda value: f"lower(extensions.unaccent({column})) = lower(extensions.unaccent('{value}'))", list(values)
    )


TOWNS = ("Soweto", "soweto", "Çeşme", "cesme", "Elsewhere")
MOMENTS = [
    "2025-11-30T22:00:00+00:00",
    "2026-01-02T00:00:00+00:00",
    "2026-02-15T12:00:00+00:00",
    "1999-01-01T00:00:00+00:00",
]
NAMES = ("Nel", "nél", "Nkosi", "Ærø", "van Wyk", "Zulu")
PLAIN = {
    "patient_town": _folded("patient_town", *TOWNS),
    "patient_race": _folded("patient_race", "A", "b"),
    "patient_last_name": _folded("patient_last_name", *NAMES),
    "patient_last_name__startswith": Plain(
        lambda value: (
            f"lower(extensions.unaccent(patient_last_name)) LIKE lower(extensions.unaccent('{value}')) || '%'"
        ),
        ["n", "Ae", "van", "q"],
    ),
    "date_created__gte": Plain(lambda value: f"date_created >= '{value}'", MOMENTS),
    "date_created__lt": Plain(lambda value: f"date_created < '{value}'", MOMENTS),
    "last_updated__gte": Plain(lambda value: f"last_updated >= '{value}'", MOMENTS),
    "last_updated__lt": Plain(lambda value: f"last_updated < '{value}'", MOMENTS),
    "patient_gender": Plain(lambda value: f"patient_gender = '{value}'", ["Male", "Female"]),
    "hospital_id": Plain(
        lambda value: (
            f"EXISTS (SELECT FROM patient_hospitals WHERE patient_id = unique_id AND hospital_id = '{value}')"
        ),
        ["hosA", "hosB", "hosC"],
    ),
    "patient_date_of_birth__gte": Plain(
        lambda value: f"patient_date_of_birth >= '{value}'", ["1980-01-01", "1990-01-01"]
    ),
    "patient_date_of_birth__lte": Plain(
        lambda value: f"patient_date_of_birth <= '{value}'", ["1985-01-01", "1979-01-01"]
    ),
}
KEYS = {
    "unique_id": "NULL::text",
    "date_created": "date_created",
    "last_updated": "last_updated",
    "patient_last_name": "lower(extensions.unaccent(patient_last_name))",
    "patient_first_name": "lower(extensions.unaccent(patient_first_name))",
    "patient_date_of_birth": "patient_date_of_birth",
}
MONTHS = ("2025-11", "2025-12", "2026-01", "2026-02", "2026-02")
OWN = "EXISTS (SELECT FROM patient_hospitals WHERE patient_id = unique_id AND hospital_id IN ('hosA', 'hosB'))"


class Lists(NamedTuple):
    """Clients of one register, and a connection past the service."""

    free: httpx.AsyncClient
    limited: httpx.AsyncClient
    """To the hospitals A and B."""
    connection: asyncpg.Connection


@pytest.fixture
async def lists(database_url: str, connection: asyncpg.Connection) -> AsyncIterator[Lists]:
    """A register of 150 patients with few different values, so that many are alike, and some unknown."""
    random = Random(7)  # noqa: S311  # nobody is to be kept from guessing
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
            *(unique_id, random.choice(NAMES), any_of(*NAMES), any_of(*TOWNS[:-1]), any_of("a", "B")),
            *(any_of("Male", "Female"), born, f"{random.choice(MONTHS)}-0{random.randrange(1, 5)}"),
        )
        hospitals = [name for name in ("hosA", "hosB", "hosC") if random.random() < 0.4]
        await connection.executemany(
            "INSERT INTO patient_hospitals VALUES ($1, $2)", [(unique_id, name) for name in hospitals]
        )
    async with secured(database_url, rate_limit="off") as app:
        free = client_of(app, await make_key(database_url, *SCOPES, name="free"))
        limited = client_of(app, await make_key(database_url, *SCOPES, name="limited", hospitals=["hosA", "hosB"]))
        async with free, limited:
            yield Lists(free, limited, connection)


def _draw(random: Random) -> tuple[dict[str, list[str]], str | None]:
    """Filters and an ordering."""
    names = random.sample(sorted(PLAIN), random.choice((0, 1, 1, 2, 3)))
    if random.random() < 0.2:
        names = [name for name in PLAIN if name.startswith("date_created")][random.randrange(2) :]
    filters = {name: random.sample(PLAIN[name].values, random.choice((1, 1, 2))) for name in names}
    ordering = random.choice([None, *KEYS, *(f"-{name}" for name in KEYS)])
    return filters, ordering


@given(seed=st.integers(0, 2**32))
@settings(
    max_examples=60,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
async def test_pages_are_what_a_plain_query_answers(lists: Lists, seed: int) -> None:
    """For any filters, ordering and size, for who is limited to hospitals too, by links and by cursors in bodies."""
    random = Random(seed)  # noqa: S311  # nobody is to be kept from guessing
    filters, ordering = _draw(random)
    limited = random.random() < 0.5
    conditions = [
        f"({' OR '.join(PLAIN[name].condition(value) for value in values)})" for name, values in filters.items()
    ]
    key, direction = (
        KEYS[(ordering or "unique_id").removeprefix("-")],
        "DESC" if ordering and ordering[0] == "-" else "ASC",
    )
    statement = (
        f"SELECT unique_id FROM patients WHERE {' AND '.join([OWN if limited else 'true', *conditions])} "  # noqa: S608
        f'ORDER BY {key} COLLATE "C" {direction} NULLS LAST, unique_id {direction}'
    )
    if "date" in key or "updated" in key:
        statement = statement.replace(' COLLATE "C"', "")
    expected = [unique_id for (unique_id,) in await lists.connection.fetch(statement)]
    client = lists.limited if limited else lists.free
    wanted = {**filters, **({"ordering": ordering} if ordering else {})}
    size = random.choice((1, 2, 3, 7, 50, 150, None))
    assert await walk(client, wanted, size, body=random.random() < 0.5) == expected
    counted = await client.post(SEARCH, json={**wanted, "limit": 1, "count": "exact"})
    assert counted.headers["X-Total-Count"] == str(len(expected))
