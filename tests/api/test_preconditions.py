"""Entity tags: a client's current copy is not sent again, and changes apply only to what the client has read."""

import asyncio
import re
from collections.abc import Iterator
from typing import Any

import asyncpg
import httpx
import pytest
from fastapi import FastAPI

from app.main import create_app
from app.settings import Settings
from tests.processes import RawRequest, send_concurrently, wait_until_blocked
from tests.support import EXAMPLE_PATIENT, RESOURCE_EXAMPLES, ResourceExample, dump_tables

PATIENTS = "/patients/patients/"
STRONG_ETAG_PATTERN = re.compile(r'"[\x21\x23-\x7e]+"')
"""A strong entity tag, as RFC 9110 defines it."""
RECORD_CACHE_CONTROL = "private, no-cache"
UNKNOWN_ETAG = '"AAAAAAAAAAAAAAAAAAAAAA"'
"""A well-formed tag that no record has."""
NON_MATCHING_ETAGS = ["", " ", "garbage", "W/", '""', '"', '"*"', '*, "a"', "W/*", ",", '"short"', "null", "\xe9"]
NON_MATCHING_ETAGS += [UNKNOWN_ETAG, f"W/{UNKNOWN_ETAG}"]
"""Header values that match no record's tag."""


def etag_spellings(tag: str) -> Iterator[str]:
    """Yield header values that match a tag, as clients send it and as compressing proxies change it."""
    bare = tag.strip('"')
    yield from (tag, f"W/{tag}", f'"{bare}-gzip"', f'W/"{bare}-gzip"', f'"{bare}-br"', "*", " * ")
    yield from (f"{UNKNOWN_ETAG}, {tag}", f"{UNKNOWN_ETAG},W/{tag},{UNKNOWN_ETAG}", f'"a, b" , {tag} ')


async def create_record(client: httpx.AsyncClient, kind: ResourceExample) -> str:
    """Create the record `own` and return its tag."""
    response = await client.post(kind.path, json=kind.create_body)
    assert response.status_code == 201
    return str(response.headers["ETag"])


def checked_etag(response: httpx.Response, status: int = 200) -> str:
    """Return the tag of a response that only the client may cache, and that it has to revalidate before use."""
    assert response.status_code == status, response.text
    assert response.headers["Cache-Control"] == RECORD_CACHE_CONTROL
    tag: str = response.headers["ETag"]
    assert STRONG_ETAG_PATTERN.fullmatch(tag)
    return tag


async def check_refused(response: httpx.Response, status: int, tag: str | None) -> None:
    """Check that a response is a problem of this status with the current tag."""
    assert response.status_code == status, response.text
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.json()["status"] == status
    assert response.headers.get("ETag") == tag


async def test_every_single_record_response_has_an_etag(client: httpx.AsyncClient) -> None:
    """Every response with one record or version has a strong tag, which is the same for the same document."""
    for kind in RESOURCE_EXAMPLES:
        first = checked_etag(await client.post(kind.path, json=kind.create_body), 201)
        assert (
            checked_etag(await client.get(kind.record_path))
            == checked_etag(await client.head(kind.record_path))
            == first
        )
        second = checked_etag(await client.put(kind.record_path, json=kind.update_body))
        assert checked_etag(await client.get(kind.record_path)) == second
        third = checked_etag(await client.patch(kind.record_path, json=kind.minimal_body))
        assert checked_etag(await client.get(kind.record_path)) == third
        fourth = checked_etag(await client.post(f"{kind.record_path}restore/", json={"version": 2}))
        assert checked_etag(await client.get(kind.record_path)) == fourth
        version = checked_etag(await client.get(f"{kind.record_path}history/1/"))
        assert checked_etag(await client.get(f"{kind.record_path}history/1/")) == version
        assert len({first, second, third, fourth, version}) == 5
        assert checked_etag(await client.put(kind.record_path, json={})) == fourth, "the document is the same"


@pytest.mark.usefixtures("hospitals_and_doctors")
async def test_etag_changes_with_everything_shown(client: httpx.AsyncClient) -> None:
    """Changes of the hospitals, doctors and profile change a patient's tag exactly if the patient shows them."""
    await client.post(PATIENTS, json={**EXAMPLE_PATIENT, "unique_id": "own"})
    one = f"{PATIENTS}own/"
    tags = [checked_etag(await client.get(one))]
    for path, change, shown in (
        ("/hospitals/hospitals/hos456/", {"hospital_name": "St. Mary's Hospital"}, True),
        ("/doctors/doctors/doc123/", {"doctor_first_name": "Dr. Ann Smith"}, True),
        ("/doctors/doctors/doc123/", {"doctor_last_name": "Smith"}, False),
        ("/profiles/profiles/prof123/", {"email": "john@example.com"}, True),
        ("/hospitals/hospitals/hos789/", {"hospital_name": "Not the patient's"}, False),
    ):
        assert (await client.put(path, json=change)).status_code == 200
        tags.append(checked_etag(await client.get(one)))
        assert (tags[-1] != tags[-2]) is shown, path
        response = await client.put(one, json={"patient_title": "Dr."}, headers={"If-Match": tags[-2]})
        assert response.status_code == (412 if shown else 200)
        tags.append(checked_etag(await client.get(one)))


async def test_if_none_match_of_the_current_etag_is_304(client: httpx.AsyncClient) -> None:
    """GET and HEAD with the current tag in `If-None-Match` are 304 without a body; with any other, 200."""
    for kind in RESOURCE_EXAMPLES:
        await create_record(client, kind)
        for path in (kind.record_path, f"{kind.record_path}history/1/"):
            tag = checked_etag(await client.get(path))
            for method in ("GET", "HEAD"):
                for form in etag_spellings(tag):
                    response = await client.request(method, path, headers={"If-None-Match": form})
                    assert (checked_etag(response, 304), response.content) == (tag, b""), form
                    assert "Content-Type" not in response.headers
                for garbage in NON_MATCHING_ETAGS:
                    headers = httpx.Headers({"If-None-Match": garbage}, encoding="latin-1")
                    response = await client.request(method, path, headers=headers)
                    assert checked_etag(response) == tag, garbage
                    assert bool(response.content) is (method == "GET")
        before = (await client.get(kind.record_path)).headers["ETag"]
        await client.put(kind.record_path, json=kind.update_body)
        assert (await client.get(kind.record_path, headers={"If-None-Match": before})).status_code == 200


async def test_repeated_header_lines_are_one_etag_list(client: httpx.AsyncClient) -> None:
    """The lines of a repeated header are read as one list."""
    kind = RESOURCE_EXAMPLES[0]
    tag = await create_record(client, kind)
    for tags in ([UNKNOWN_ETAG, tag], [tag, UNKNOWN_ETAG]):
        changed = await client.put(kind.record_path, json={}, headers=[("If-Match", each) for each in tags])
        assert changed.status_code == 200


async def test_matching_if_match_allows_the_change(client: httpx.AsyncClient) -> None:
    """PUT, PATCH, restore and DELETE succeed if `If-Match` names the current tag, in any spelling."""
    for kind in RESOURCE_EXAMPLES:
        tag = await create_record(client, kind)
        for number in range(len(list(etag_spellings(tag)))):
            changes: list[tuple[str, str, dict[str, Any] | None]] = [
                ("PUT", kind.record_path, kind.update_body),
                ("PATCH", kind.record_path, kind.minimal_body),
                ("POST", f"{kind.record_path}restore/", {"version": 1 if number % 2 else 2}),
                ("DELETE", kind.record_path, None),
            ]
            for method, path, body in changes:
                form = list(etag_spellings(tag))[number]
                response = await client.request(method, path, json=body, headers={"If-Match": form})
                assert response.is_success, (form, method, response.text)
                tag = response.headers.get("ETag", tag)
            tag = (await client.post(f"{kind.record_path}restore/", json={"version": 1})).headers["ETag"]


async def test_other_if_match_is_412_and_writes_nothing(
    client: httpx.AsyncClient, connection: asyncpg.Connection
) -> None:
    """PUT, PATCH, restore and DELETE with any other `If-Match` are 412 with the current tag, and write nothing."""
    for kind in RESOURCE_EXAMPLES:
        old = await create_record(client, kind)
        tag = (await client.put(kind.record_path, json=kind.update_body)).headers["ETag"]
        before = await dump_tables(connection)
        for stale in (*NON_MATCHING_ETAGS, *(form for form in etag_spellings(old) if "*" not in form)):
            headers = httpx.Headers({"If-Match": stale}, encoding="latin-1")
            for method in ("PUT", "PATCH", "DELETE"):
                await check_refused(
                    await client.request(method, kind.record_path, json=kind.minimal_body, headers=headers), 412, tag
                )
            restore = await client.post(f"{kind.record_path}restore/", json={"version": 1}, headers=headers)
            await check_refused(restore, 412, tag)
        assert await dump_tables(connection) == before
        assert (
            await client.put(kind.record_path, json=kind.minimal_body, headers={"If-Match": tag})
        ).status_code == 200


async def test_failed_if_match_leaves_profile_and_links_unchanged(
    client: httpx.AsyncClient, connection: asyncpg.Connection, hospitals_and_doctors: None
) -> None:
    """A refused PUT of a patient changes neither its profile nor its hospitals and doctors."""
    del hospitals_and_doctors
    await client.post(PATIENTS, json={**EXAMPLE_PATIENT, "unique_id": "own"})
    before = await dump_tables(connection)
    body = {"patient_profile": {"unique_id": "prof123", "email": None}, "hospital_ids": ["hos789"], "doctor_ids": []}
    response = await client.put(f"{PATIENTS}own/", json=body, headers={"If-Match": UNKNOWN_ETAG})
    assert response.status_code == 412
    assert await dump_tables(connection) == before


async def test_if_match_on_a_deleted_record_is_412(client: httpx.AsyncClient, connection: asyncpg.Connection) -> None:
    """Restoring a deleted record with `If-Match`, even with `*`, is 412, because no current record exists."""
    for kind in RESOURCE_EXAMPLES:
        tag = await create_record(client, kind)
        await client.delete(kind.record_path)
        before = await dump_tables(connection)
        for condition in (tag, "*"):
            headers = {"If-Match": condition}
            await check_refused(
                await client.post(f"{kind.record_path}restore/", json={"version": 1}, headers=headers), 412, None
            )
        assert await dump_tables(connection) == before


async def test_if_none_match_star_creates_only_new_records(
    client: httpx.AsyncClient, connection: asyncpg.Connection
) -> None:
    """POST with `If-None-Match: *` is 201 if the `unique_id` is free, and otherwise 412 with the tag of its record."""
    star = {"If-None-Match": "*"}
    for kind in RESOURCE_EXAMPLES:
        tag = checked_etag(await client.post(kind.path, json=kind.create_body, headers=star), 201)
        before = await dump_tables(connection)
        await check_refused(await client.post(kind.path, json=kind.create_body, headers=star), 412, tag)
        await check_refused(await client.post(kind.path, json=kind.create_body), 409, None)
        assert await dump_tables(connection) == before
        assert (await client.post(kind.path, json=kind.minimal_body, headers=star)).status_code == 201
        await client.delete(kind.record_path)
        assert (await client.post(kind.path, json=kind.create_body, headers=star)).status_code == 409, (
            "the id of a deleted record is not free"
        )


async def test_if_match_can_be_required(database_url: str) -> None:
    """Where `If-Match` is required, PUT, PATCH and DELETE without it are 428, and 404 precedes 412 and 428."""
    app: FastAPI = create_app(Settings.model_validate({"database_url": database_url, "require_if_match": True}))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://patients.test") as client,
    ):
        for kind in RESOURCE_EXAMPLES:
            tag = await create_record(client, kind)
            for method in ("PUT", "PATCH", "DELETE"):
                for missing in (f"{kind.path}none/", f"{kind.path}%00/"):
                    for headers in ({}, {"If-Match": tag}, {"If-Match": "*"}, {"If-None-Match": "*"}):
                        response = await client.request(method, missing, json=kind.update_body, headers=headers)
                        await check_refused(response, 404, None)
                await check_refused(await client.request(method, kind.record_path, json=kind.update_body), 428, None)
                none_match = {"If-None-Match": UNKNOWN_ETAG}
                await check_refused(
                    await client.request(method, kind.record_path, json=kind.update_body, headers=none_match), 428, None
                )
                stale = {"If-Match": UNKNOWN_ETAG}
                await check_refused(
                    await client.request(method, kind.record_path, json=kind.update_body, headers=stale), 412, tag
                )
            assert (await client.get(kind.record_path)).headers["ETag"] == tag
            tag = checked_etag(await client.put(kind.record_path, json=kind.update_body, headers={"If-Match": tag}))
            assert (await client.delete(kind.record_path, headers={"If-Match": tag})).status_code == 204


async def test_unknown_record_is_404_whatever_the_condition(client: httpx.AsyncClient) -> None:
    """A missing record is 404 under any precondition, and a record that never existed cannot be restored."""
    for kind in RESOURCE_EXAMPLES:
        for headers in ({"If-Match": "*"}, {"If-Match": UNKNOWN_ETAG}, {"If-None-Match": "*"}):
            for method in ("GET", "HEAD", "PUT", "PATCH", "DELETE"):
                response = await client.request(method, kind.record_path, json=kind.update_body, headers=headers)
                assert response.status_code == 404
            response = await client.post(f"{kind.record_path}restore/", json={"version": 1}, headers=headers)
            await check_refused(response, 404, None)


async def test_cors_allows_condition_headers(database_url: str) -> None:
    """Preflights allow the headers of preconditions and keys, and scripts may read those of responses."""
    settings = {"database_url": database_url, "cors_origins": "https://a.example"}
    transport = httpx.ASGITransport(create_app(Settings.model_validate(settings)))
    async with httpx.AsyncClient(
        transport=transport, base_url="http://patients.test", headers={"Origin": "https://a.example"}
    ) as client:
        asked = {"If-Match", "If-None-Match", "Idempotency-Key"}
        preflight = await client.options(
            PATIENTS,
            headers={"Access-Control-Request-Method": "PUT", "Access-Control-Request-Headers": ", ".join(asked)},
        )
        assert preflight.status_code == 200
        assert set(preflight.headers["Access-Control-Allow-Headers"].split(", ")) >= asked
        response = await client.get("/livez")
        exposed = response.headers["Access-Control-Expose-Headers"].split(", ")
        assert set(exposed) >= {"ETag", "Idempotency-Replayed", "Location", "Same-Name-As"}


async def test_condition_is_checked_under_the_lock(client: httpx.AsyncClient, connection: asyncpg.Connection) -> None:
    """A change that waits for another is checked against the record and the profile that the other change leaves."""
    body = {"unique_id": "own", "patient_last_name": "Doe", "patient_profile": {"unique_id": "prof", "email": "a@b.c"}}
    await client.post(PATIENTS, json=body)
    one = f"{PATIENTS}own/"
    mine = {"patient_title": "Mine", "patient_profile": {"unique_id": "prof", "email": "mine@b.c"}}
    for theirs in ("UPDATE patients SET patient_title = 'Theirs'", "UPDATE profiles SET email = 'theirs@b.c'"):
        for method in ("PUT", "PATCH", "DELETE"):
            tag = (await client.get(one)).headers["ETag"]
            if method == "DELETE" and "profiles" in theirs:
                continue  # a profile is not deleted with its patient
            async with connection.transaction():
                await connection.execute(theirs)
                sending = asyncio.ensure_future(client.request(method, one, json=mine, headers={"If-Match": tag}))
                await wait_until_blocked(connection)
            response = await sending
            now = await client.get(one)
            await check_refused(response, 412, now.headers["ETag"])
            assert "heirs" in now.text
            await client.put(one, json={"patient_title": None, "patient_profile": {"unique_id": "prof", "email": None}})


@pytest.mark.crowd
async def test_concurrent_puts_with_one_etag_succeed_once(service_url: str) -> None:
    """Of two concurrent PUTs with the same `If-Match`, for each of 40 records, one succeeds and the other is 412."""
    paths = [f"{kind.path}two-{number}/" for kind in RESOURCE_EXAMPLES for number in range(10)]
    kinds = [kind for kind in RESOURCE_EXAMPLES for _ in range(10)]
    made = await send_concurrently(
        service_url,
        [
            RawRequest("POST", kind.path, {**kind.minimal_body, "unique_id": f"two-{number % 10}"})
            for number, kind in enumerate(kinds)
        ],
    )
    calls = []
    for path, kind, response in zip(paths, kinds, made, strict=True):
        field, condition = next(iter(kind.update_body)), {"If-Match": response.headers["etag"]}
        calls += [RawRequest("PUT", path, {field: name}, condition) for name in ("First", "Second")]
    responses = await send_concurrently(service_url, calls)
    async with httpx.AsyncClient(base_url=service_url) as client:
        for number, path in enumerate(paths):
            both = responses[2 * number : 2 * number + 2]
            assert sorted(response.status for response in both) == [200, 412], path
            (winner,) = (response for response in both if response.status == 200)
            (loser,) = (response for response in both if response.status == 412)
            now = await client.get(path)
            assert now.content == winner.content
            assert now.headers["ETag"] == winner.headers["etag"] == loser.headers["etag"]


@pytest.mark.crowd
async def test_concurrent_puts_of_patient_and_its_profile_succeed_once(service_url: str) -> None:
    """Of concurrent PUTs of a patient with its profile and of that profile, each with its tag, one succeeds."""
    ids = [f"beside-{number}" for number in range(40)]
    patients = await send_concurrently(
        service_url,
        [
            RawRequest(
                "POST", PATIENTS, {"unique_id": i, "patient_last_name": "Doe", "patient_profile": {"unique_id": i}}
            )
            for i in ids
        ],
    )
    profiles = await send_concurrently(service_url, [RawRequest("GET", f"/profiles/profiles/{i}/") for i in ids])
    calls = []
    for i, patient, profile in zip(ids, patients, profiles, strict=True):
        nested = {"patient_profile": {"unique_id": i, "first_name": "Through the patient"}}
        calls += [
            RawRequest("PUT", f"{PATIENTS}{i}/", nested, {"If-Match": patient.headers["etag"]}),
            RawRequest(
                "PUT", f"/profiles/profiles/{i}/", {"first_name": "Itself"}, {"If-Match": profile.headers["etag"]}
            ),
        ]
    responses = await send_concurrently(service_url, calls)
    now = await send_concurrently(service_url, [RawRequest("GET", f"/profiles/profiles/{i}/") for i in ids])
    for number, stored in enumerate(now):
        # the PUT of the profile depends on the profile alone: it is refused only if the patient's came first
        through, itself = (response.status for response in responses[2 * number : 2 * number + 2])
        assert sorted([through, itself]) == [200, 412]
        assert stored.json()["first_name"] == ("Itself" if itself == 200 else "Through the patient")


@pytest.mark.crowd
async def test_read_modify_write_loses_nothing(service_url: str) -> None:
    """10 clients that count to 100, adding to what they read and rereading after a 412, lose no increment."""
    path = "/hospitals/hospitals/counter/"
    refusals = 0
    async with httpx.AsyncClient(base_url=service_url, limits=httpx.Limits(max_connections=10)) as client:
        await client.post("/hospitals/hospitals/", json={"unique_id": "counter", "hospital_name": "0"})

        async def add(times: int) -> None:
            nonlocal refusals
            while times:
                read = await client.get(path)
                body = {"hospital_name": str(int(read.json()["hospital_name"]) + 1)}
                response = await client.put(path, json=body, headers={"If-Match": read.headers["ETag"]})
                assert response.status_code in {200, 412}
                times -= response.status_code == 200
                refusals += response.status_code == 412

        await asyncio.gather(*(add(10) for _ in range(10)))
        assert (await client.get(path)).json()["hospital_name"] == "100"
        assert (await client.get(f"{path}history/?limit=1")).json()[0]["version"] == 101
    assert refusals, "the clients did not conflict"
