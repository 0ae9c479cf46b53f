"""Filters, orderings and cursors: which patients they return, in which order, and how pages continue."""

import asyncio
import base64
import json
from typing import Any

import asyncpg
import httpx
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from app.listing.pagination import NON_FILTER_PARAMETERS
from app.main import create_app
from app.patients.schemas import PatientParameters
from app.settings import Settings
from tests.support import EXAMPLE_PATIENT

PATIENTS = "/patients/patients/"
SEARCH = f"{PATIENTS}search/"

MATCHING_VALUES = {
    "unique_id": ["one"],
    "hospital_id": ["hos456"],
    "doctor_id": ["doc123"],
    "profile_id": ["prof123"],
    "patient_first_name": ["Zoë", "zoe", "ZOE", " zoë "],
    "patient_last_name": ["Ærø", "aero", "ÆRØ"],
    "patient_last_name__startswith": ["Ær", "ae", "AERO"],
    "patient_town": ["sample town"],
    "patient_region": ["SAMPLE REGION"],
    "patient_province": ["sämple próvince"],
    "patient_country": ["Sample country"],
    "patient_race": ["caucasian"],
    "patient_access_medical_care": ["public"],
    "patient_gender": ["Male", "male", "M", "m"],
    "patient_postal_code": ["ab 12", "AB 12"],
    "patient_email_address": ["PATIENT@example.com"],
    "patient_mobile_number": ["082 123 4567", "+27821234567", "0027 (0)82-123-4567", "27 82 123 4567"],
    "patient_date_of_birth": ["1980-01-01"],
    "patient_date_of_birth__gte": ["1980-01-01", "1979-12-31"],
    "patient_date_of_birth__lte": ["1980-01-01", "2100-01-01"],
    "date_created__gte": ["2020-01-01", "2020-01-01T00:00:00Z"],
    "date_created__lt": ["2100-01-01", "2100-01-01T12:00:00+02:00"],
    "last_updated__gte": ["2020-01-01"],
    "last_updated__lt": ["2100-01-01"],
}
"""Values of each filter that match the patient."""
NON_MATCHING_VALUES = {
    "unique_id": "nobodys",
    "hospital_id": "hos789",
    "doctor_id": "doc456",
    "profile_id": "nobodys",
    "patient_last_name__startswith": "r",
    "patient_gender": "Female",
    "patient_email_address": "patient@example.org",
    "patient_mobile_number": "082 123 4568",
    "patient_date_of_birth": "1980-01-02",
    "patient_date_of_birth__gte": "1980-01-02",
    "patient_date_of_birth__lte": "1979-12-31",
    "date_created__gte": "2100-01-01",
    "date_created__lt": "2020-01-01",
    "last_updated__gte": "2100-01-01",
    "last_updated__lt": "2020-01-01",
}
"""A value of each filter that does not match; for the other text filters, the test cuts off a matching text."""
INVALID_PARAMETERS = {
    "unique_id": "pat 1",
    "hospital_id": "hos 1",
    "patient_town": " ",
    "patient_last_name": "x" * 200,
    "patient_gender": "?",
    "patient_email_address": "nobody-at",
    "patient_mobile_number": "many",
    "patient_date_of_birth": "01/02/1980",
    "patient_date_of_birth__gte": "1980-02-30",
    "date_created__gte": "yesterday",
    "last_updated__lt": "2020-13-01",
    "ordering": "patient_town",
    "search": "a" * 201,
    "patient_last_name__gte": "a",
    "patient_title": "Dr.",
    "version": "1",
}


def test_every_filter_has_matching_values() -> None:
    """No filter is missing in `MATCHING_VALUES`, so that the tests below cover all of them."""
    assert MATCHING_VALUES.keys() == PatientParameters.model_fields.keys() - NON_FILTER_PARAMETERS


@pytest.mark.usefixtures("hospitals_and_doctors")
async def test_each_filter_finds_matching_patients_only(client: httpx.AsyncClient) -> None:
    """Each filter, in a query or a body, matches in any case, accents and spelling, and matches no other patient."""
    names = {"patient_first_name": "Zoë", "patient_last_name": "Ærø", "patient_postal_code": "Ab 12"}
    one = {**EXAMPLE_PATIENT, **names, "unique_id": "one", "patient_mobile_number": "082 123 4567"}
    assert (await client.post(PATIENTS, json=one)).status_code == 201
    assert (
        await client.post(PATIENTS, json={"unique_id": "two", "patient_title": "Dr.", "patient_first_name": "Ann"})
    ).status_code == 201
    for name, values in MATCHING_VALUES.items():
        for value in values:
            for response in (
                await client.get(PATIENTS, params={name: value}),
                await client.post(SEARCH, json={name: value}),
                await client.post(SEARCH, json={name: [value]}),
            ):
                found = [record["unique_id"] for record in response.json()]
                assert (name, value, found[:1]) == (name, value, ["one"])
                assert len(found) == 1 or name[:5] in {"date_", "last_"}
        missing = NON_MATCHING_VALUES.get(name, values[0][:-1].strip())
        responses = [
            await client.get(PATIENTS, params={name: missing}),
            await client.post(SEARCH, json={name: missing}),
        ]
        assert [(name, response.json()) for response in responses] == [(name, [])] * 2
        either = await client.get(PATIENTS, params={name: [missing, values[0]]})
        assert either.json()[0]["unique_id"] == "one"
    every = {name: values[0] for name, values in MATCHING_VALUES.items()}
    assert len((await client.get(PATIENTS, params=every)).json()) == 1
    assert (await client.get(PATIENTS, params={**every, "patient_race": "other"})).json() == []


@pytest.mark.parametrize(("name", "value"), INVALID_PARAMETERS.items())
async def test_invalid_filter_values_are_422(client: httpx.AsyncClient, name: str, value: str) -> None:
    """An invalid value is a 422 that names the parameter and does not repeat the value."""
    for place, response in {
        "query": await client.get(PATIENTS, params={name: value}),
        "body": await client.post(SEARCH, json={name: value}),
    }.items():
        assert response.status_code == 422
        assert response.headers["Content-Type"] == "application/problem+json"
        assert [error["loc"][:2] for error in response.json()["errors"]] == [[place, name]]
        assert len(value.strip()) < 4 or value not in response.text


async def test_search_bodies_of_wrong_types_are_422(client: httpx.AsyncClient) -> None:
    """A search body of wrong types, or with parameters in the query, is a 422, which repeats no name of a person."""
    bodies: list[Any] = [
        {"limit": "5"},
        {"patient_town": 5},
        {"patient_town": []},
        {"patient_town": [["x"]]},
        {"search": ["x"]},
        [],
        "x",
    ]
    for body in bodies:
        assert (await client.post(SEARCH, json=body)).status_code == 422
    assert (await client.post(SEARCH, json={"patient_town": ["x"] * 51})).status_code == 422
    assert (await client.post(SEARCH, json={"limit": None, "search": None, "patient_town": None})).status_code == 200
    assert (await client.post(SEARCH)).status_code == 422
    elsewhere = await client.post(f"{SEARCH}?patient_last_name=Doe&limit=1", json={})
    assert [error["loc"] for error in elsewhere.json()["errors"]] == [
        ["query", "patient_last_name"],
        ["query", "limit"],
    ]
    mistaken = await client.post(f"{SEARCH}?Nandi%20Dube=1", json={})
    twice = await client.get(f"{PATIENTS}?Nandi%20Dube=1&Nandi%20Dube=2")
    for response in (mistaken, twice):
        assert response.status_code == 422
        assert "Nandi" not in response.text


async def test_orderings_ignore_case_and_accents_with_nulls_last(client: httpx.AsyncClient) -> None:
    """Orderings ignore case and accents, break ties by id, and put missing values last in both directions."""
    for unique_id, last, first, born in (
        ("a", "émile", "Zoe", "1990-01-01"),
        ("b", "Emile", "anna", "1980-01-01"),
        ("c", "Zulu", None, None),
        ("d", None, "Ärne", "1970-01-01"),
        ("e", "Øre", "Anna", "1980-01-01"),
        ("f", None, "bo", None),
    ):
        body = {"unique_id": unique_id, "patient_last_name": last, "patient_first_name": first}
        assert (await client.post(PATIENTS, json={**body, "patient_date_of_birth": born})).status_code == 201
    expected = {
        "unique_id": "abcdef",
        "-unique_id": "fedcba",
        "date_created": "abcdef",
        "-last_updated": "fedcba",
        "patient_last_name": "abecdf",
        "-patient_last_name": "cebafd",
        "patient_first_name": "bedfac",
        "-patient_first_name": "afdebc",
        "patient_date_of_birth": "dbeacf",
        "-patient_date_of_birth": "aebdfc",
    }
    for ordering, order in expected.items():
        for limit in (None, 1, 2, 5, 6):
            found = await walk_pages(client, {"ordering": ordering}, limit)
            assert (ordering, limit, "".join(found)) == (ordering, limit, order)


async def walk_pages(
    client: httpx.AsyncClient, query: dict[str, Any], limit: int | None, *, body: bool = False
) -> list[str]:
    """Return the ids of all pages, by links or, with `body`, by cursors; without a limit, of the whole list."""
    found: list[str] = []
    limit_parameter = {} if limit is None else {"limit": limit}

    async def request_until_available(method: str, url: str, **options: Any) -> httpx.Response:
        async with asyncio.timeout(60):
            # on a busy machine a search may exceed its time limit
            while (response := await client.request(method, url, **options)).status_code == 503:
                assert "Retry-After" in response.headers
        return response

    response = await (
        request_until_available("POST", SEARCH, json={**query, **limit_parameter})
        if body
        else request_until_available("GET", PATIENTS, params={**query, **limit_parameter})
    )
    while True:
        assert response.status_code == 200, response.text
        page = [record["unique_id"] for record in response.json()]
        found += page
        assert limit is None or len(page) <= limit
        if body and "Next-Cursor" in response.headers:
            response = await request_until_available(
                "POST", SEARCH, json={"cursor": response.headers["Next-Cursor"], **limit_parameter}
            )
        elif "next" in response.links:
            response = await request_until_available("GET", response.links["next"]["url"])
        else:
            return found


async def test_cursors_carry_filters_and_ordering_sealed(
    client: httpx.AsyncClient, connection: asyncpg.Connection
) -> None:
    """A cursor carries the filters and the ordering, which may be repeated but not changed, and cannot be read."""
    await connection.execute(
        "INSERT INTO patients (unique_id, patient_last_name, patient_town) "
        "SELECT 'p' || n, 'Dlamini', 'Soweto' FROM generate_series(1, 5) n"
    )
    query: dict[str, Any] = {"patient_town": "SOWETO", "ordering": "-patient_last_name", "limit": 2}
    first = await client.get(PATIENTS, params=query)
    links = {name: httpx.URL(link["url"]) for name, link in first.links.items()}
    for link in links.values():
        assert set(link.params) == {"limit", "cursor"}
        assert not {"soweto", "dlamini", "p4"} & set(str(link).lower().replace("=", "&").split("&"))
    cursor = links["next"].params["cursor"]
    expected = [record["unique_id"] for record in (await client.get(str(links["next"]))).json()]
    assert expected == ["p3", "p2"]
    for response in (
        await client.get(PATIENTS, params={"cursor": cursor, **query}),
        await client.post(SEARCH, json={"cursor": cursor, **query}),
        await client.post(SEARCH, json={"cursor": cursor, "limit": 2}),
    ):
        assert [record["unique_id"] for record in response.json()] == expected
    again = await client.get(str(links["first"]))
    assert (again.content, again.links.keys()) == (first.content, first.links.keys())
    for contradiction in (
        {"patient_town": "Durban"},
        {"ordering": "patient_last_name"},
        {"patient_race": "x"},
        {"search": "x"},
    ):
        for place, refused in {
            "query": await client.get(PATIENTS, params={**contradiction, "cursor": cursor}),
            "body": await client.post(SEARCH, json={**contradiction, "cursor": cursor}),
        }.items():
            assert refused.status_code == 422
            assert [error["loc"] for error in refused.json()["errors"]] == [[place, *contradiction]]
    tampered = await client.post(SEARCH, json={"cursor": cursor[:-2]})
    assert tampered.json()["errors"][0]["loc"] == ["body", "cursor"]


async def test_cursor_length_does_not_reveal_name_length(
    client: httpx.AsyncClient, connection: asyncpg.Connection
) -> None:
    """The cursor of a page that ends with Nel is as long as that of one that ends with Oosthuizen."""
    lengths = set()
    for name in ("Nel", "Oosthuizen"):
        await connection.execute("DELETE FROM patients")
        await connection.execute(
            "INSERT INTO patients (unique_id, patient_last_name) VALUES ('a', $1), ('b', $1)", name
        )
        response = await client.get(PATIENTS, params={"ordering": "patient_last_name", "limit": 1})
        lengths.add(len(response.links["next"]["url"]))
    assert len(lengths) == 1


async def test_query_too_long_for_a_cursor_is_422(client: httpx.AsyncClient, connection: asyncpg.Connection) -> None:
    """A query too long for a cursor is a 422 that names the parameter, instead of failing later at a proxy."""
    await connection.execute("INSERT INTO patients (unique_id, patient_last_name) VALUES ('a', 'Doe'), ('b', 'Doe')")
    query = {"patient_last_name__startswith": [f"{number:02}{'😀' * 140}" for number in range(49)] + ["D"], "limit": 1}
    response = await client.post(SEARCH, json=query)
    assert [error["loc"] for error in response.json()["errors"]] == [["body", "patient_last_name__startswith"]]
    assert len((await client.post(SEARCH, json={**query, "limit": 2})).json()) == 2


async def test_cursors_of_another_version_are_422(client: httpx.AsyncClient, connection: asyncpg.Connection) -> None:
    """A cursor from before an upgrade is a 422, and the client starts again."""
    key = await connection.fetchval("SELECT value FROM secrets WHERE name = 'cursors'")
    for bound in ([], [b"2"]):
        sealed = AESSIV(key).encrypt(json.dumps([[0, None, "pat123"], {}]).encode(), [*bound, PATIENTS.encode()])
        cursor = base64.urlsafe_b64encode(sealed).decode().rstrip("=")
        assert (await client.get(PATIENTS, params={"cursor": cursor})).status_code == 422


@pytest.mark.parametrize("zone", ["America/Asuncion", "Pacific/Kiritimati", "America/Havana"])
async def test_creation_month_filters_use_utc_in_any_database_time_zone(
    database_url: str, connection: asyncpg.Connection, zone: str
) -> None:
    """Months are those of UTC in any time zone of the database, even if some of its days have no midnight."""
    await connection.execute(
        "INSERT INTO patients (unique_id, patient_last_name, date_created) "
        "SELECT 'p' || n, 'Doe', timestamptz '2015-01-01 00:00:00+00' + n * interval '9.9 days' "
        "FROM generate_series(1, 400) n"
    )
    name = await connection.fetchval("SELECT current_database()")
    await connection.execute(f"ALTER DATABASE \"{name}\" SET timezone = '{zone}'")
    app = create_app(Settings.model_validate({"database_url": database_url, "auth": "off"}))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://patients.test") as client,
    ):
        for filters in ({"date_created__gte": "2016-01-01"}, {"date_created__lt": "2024-12-31T23:00:00-05:00"}):
            response = await client.get(PATIENTS, params={**filters, "count": "exact", "limit": 1000})
            assert response.headers["X-Total-Count"] == str(len(response.json()))
            assert len(response.json()) > 350


async def test_pages_under_concurrent_changes_list_each_patient_once(
    client: httpx.AsyncClient, connection: asyncpg.Connection
) -> None:
    """In any ordering, a patient that stays is listed once, whatever is created and deleted between pages."""
    for ordering in ("patient_last_name", "-patient_last_name", "-date_created", "unique_id"):
        await connection.execute("DELETE FROM patients")
        await connection.execute(
            "INSERT INTO patients (unique_id, patient_first_name, patient_last_name) "
            "SELECT 'p' || lpad(n::text, 3, '0'), 'A', CASE WHEN n % 5 > 0 THEN chr(97 + n % 7) END "
            "FROM generate_series(1, 60) n"
        )
        found, url, number = [], f"{PATIENTS}?ordering={ordering}&limit=7", 0
        while url:
            response = await client.get(url)
            found += [record["unique_id"] for record in response.json()]
            url = response.links.get("next", {}).get("url", "")
            number += 1
            await connection.execute(
                "DELETE FROM patients WHERE unique_id = ANY ($1)", [f"p{number * 5:03}", found[-1]]
            )
            await connection.execute(
                "INSERT INTO patients (unique_id, patient_first_name, patient_last_name) "
                "SELECT 'new' || $1::int || n, 'B', nullif(n, 'z') FROM unnest(ARRAY['a', 'd', 'g', 'z']) n",
                number,
            )
        remaining = {
            unique_id
            for (unique_id,) in await connection.fetch("SELECT unique_id FROM patients WHERE patient_first_name = 'A'")
        }
        assert len(found) == len(set(found))
        assert remaining <= set(found)


async def test_filtered_lists_can_be_read_as_ndjson(client: httpx.AsyncClient, connection: asyncpg.Connection) -> None:
    """A list with any filter, ordering or search can be read completely, line by line."""
    await connection.execute(
        "INSERT INTO patients (unique_id, patient_last_name, patient_town) "
        "SELECT 'p' || lpad(n::text, 4, '0'), 'Dube', CASE WHEN n % 2 = 0 THEN 'Soweto' END "
        "FROM generate_series(1, 1300) n"
    )
    lines = {"Accept": "application/x-ndjson"}
    half = await client.get(PATIENTS, params={"patient_town": "soweto", "ordering": "-date_created"}, headers=lines)
    assert half.headers["Content-Type"] == "application/x-ndjson"
    assert half.text.count("\n") == 650
    assert half.text.index('"p1300"') < half.text.index('"p0002"')
    assert (await client.post(SEARCH, json={"patient_town": "soweto"}, headers=lines)).text.count("\n") == 650
    assert (await client.post(SEARCH, json={"search": "dube", "limit": 1000}, headers=lines)).text.count("\n") == 1000


async def test_slow_search_is_503_with_retry_after(client: httpx.AsyncClient, connection: asyncpg.Connection) -> None:
    """A search that PostgreSQL gives up is a 503 with `Retry-After` within about a second."""
    async with connection.transaction():
        await connection.execute("LOCK TABLE patients IN ACCESS EXCLUSIVE MODE")
        response = await client.post(SEARCH, json={"search": "dube"})
    assert response.status_code == 503
    assert response.headers["Retry-After"] == "1"
    assert response.elapsed.total_seconds() < 1.4  # all other time limits are 1.5 s or more
    assert (await client.post(SEARCH, json={"search": "dube"})).status_code == 200
