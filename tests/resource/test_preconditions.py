"""Entity tags: what a client has is not sent again, and a change is made only to what the client has read."""

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
from tests.processes import Call, at_once, await_blocked
from tests.support import EXAMPLE, KINDS, Kind, dump

PATIENTS = "/patients/patients/"
STRONG = re.compile(r'"[\x21\x23-\x7e]+"')
"""A strong entity tag, as RFC 9110 has it."""
CACHING = "private, no-cache"
OTHER = '"AAAAAAAAAAAAAAAAAAAAAA"'
"""A tag of the right form that no record has."""
GARBAGE = ["", " ", "garbage", "W/", '""', '"', '"*"', '*, "a"', "W/*", ",", '"short"', "null", "\xe9"]
GARBAGE += [OTHER, f"W/{OTHER}"]
"""What names no record's tag."""


def forms(tag: str) -> Iterator[str]:
    """A tag as clients send it, and as compressing proxies change it on its way."""
    bare = tag.strip('"')
    yield from (tag, f"W/{tag}", f'"{bare}-gzip"', f'W/"{bare}-gzip"', f'"{bare}-br"', "*", " * ")
    yield from (f"{OTHER}, {tag}", f"{OTHER},W/{tag},{OTHER}", f'"a, b" , {tag} ')


async def created(client: httpx.AsyncClient, kind: Kind) -> str:
    """The tag of the record `own`, which is new."""
    answer = await client.post(kind.path, json=kind.own)
    assert answer.status_code == 201
    return str(answer.headers["ETag"])


def tagged(answer: httpx.Response, status: int = 200) -> str:
    """The tag of an answer that may be cached by the client alone, which has to ask before it uses it."""
    assert answer.status_code == status, answer.text
    assert answer.headers["Cache-Control"] == CACHING
    tag: str = answer.headers["ETag"]
    assert STRONG.fullmatch(tag)
    return tag


async def refused(answer: httpx.Response, status: int, tag: str | None) -> None:
    """Check a problem of this status that tells the current tag."""
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["status"] == status
    assert answer.headers.get("ETag") == tag


async def test_every_answer_of_one_object_has_its_tag(client: httpx.AsyncClient) -> None:
    """POST, GET, HEAD, PUT, PATCH, restore and a version's answers have strong tags: the same for the same document."""
    for kind in KINDS:
        first = tagged(await client.post(kind.path, json=kind.own), 201)
        assert tagged(await client.get(kind.one)) == tagged(await client.head(kind.one)) == first
        second = tagged(await client.put(kind.one, json=kind.change))
        assert tagged(await client.get(kind.one)) == second
        third = tagged(await client.patch(kind.one, json=kind.least))
        assert tagged(await client.get(kind.one)) == third
        fourth = tagged(await client.post(f"{kind.one}restore/", json={"version": 2}))
        assert tagged(await client.get(kind.one)) == fourth
        version = tagged(await client.get(f"{kind.one}history/1/"))
        assert tagged(await client.get(f"{kind.one}history/1/")) == version
        assert len({first, second, third, fourth, version}) == 5
        assert tagged(await client.put(kind.one, json={})) == fourth, "nothing has changed"


@pytest.mark.usefixtures("directory")
async def test_tag_is_of_all_that_is_shown(client: httpx.AsyncClient) -> None:
    """What is shown of a patient's hospitals, doctors and profile changes its tag too; what is not shown does not."""
    await client.post(PATIENTS, json={**EXAMPLE, "unique_id": "own"})
    one = f"{PATIENTS}own/"
    tags = [tagged(await client.get(one))]
    for path, change, shown in (
        ("/hospitals/hospitals/hos456/", {"hospital_name": "St. Mary's Hospital"}, True),
        ("/doctors/doctors/doc123/", {"doctor_first_name": "Dr. Ann Smith"}, True),
        ("/doctors/doctors/doc123/", {"doctor_last_name": "Smith"}, False),
        ("/profiles/profiles/prof123/", {"email": "john@example.com"}, True),
        ("/hospitals/hospitals/hos789/", {"hospital_name": "Not the patient's"}, False),
    ):
        assert (await client.put(path, json=change)).status_code == 200
        tags.append(tagged(await client.get(one)))
        assert (tags[-1] != tags[-2]) is shown, path
        answer = await client.put(one, json={"patient_title": "Dr."}, headers={"If-Match": tags[-2]})
        assert answer.status_code == (412 if shown else 200)
        tags.append(tagged(await client.get(one)))


async def test_what_the_client_has_is_not_sent_again(client: httpx.AsyncClient) -> None:
    """GET and HEAD with `If-None-Match` of the current tag are 304 without a body; with any other, 200."""
    for kind in KINDS:
        await created(client, kind)
        for path in (kind.one, f"{kind.one}history/1/"):
            tag = tagged(await client.get(path))
            for method in ("GET", "HEAD"):
                for form in forms(tag):
                    answer = await client.request(method, path, headers={"If-None-Match": form})
                    assert (tagged(answer, 304), answer.content) == (tag, b""), form
                    assert "Content-Type" not in answer.headers
                for garbage in GARBAGE:
                    headers = httpx.Headers({"If-None-Match": garbage}, encoding="latin-1")
                    answer = await client.request(method, path, headers=headers)
                    assert tagged(answer) == tag, garbage
                    assert bool(answer.content) is (method == "GET")
        before = (await client.get(kind.one)).headers["ETag"]
        await client.put(kind.one, json=kind.change)
        assert (await client.get(kind.one, headers={"If-None-Match": before})).status_code == 200


async def test_tags_in_several_lines_are_one_list(client: httpx.AsyncClient) -> None:
    """The lines of a header that is sent several times are read as one list."""
    kind = KINDS[0]
    tag = await created(client, kind)
    for tags in ([OTHER, tag], [tag, OTHER]):
        changed = await client.put(kind.one, json={}, headers=[("If-Match", each) for each in tags])
        assert changed.status_code == 200


async def test_change_of_what_was_read(client: httpx.AsyncClient) -> None:
    """PUT, PATCH, restore and DELETE whose `If-Match` names the current tag, in whatever form, are made."""
    for kind in KINDS:
        tag = await created(client, kind)
        for number in range(len(list(forms(tag)))):
            changes: list[tuple[str, str, dict[str, Any] | None]] = [
                ("PUT", kind.one, kind.change),
                ("PATCH", kind.one, kind.least),
                ("POST", f"{kind.one}restore/", {"version": 1 if number % 2 else 2}),
                ("DELETE", kind.one, None),
            ]
            for method, path, body in changes:
                form = list(forms(tag))[number]
                answer = await client.request(method, path, json=body, headers={"If-Match": form})
                assert answer.is_success, (form, method, answer.text)
                tag = answer.headers.get("ETag", tag)
            tag = (await client.post(f"{kind.one}restore/", json={"version": 1})).headers["ETag"]


async def test_change_of_what_was_not_read(client: httpx.AsyncClient, connection: asyncpg.Connection) -> None:
    """With any other `If-Match` they are 412 with the current tag, and nothing is stored."""
    for kind in KINDS:
        old = await created(client, kind)
        tag = (await client.put(kind.one, json=kind.change)).headers["ETag"]
        before = await dump(connection)
        for stale in (*GARBAGE, *(form for form in forms(old) if "*" not in form)):
            headers = httpx.Headers({"If-Match": stale}, encoding="latin-1")
            for method in ("PUT", "PATCH", "DELETE"):
                await refused(await client.request(method, kind.one, json=kind.least, headers=headers), 412, tag)
            restore = await client.post(f"{kind.one}restore/", json={"version": 1}, headers=headers)
            await refused(restore, 412, tag)
        assert await dump(connection) == before
        assert (await client.put(kind.one, json=kind.least, headers={"If-Match": tag})).status_code == 200


async def test_refused_change_of_a_patient_leaves_profile_and_links(
    client: httpx.AsyncClient, connection: asyncpg.Connection, directory: None
) -> None:
    """A refused PUT of a patient changes neither its profile nor its hospitals and doctors."""
    del directory
    await client.post(PATIENTS, json={**EXAMPLE, "unique_id": "own"})
    before = await dump(connection)
    body = {"patient_profile": {"unique_id": "prof123", "email": None}, "hospital_ids": ["hos789"], "doctor_ids": []}
    answer = await client.put(f"{PATIENTS}own/", json=body, headers={"If-Match": OTHER})
    assert answer.status_code == 412
    assert await dump(connection) == before


async def test_deleted_record_matches_nothing(client: httpx.AsyncClient, connection: asyncpg.Connection) -> None:
    """Restoring a deleted record with `If-Match`, even of any, is 412: none is there."""
    for kind in KINDS:
        tag = await created(client, kind)
        await client.delete(kind.one)
        before = await dump(connection)
        for condition in (tag, "*"):
            headers = {"If-Match": condition}
            await refused(await client.post(f"{kind.one}restore/", json={"version": 1}, headers=headers), 412, None)
        assert await dump(connection) == before


async def test_create_only_what_is_not_there(client: httpx.AsyncClient, connection: asyncpg.Connection) -> None:
    """POST with `If-None-Match: *` is 201 where the `unique_id` is free, 412 with the tag of the record that has it."""
    star = {"If-None-Match": "*"}
    for kind in KINDS:
        tag = tagged(await client.post(kind.path, json=kind.own, headers=star), 201)
        before = await dump(connection)
        await refused(await client.post(kind.path, json=kind.own, headers=star), 412, tag)
        await refused(await client.post(kind.path, json=kind.own), 409, None)
        assert await dump(connection) == before
        assert (await client.post(kind.path, json=kind.least, headers=star)).status_code == 201
        await client.delete(kind.one)
        assert (await client.post(kind.path, json=kind.own, headers=star)).status_code == 409, "it was used"


async def test_if_match_can_be_required(database_url: str) -> None:
    """Operators may refuse PUT, PATCH and DELETE without `If-Match`; then 404 comes before 412 and 428."""
    app: FastAPI = create_app(Settings.model_validate({"database_url": database_url, "require_if_match": True}))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://patients.test") as client,
    ):
        for kind in KINDS:
            tag = await created(client, kind)
            for method in ("PUT", "PATCH", "DELETE"):
                for missing in (f"{kind.path}none/", f"{kind.path}%00/"):
                    for headers in ({}, {"If-Match": tag}, {"If-Match": "*"}, {"If-None-Match": "*"}):
                        answer = await client.request(method, missing, json=kind.change, headers=headers)
                        await refused(answer, 404, None)
                await refused(await client.request(method, kind.one, json=kind.change), 428, None)
                none_match = {"If-None-Match": OTHER}
                await refused(await client.request(method, kind.one, json=kind.change, headers=none_match), 428, None)
                stale = {"If-Match": OTHER}
                await refused(await client.request(method, kind.one, json=kind.change, headers=stale), 412, tag)
            assert (await client.get(kind.one)).headers["ETag"] == tag
            tag = tagged(await client.put(kind.one, json=kind.change, headers={"If-Match": tag}))
            assert (await client.delete(kind.one, headers={"If-Match": tag})).status_code == 204


async def test_unknown_record_comes_before_a_condition(client: httpx.AsyncClient) -> None:
    """A record that is not there is 404 whatever the condition; one never there cannot be restored either."""
    for kind in KINDS:
        for headers in ({"If-Match": "*"}, {"If-Match": OTHER}, {"If-None-Match": "*"}):
            for method in ("GET", "HEAD", "PUT", "PATCH", "DELETE"):
                answer = await client.request(method, kind.one, json=kind.change, headers=headers)
                assert answer.status_code == 404
            answer = await client.post(f"{kind.one}restore/", json={"version": 1}, headers=headers)
            await refused(answer, 404, None)


async def test_browsers_of_listed_origins_may_use_conditions(database_url: str) -> None:
    """Preflights allow the headers of conditions and keys, and answers let scripts read theirs."""
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
        answer = await client.get("/livez")
        exposed = answer.headers["Access-Control-Expose-Headers"].split(", ")
        assert set(exposed) >= {"ETag", "Idempotency-Replayed", "Location"}


async def test_condition_is_checked_under_the_lock(client: httpx.AsyncClient, connection: asyncpg.Connection) -> None:
    """A change that waits for another is compared with what that has left, be it of the record or of its profile."""
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
                await await_blocked(connection)
            answer = await sending
            now = await client.get(one)
            await refused(answer, 412, now.headers["ETag"])
            assert "heirs" in now.text
            await client.put(one, json={"patient_title": None, "patient_profile": {"unique_id": "prof", "email": None}})


@pytest.mark.alone
async def test_of_two_changes_of_what_was_read_one_is_made(url: str) -> None:
    """Two PUTs of each of 40 records with the same `If-Match`, all at once: one of each is made, the other is 412."""
    paths = [f"{kind.path}two-{number}/" for kind in KINDS for number in range(10)]
    kinds = [kind for kind in KINDS for _ in range(10)]
    made = await at_once(
        url,
        [
            Call("POST", kind.path, {**kind.least, "unique_id": f"two-{number % 10}"})
            for number, kind in enumerate(kinds)
        ],
    )
    calls = []
    for path, kind, answer in zip(paths, kinds, made, strict=True):
        field, condition = next(iter(kind.change)), {"If-Match": answer.headers["etag"]}
        calls += [Call("PUT", path, {field: name}, condition) for name in ("First", "Second")]
    answers = await at_once(url, calls)
    async with httpx.AsyncClient(base_url=url) as client:
        for number, path in enumerate(paths):
            both = answers[2 * number : 2 * number + 2]
            assert sorted(answer.status for answer in both) == [200, 412], path
            (winner,) = (answer for answer in both if answer.status == 200)
            (loser,) = (answer for answer in both if answer.status == 412)
            now = await client.get(path)
            assert now.content == winner.content
            assert now.headers["ETag"] == winner.headers["etag"] == loser.headers["etag"]


@pytest.mark.alone
async def test_profile_changed_beside_its_patient(url: str) -> None:
    """A PUT of a patient with its profile and one of the profile, each of what was read: one of the two is made."""
    ids = [f"beside-{number}" for number in range(40)]
    patients = await at_once(
        url,
        [
            Call("POST", PATIENTS, {"unique_id": i, "patient_last_name": "Doe", "patient_profile": {"unique_id": i}})
            for i in ids
        ],
    )
    profiles = await at_once(url, [Call("GET", f"/profiles/profiles/{i}/") for i in ids])
    calls = []
    for i, patient, profile in zip(ids, patients, profiles, strict=True):
        nested = {"patient_profile": {"unique_id": i, "first_name": "Through the patient"}}
        calls += [
            Call("PUT", f"{PATIENTS}{i}/", nested, {"If-Match": patient.headers["etag"]}),
            Call("PUT", f"/profiles/profiles/{i}/", {"first_name": "Itself"}, {"If-Match": profile.headers["etag"]}),
        ]
    answers = await at_once(url, calls)
    now = await at_once(url, [Call("GET", f"/profiles/profiles/{i}/") for i in ids])
    for number, stored in enumerate(now):
        # the PUT of the profile asks for the profile alone: it is refused only where the patient's was first
        through, itself = (answer.status for answer in answers[2 * number : 2 * number + 2])
        assert sorted([through, itself]) == [200, 412]
        assert stored.json()["first_name"] == ("Itself" if itself == 200 else "Through the patient")


@pytest.mark.alone
async def test_read_modify_write_loses_nothing(url: str) -> None:
    """10 clients count to 100 together, each adding to what it has read, and reading anew where it was too late."""
    path = "/hospitals/hospitals/counter/"
    refusals = 0
    async with httpx.AsyncClient(base_url=url, limits=httpx.Limits(max_connections=10)) as client:
        await client.post("/hospitals/hospitals/", json={"unique_id": "counter", "hospital_name": "0"})

        async def add(times: int) -> None:
            nonlocal refusals
            while times:
                read = await client.get(path)
                body = {"hospital_name": str(int(read.json()["hospital_name"]) + 1)}
                answer = await client.put(path, json=body, headers={"If-Match": read.headers["ETag"]})
                assert answer.status_code in {200, 412}
                times -= answer.status_code == 200
                refusals += answer.status_code == 412

        await asyncio.gather(*(add(10) for _ in range(10)))
        assert (await client.get(path)).json()["hospital_name"] == "100"
        assert (await client.get(f"{path}history/?limit=1")).json()[0]["version"] == 101
    assert refusals, "they were in each other's way"
