"""Hospitals, doctors and profiles by name: filters, searches and orderings of their lists."""

import re
from typing import Any

import asyncpg
import httpx
import pytest

from app.doctors.schemas import DoctorParameters
from app.hospitals.schemas import HospitalParameters
from app.listing.pagination import NON_FILTER_PARAMETERS, ListParameters
from app.models import Doctor, Hospital, Profile
from app.profiles.schemas import ProfileParameters
from tests.listing.support import explain_page

RECORDS: dict[str, list[dict[str, Any]]] = {
    "/hospitals/hospitals/": [
        {"unique_id": "a", "hospital_name": "St. Mary's Hospital"},
        {"unique_id": "b", "hospital_name": "Général Hospital"},
        {"unique_id": "c", "hospital_name": "Åse Clinic"},
    ],
    "/doctors/doctors/": [
        {"unique_id": "a", "doctor_first_name": "Priya", "doctor_last_name": "van der Merwe"},
        {"unique_id": "b", "doctor_first_name": "Zoë", "doctor_last_name": "Müller"},
        {"unique_id": "c", "doctor_first_name": "Dr. Adams"},
    ],
    "/profiles/profiles/": [
        {"unique_id": "a", "email": "Priya@example.com", "first_name": "Priya", "last_name": "Naidoo"},
        {"unique_id": "b", "email": "zoe@example.com", "first_name": "Zoë", "last_name": "Ærø"},
        {"unique_id": "c", "first_name": "Adam"},
    ],
}
FOUND: dict[str, dict[str, str]] = {
    "/hospitals/hospitals/": {
        "hospital_name=GENERAL hospital": "b",
        "hospital_name=general": "",
        "hospital_name=ase clinic&hospital_name=general hospital": "bc",
        "hospital_name__startswith=gén": "b",
        "hospital_name__startswith=hospital": "",
        "search=general": "b",
        "search=HOSP": "ab",
        "search=hosp gen": "b",
        "search=marys": "a",
        "search=st mary": "a",
        "search=stmary": "a",
        "search=aase": "c",
        "search=ospital": "",
        "search=hosp clinic": "",
        "search=hospital&hospital_name__startswith=st": "a",
        "search= ": "abc",
        "search=-!": "",
        "search=\\' :* | 'a": "c",
        "ordering=hospital_name": "cba",
        "ordering=-hospital_name": "abc",
        "search=hosp&ordering=hospital_name": "ba",
    },
    "/doctors/doctors/": {
        "doctor_first_name=zoe": "b",
        "doctor_first_name__startswith=dr": "c",
        "doctor_last_name=MULLER": "b",
        "doctor_last_name__startswith=van der": "a",
        "search=zoe mueller": "b",
        "search=merwe priya": "a",
        "search=vandermerwe": "a",
        "search=dr adams": "c",
        "ordering=doctor_last_name": "bac",
        "ordering=-doctor_last_name": "abc",
        "ordering=-doctor_first_name": "bac",
    },
    "/profiles/profiles/": {
        "search=zoe": "b",
        "search=naid pri": "a",
        "search=aero": "b",
        "search=priya adam": "",
        "email=PRIYA@example.com": "a",
        "email__startswith=zoe@": "b",
        "first_name=zoe": "b",
        "last_name=aero": "b",
        "first_name__startswith=PRI": "a",
        "last_name__startswith=na": "a",
        "ordering=last_name": "bac",
        "ordering=-email": "bac",
        "ordering=first_name": "cab",
    },
}
"""The ids that each query finds, in order."""
PARAMETERS: dict[str, type[ListParameters]] = {
    "/hospitals/hospitals/": HospitalParameters,
    "/doctors/doctors/": DoctorParameters,
    "/profiles/profiles/": ProfileParameters,
}


@pytest.mark.parametrize("path", RECORDS)
async def test_records_are_found_and_sorted_by_name(client: httpx.AsyncClient, path: str) -> None:
    """Each filter, search and ordering ignores case and accents, on one page and across pages; counts agree."""
    for record in RECORDS[path]:
        assert (await client.post(path, json=record)).status_code == 201
    for query, expected in FOUND[path].items():
        response = await client.get(f"{path}?{query}&count=exact")
        assert response.status_code == 200, response.text
        assert (query, "".join(record["unique_id"] for record in response.json())) == (query, expected)
        assert response.headers["X-Total-Count"] == str(len(expected))
        found, url = "", f"{path}?{query}&limit=1"
        while url:
            page = await client.get(url)
            found += "".join(record["unique_id"] for record in page.json())
            url = page.links.get("next", {}).get("url", "")
        assert (query, found) == (query, expected)
        if path == "/profiles/profiles/":
            searched = await client.post(f"{path}search/", json=dict([query.split("=")]))
            assert (query, "".join(record["unique_id"] for record in searched.json())) == (query, expected)
    ids = {"unique_id": ["b", "nobody", "a", "b"]}
    assert [record["unique_id"] for record in (await client.get(path, params=ids)).json()] == ["a", "b"]
    tested = {name.partition("=")[0] for query in FOUND[path] for name in query.split("&")}
    others = {"unique_id"} | NON_FILTER_PARAMETERS - {"search", "ordering"}
    assert tested >= PARAMETERS[path].model_fields.keys() - others


@pytest.mark.parametrize(
    ("path", "name", "value"),
    [
        ("/hospitals/hospitals/", "search", "a b c d e f g h i"),
        ("/hospitals/hospitals/", "search", "x" * 201),
        ("/hospitals/hospitals/", "hospital_name", " "),
        ("/hospitals/hospitals/", "ordering", "date_created"),
        ("/doctors/doctors/", "doctor_first_name__gte", "a"),
        ("/doctors/doctors/", "unique_id", "a,b"),
        ("/doctors/doctors/", "hospital_search__words", "a"),
        ("/profiles/profiles/", "email", "nobody-at"),
    ],
)
async def test_invalid_name_parameters_are_422(client: httpx.AsyncClient, path: str, name: str, value: str) -> None:
    """An invalid value, and a parameter that the list does not have, are a 422 that names the parameter."""
    response = await client.get(path, params={name: value})
    assert response.status_code == 422
    assert [error["loc"][:2] for error in response.json()["errors"]] == [["query", name]]


@pytest.mark.parametrize("path", RECORDS)
async def test_name_parameters_use_an_index(database_url: str, connection: asyncpg.Connection, path: str) -> None:
    """Each filter, search and ordering of a list of 10,000 records is read from an index."""
    table = path.split("/")[1]
    columns = next(row.__table__.columns for row in (Hospital, Doctor, Profile) if row.__tablename__ == table)
    names = [column.name for column in columns if "max_length" in column.info]
    values = ", ".join(f"'{name} ' || n" for name in names)
    await connection.execute(
        f"INSERT INTO {table} (unique_id, {', '.join(names)}) "  # noqa: S608
        f"SELECT 'r' || n, {values} FROM generate_series(1, 10000) n"
    )
    await connection.execute(f"ANALYZE {table}")
    filters = PARAMETERS[path].model_fields.keys() - NON_FILTER_PARAMETERS
    for name in sorted(filters | ({"search"} & PARAMETERS[path].model_fields.keys())):
        value = {"email": "name@777.example.com", "unique_id": "r777"}.get(name, "name 777")
        plan = await explain_page(database_url, connection, "GET", path, params={name: value, "limit": 50})
        assert re.search(rf"Index Cond: .*{name.partition('__')[0]}", plan), plan
    for name in names:
        plan = await explain_page(database_url, connection, "GET", path, params={"ordering": name, "limit": 50})
        assert f"using ix_{table}_{name}_folded_unique_id" in plan, plan


async def test_hospitals_with_the_same_name_are_named_in_a_warning(client: httpx.AsyncClient) -> None:
    """`Same-Name-As` lists up to ten other hospitals that have the new name, whatever its case and accents."""
    path, header = "/hospitals/hospitals/", "Same-Name-As"
    one = await client.post(path, json={"unique_id": "h00", "hospital_name": "Général"})
    assert one.status_code == 201
    assert header not in one.headers
    key = {"Idempotency-Key": "again"}
    for _ in range(2):
        two = await client.post(path, json={"unique_id": "h01", "hospital_name": "GENERAL"}, headers=key)
        assert (two.status_code, two.headers[header]) == (201, "h00")
    assert header not in (await client.post(path, json={"unique_id": "other", "hospital_name": "Gen"})).headers
    for unique_id, headers in (("other", "h00, h01"), ("h00", "h01, other")):
        renamed = await client.patch(f"{path}{unique_id}/", json={"hospital_name": "general"})
        assert (renamed.status_code, renamed.headers[header]) == (200, headers)
    assert header not in (await client.patch(f"{path}other/", json={})).headers
    for number in range(2, 12):
        await client.post(path, json={"unique_id": f"h{number:02}", "hospital_name": "General"})
    many = await client.post(path, json={"hospital_name": "General"})
    assert many.headers[header] == ", ".join(f"h{number:02}" for number in range(10))
    taken = await client.post(path, json={"unique_id": "h00", "hospital_name": "General"})
    assert (taken.status_code, taken.headers.get(header)) == (409, None)
