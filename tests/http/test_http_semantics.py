"""Rules for every request: errors as problems, both slash forms, HEAD, CORS, request ids and hostile input."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from itertools import product
from typing import Any

import asyncpg
import httpx
import pytest

from app.main import create_app
from app.settings import Settings
from tests.support import ServiceProcess

PATIENTS = "/patients/patients/"
HOSPITALS = "/hospitals/hospitals/"
LIST_PATHS = [PATIENTS, "/profiles/profiles/", HOSPITALS, "/doctors/doctors/"]
JSON_HEADERS = {"Content-Type": "application/json"}
MARKER = "Zzmarker"
MEGABYTE = 1024 * 1024
MINIMAL_PATIENT = {"unique_id": "own-1", "patient_last_name": "Doe"}


def check_problem(response: httpx.Response, status: int) -> dict[str, Any]:
    """Check that a response is an RFC 9457 problem of this status that repeats nothing sent, and return its body."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert MARKER not in response.text
    body: dict[str, Any] = response.json()
    assert list(body)[:6] == ["type", "title", "status", "detail", "instance", "request_id"]
    assert list(body)[6:] == (["errors"] if status == 422 else [])
    assert body["status"] == status
    assert body["request_id"] == response.headers["x-request-id"]
    assert body["request_id"] in body["instance"]
    for error in body.get("errors", []):
        assert list(error) == ["loc", "msg", "type"]
    return body


@pytest.fixture
async def _patient(client: httpx.AsyncClient) -> None:
    """Create the patient and the hospital `own-1`."""
    assert (await client.post(PATIENTS, json=MINIMAL_PATIENT)).status_code == 201
    assert (await client.post(HOSPITALS, json={"unique_id": "own-1", "hospital_name": "General"})).status_code == 201


HOSTILE_BODIES: dict[str, tuple[bytes, set[int]]] = {
    "NUL": (b'{"patient_last_name": "Zzmarker\\u0000", "hospital_name": "Zzmarker\\u0000"}', {422}),
    "raw NUL": (b'{"patient_last_name": "Zzmarker\0", "hospital_name": "Zzmarker\0"}', {400}),
    "lone surrogate": (b'{"patient_last_name": "Zzmarker\\ud800", "hospital_name": "Zzmarker\\ud800"}', {422}),
    "surrogate key": (b'{"patient_last_name": "Doe", "hospital_name": "Zzmarker", "\\udfff": 1}', {422}),
    "key of patient data": (b'{"patient_last_name": "Doe", "hospital_name": "General", "Zzmarker Doe": 1}', {422}),
    "NaN": (b'{"patient_last_name": "Zzmarker", "hospital_name": "Zzmarker", "patient_latitude": NaN}', {400}),
    "Infinity": (b'{"patient_last_name": "Zzmarker", "patient_latitude": -Infinity}', {400}),
    "1e400": (b'{"patient_last_name": "Zzmarker", "hospital_name": 1e400, "patient_latitude": 1e400}', {400, 422}),
    "10^4500": (b'{"patient_last_name": "Zzmarker", "patient_latitude": 1%s}' % (b"0" * 4500), {400, 422}),
    "10^4000": (b'{"patient_last_name": "Zzmarker", "patient_latitude": 1%s}' % (b"0" * 4000), {400, 422}),
    "deep arrays": (b'{"Zzmarker": %s}' % (b"[" * 100_000 + b"]" * 100_000), {400}),
    "deep objects": (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, {400}),
    "unclosed": (b"[" * 100_000, {400}),
    "wrong UTF-8": (b'{"patient_last_name": "Zzmarker\xff", "hospital_name": "Zzmarker\xff"}', {400}),
    "overlong UTF-8": (b'{"patient_last_name": "Zzmarker\xc0\x80"}', {400}),
    "surrogates in UTF-8": (b'{"patient_last_name": "Zzmarker\xed\xa0\x80"}', {400}),
    "UTF-16": ('{"patient_last_name": "Zzmarker", "hospital_name": "Zzmarker"}'.encode("utf-16"), {400}),
    "UTF-16 without a mark": ('{"patient_last_name": "Zzmarker"}'.encode("utf-16-le"), {400}),
    "UTF-32": ('{"patient_last_name": "Zzmarker", "hospital_name": "Zzmarker"}'.encode("utf-32"), {400}),
    "half": (b'{"patient_last_name": "Zzmarker', {400}),
    "two": (b'{"patient_last_name": "Zzmarker"} {}', {400}),
    "comment": (b'{"patient_last_name": "Zzmarker"} // Zzmarker', {400}),
    "wrong escape": (b'{"patient_last_name": "Zzmarker\\x"}', {400}),
    "no JSON": (b"Zzmarker", {400}),
    "blank": (b" ", {400}),
    "nothing": (b"", {422}),
    "null": (b"null", {422}),
    "array": (b'["Zzmarker"]', {422}),
    "string": (b'"Zzmarker"', {422}),
    "number": (b"1", {422}),
}


@pytest.mark.usefixtures("_patient")
async def test_hostile_bodies_are_client_errors_and_write_nothing(client: httpx.AsyncClient) -> None:
    """Any hostile body is a client error that repeats nothing and writes nothing."""
    before = [(await client.get(path)).json() for path in LIST_PATHS]
    for name, (content, statuses) in HOSTILE_BODIES.items():
        for method, path in (("POST", ""), ("PUT", "own-1/"), ("PATCH", "own-1/")):
            for resource in (PATIENTS, HOSPITALS):
                response = await client.request(method, f"{resource}{path}", content=content, headers=JSON_HEADERS)
                assert response.status_code in statuses, (name, method, response.text)
                check_problem(response, response.status_code)
    assert [(await client.get(path)).json() for path in LIST_PATHS] == before


async def test_json_nesting_is_never_a_server_error(client: httpx.AsyncClient) -> None:
    """Nesting of any depth is never a server error, not even in an ignored key."""
    keys = ["patient_last_name", "date_created", "patient_hospital", "hospital_ids", "patient_profile", "other"]
    for key, depth in product(keys, (*range(200, 1100, 50), *range(900, 1010, 5), 2_000, 10_000, 50_000)):
        for opening, closing in ((b"[", b"]"), (b'{"a":', b"}")):
            content = b'{"patient_first_name": "Ann", "%s": %s1%s}' % (key.encode(), opening * depth, closing * depth)
            status = (await client.post(PATIENTS, content=content, headers=JSON_HEADERS)).status_code
            assert status in ({201, 400} if key == "date_created" else {400, 422}), depth


def body_of_size(size_bytes: int) -> bytes:
    """Return a body that is valid except for its size."""
    start, end = b'{"patient_last_name": "Zzmarker"', b"}"
    return start + b" " * (size_bytes - len(start) - len(end)) + end


async def chunked_body(content: bytes) -> AsyncIterator[bytes]:
    """Yield a body in chunks, without a declared length."""
    for start in range(0, len(content), 65_536):
        yield content[start : start + 65_536]


async def test_bodies_over_1_mib_are_413(client: httpx.AsyncClient) -> None:
    """A body may have 1 MiB; with one byte more, declared or in chunks, it is a 413, and nothing is written."""
    for size in (MEGABYTE + 1, 5_000_000):
        for content in (body_of_size(size), chunked_body(body_of_size(size))):
            check_problem(await client.post(PATIENTS, content=content, headers=JSON_HEADERS), 413)
        for content in (body_of_size(size), chunked_body(body_of_size(size))):
            check_problem(await client.patch(f"{PATIENTS}own-1/", content=content, headers=JSON_HEADERS), 413)
    check_problem(
        await client.post(PATIENTS, content=b"{}", headers={**JSON_HEADERS, "Content-Length": str(5 * 10**15)}), 413
    )
    assert (await client.get(PATIENTS)).json() == []
    for content in (body_of_size(MEGABYTE), chunked_body(body_of_size(MEGABYTE))):
        assert (await client.post(PATIENTS, content=content, headers=JSON_HEADERS)).status_code == 201


async def test_absurd_content_length_is_413(client: httpx.AsyncClient) -> None:
    """A declared length of thousands of digits is a 413, not a server error."""
    headers = {**JSON_HEADERS, "Content-Length": "9" * 5000}
    check_problem(await client.post(PATIENTS, content=b"{}", headers=headers), 413)


async def test_media_types_other_than_json_are_415(client: httpx.AsyncClient) -> None:
    """Bodies are application/json in UTF-8, written in any case; any other media type is a 415."""
    content = json.dumps({"patient_last_name": MARKER})
    refused = [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "text/json",
        "json",
    ]
    refused += ["application/json; charset=utf-16", "application/json; charset=latin-1", "application/jsonx", "*/*", ""]
    refused += ["application/xml", "application/merge-patch+json", "application/octet-stream", MARKER]
    for media_type in refused:
        for method, path in (("POST", PATIENTS), ("PUT", f"{PATIENTS}own-1/"), ("PATCH", f"{PATIENTS}own-1/")):
            check_problem(
                await client.request(method, path, content=content, headers={"Content-Type": media_type}), 415
            )
    check_problem(await client.post(PATIENTS, content=content), 415)
    for media_type in ("application/json", "Application/JSON", "application/json; charset=utf-8",
                       "application/json;charset=UTF-8"):  # fmt: skip
        response = await client.post(PATIENTS, content=content, headers={"Content-Type": media_type})
        assert response.status_code == 201


async def test_unknown_paths_are_404(client: httpx.AsyncClient) -> None:
    """An unknown path is a 404 for every method, and is not repeated."""
    for path in (f"/{MARKER}", "/patients/", f"{PATIENTS}own-1/{MARKER}/", "/admin", f"{PATIENTS}a/b", "/docs/x"):
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "BREW"):
            check_problem(await client.request(method, path, json=MINIMAL_PATIENT), 404)


@pytest.mark.usefixtures("_patient")
async def test_impossible_ids_are_404(client: httpx.AsyncClient) -> None:
    """An id that no record can have, with NUL, invalid UTF-8 or blanks, is a 404 like any unknown id."""
    ids = [MARKER, "%00", "own-1%00", "%ff", "%C0%80", "%ED%A0%80", "%20own-1", "own-1%0A", "%F0%9F%98%80", "é"]
    ids += ["a" * 65, "a" * 5000, "-", "..%2F", "%2e%2e", "own-1;x", "'--", "%", "%zz", "OWN-1", "%25", "{unique_id}"]
    for path in LIST_PATHS:
        for unique_id in ids:
            for method in ("GET", "PUT", "PATCH", "DELETE"):
                check_problem(await client.request(method, f"{path}{unique_id}/", json={}), 404)


@pytest.mark.parametrize("slash", ["/", ""])
async def test_unsupported_methods_are_405_with_allow(client: httpx.AsyncClient, slash: str) -> None:
    """An unsupported method is a 405 that names all methods of the path, with and without the trailing slash."""
    expected = {f"{path[:-1]}{slash}": {"GET", "HEAD", "POST"} for path in LIST_PATHS}
    expected |= {f"{path}own-1{slash}": {"GET", "HEAD", "PUT", "PATCH", "DELETE"} for path in LIST_PATHS}
    expected |= {f"/{name}{slash}": {"GET", "HEAD"} for name in ("livez", "readyz", "metrics", "docs", "openapi.json")}
    for path, allowed in expected.items():
        for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"} - allowed:
            response = await client.request(method, path)
            check_problem(response, 405)
            assert set(response.headers["allow"].split(", ")) == allowed


async def test_paths_are_served_with_and_without_trailing_slash(client: httpx.AsyncClient) -> None:
    """Every path is served with and without its trailing slash, for all methods, and never redirects."""
    bodies = [{"patient_last_name": "Doe"}, {}, {"hospital_name": "General"}, {"doctor_first_name": "Ann"}]
    for path, body in zip(LIST_PATHS, bodies, strict=True):
        for slash in ("", "/"):
            collection, one = f"{path[:-1]}{slash}", f"{path}own-1{slash}"
            created = await client.post(collection, json={**body, "unique_id": "own-1" if slash else "own-2"})
            assert created.status_code == 201
            assert created.headers["location"] == f"{path}{created.json()['unique_id']}/"
            one = created.headers["location"][:-1] + slash
            assert (await client.get(one)).json() == created.json()
            assert created.json() in (await client.get(collection)).json()
            assert (await client.get(f"{collection}?limit=1")).status_code == 200
            for method, status in {"HEAD": 200, "PUT": 200, "PATCH": 200, "DELETE": 204, "GET": 404}.items():
                assert (await client.request(method, one, json=body)).status_code == status
    for name in ("livez", "readyz", "metrics", "docs", "openapi.json"):
        assert [(await client.get(f"/{name}{slash}")).status_code < 300 for slash in ("", "/")] == [True, True]


async def test_root_leads_to_the_documentation(client: httpx.AsyncClient) -> None:
    """`/` redirects to `/docs`."""
    response = await client.get("/", follow_redirects=True)
    assert (response.status_code, response.url.path) == (200, "/docs")
    assert response.headers["content-type"].startswith("text/html")


@pytest.mark.usefixtures("_patient")
async def test_head_matches_get_without_a_body(client: httpx.AsyncClient) -> None:
    """HEAD works wherever GET does, with the same status and headers and without a body."""
    paths = [
        *LIST_PATHS,
        f"{PATIENTS}?limit=1",
        f"{PATIENTS}own-1/",
        f"{PATIENTS}own-1",
        f"{HOSPITALS}own-1/",
        "/",
        "/docs",
    ]
    paths += [f"{PATIENTS}{MARKER}/", f"{PATIENTS}?limit=0", "/nowhere", "/openapi.json", "/livez", "/readyz"]
    for path in paths:
        get = await client.get(path)
        head = await client.head(path)
        assert (head.status_code, head.content) == (get.status_code, b""), path
        both = [dict(response.headers) for response in (get, head)]
        assert both[0].pop("x-request-id") != both[1].pop("x-request-id")
        if "changes-cursor" in both[0]:  # each has a nonce of its own
            assert both[0].pop("changes-cursor") != both[1].pop("changes-cursor")
        assert both[0] == both[1]


async def test_valid_request_ids_are_kept_and_others_replaced(client: httpx.AsyncClient) -> None:
    """A valid X-Request-ID is kept and any other replaced; every response has it, and problems repeat it."""
    paths = (PATIENTS, f"{PATIENTS}own-1/", "/nowhere", "/livez", "/docs", "/openapi.json", "/", f"{PATIENTS}?limit=0")
    for path in paths:
        for sane in ("a", "7f9c24e8-3b12-4fef-91d0-2bb2d1a5cdd1", "A.b_c-1", "x" * 64):
            response = await client.get(path, headers={"X-Request-ID": sane})
            assert response.headers["x-request-id"] == sane
            if response.status_code >= 400:
                assert check_problem(response, response.status_code)["request_id"] == sane
    made = set()
    others = ["", " ", "x" * 65, f"{MARKER} {MARKER}", f"{MARKER}\u00e9", f'{MARKER}"', f"{MARKER}<b>"]
    for other in others:
        response = await client.get("/nowhere", headers=[(b"X-Request-ID", other.encode("latin-1"))])
        made.add(check_problem(response, 404)["request_id"])
        assert MARKER not in response.headers["x-request-id"]
    assert len(made) == len(others)
    response = await client.get("/livez", headers=[(b"X-Request-ID", b"first"), (b"X-Request-ID", b"second")])
    assert response.headers["x-request-id"] == "first"
    check_problem(
        await client.post(PATIENTS, content=body_of_size(2 * MEGABYTE), headers={**JSON_HEADERS, "X-Request-ID": "a"}),
        413,
    )


@pytest.fixture
async def cors_client(database_url: str) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client of an application that browsers may call from one origin."""
    settings = Settings.model_validate({"database_url": database_url, "cors_origins": "https://a.example"})
    transport = httpx.ASGITransport(app := create_app(settings), raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://patients.test") as client,
    ):
        yield client


PREFLIGHT_HEADERS = {
    "Access-Control-Request-Method": "PATCH",
    "Access-Control-Request-Headers": "content-type,x-request-id",
}


async def test_cors_allows_listed_origins_only(cors_client: httpx.AsyncClient) -> None:
    """A listed origin may read every response, including errors, and use all methods; another origin may not."""
    for origin, allowed in (("https://a.example", "https://a.example"), ("https://b.example", None), ("null", None)):
        for path in (PATIENTS, f"{PATIENTS}own-1/", "/nowhere", f"{PATIENTS}?limit=0", "/livez"):
            response = await cors_client.get(path, headers={"Origin": origin})
            assert response.headers.get("access-control-allow-origin") == allowed
        response = await cors_client.post(
            PATIENTS, content=body_of_size(2 * MEGABYTE), headers={**JSON_HEADERS, "Origin": origin}
        )
        assert response.headers.get("access-control-allow-origin") == allowed
        preflight = await cors_client.options(f"{PATIENTS}own-1/", headers={**PREFLIGHT_HEADERS, "Origin": origin})
        assert preflight.headers.get("access-control-allow-origin") == allowed
        assert preflight.headers["x-request-id"]
        if allowed:
            assert preflight.is_success
            assert "origin" in response.headers["vary"].lower()
            methods = set(preflight.headers["access-control-allow-methods"].split(", "))
            assert methods >= {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"}
            exposed = set(response.headers["access-control-expose-headers"].split(", "))
            assert exposed >= {"Link", "Next-Cursor", "Location", "X-Request-ID"}


async def test_refused_preflight_is_a_problem(cors_client: httpx.AsyncClient) -> None:
    """A refused preflight is a problem like any other error."""
    for headers in ({"Origin": f"https://{MARKER}.example"}, {"Origin": "https://a.example", "X-Not-Allowed": MARKER}):
        asked = {**PREFLIGHT_HEADERS, "Access-Control-Request-Headers": ",".join(headers)}
        response = await cors_client.options(PATIENTS, headers={**asked, **headers})
        check_problem(response, response.status_code)
        assert 400 <= response.status_code < 500


async def test_no_origin_is_allowed_by_default(client: httpx.AsyncClient) -> None:
    """Without the setting no origin is allowed, and a preflight is a 405."""
    origin = {"Origin": "https://a.example"}
    responses = [
        await client.get(PATIENTS, headers=origin),
        await client.options(PATIENTS, headers=PREFLIGHT_HEADERS | origin),
    ]
    assert [response.status_code for response in responses] == [200, 405]
    assert not any(name.startswith("access-control") for response in responses for name in response.headers)


async def test_server_error_reveals_no_internals(client: httpx.AsyncClient, connection: asyncpg.Connection) -> None:
    """An unexpected error is a 500 with a request_id and without internals, on every operation."""
    await connection.execute("ALTER TABLE patients RENAME COLUMN patient_town TO zzmarker_town")
    body = {"patient_last_name": MARKER}
    for method, path in (("GET", ""), ("GET", "a/"), ("POST", ""), ("PUT", "a/"), ("PATCH", "a/")):
        response = await client.request(method, f"{PATIENTS}{path}", json=body)
        check_problem(response, 500)
        assert not any(word in response.text.lower() for word in ("town", "sql", "column", "relation", "error:", ".py"))


async def test_edge_cases_over_a_real_socket(serve: Callable[..., ServiceProcess], database_url: str) -> None:
    """The server in front changes none of these rules: raw paths, HEAD, large and deep bodies."""
    served = serve(DATABASE_URL=database_url)
    async with httpx.AsyncClient(base_url=served.url) as client:
        for unique_id in ("%00", "%ff", "%F0%9F%98%80", "%2F", "own%0d%0aX-Bad:%201"):
            for method in ("GET", "PUT", "DELETE"):
                response = await client.request(method, f"{PATIENTS}{unique_id}/", json={})
                check_problem(response, response.status_code)
                assert response.status_code in {404, 405}
        check_problem(
            await client.post(PATIENTS, content=chunked_body(body_of_size(5_000_000)), headers=JSON_HEADERS), 413
        )
        check_problem(await client.post(PATIENTS, content=HOSTILE_BODIES["deep arrays"][0], headers=JSON_HEADERS), 400)
        for path in (PATIENTS, PATIENTS[:-1], f"{PATIENTS}own-1/", "/docs"):
            head = await client.head(path)
            assert (head.status_code, head.content) == ((await client.get(path)).status_code, b"")
        assert (await client.get(PATIENTS)).json() == []
    assert MARKER not in "".join(served.stdout_lines)


async def test_overlong_text_is_refused_before_normalisation(client: httpx.AsyncClient) -> None:
    """Overlong text is refused before it is normalised, which has quadratic cost and would take minutes."""
    marks = "a" + "\u0301\u0316" * 100_000
    async with asyncio.timeout(5):
        response = await client.post("/patients/patients/", json={"patient_first_name": marks, "patient_gender": marks})
    assert [error["type"] for error in response.json()["errors"]] == ["string_too_long", "gender"]


async def test_duplicate_json_key_is_refused(client: httpx.AsyncClient) -> None:
    """An object that names a key twice is refused, because one of the values would be lost."""
    body = b'{"patient_first_name": "Ann", "hospital_ids": ["hos123"], "hospital_ids": []}'
    response = await client.post("/patients/patients/", content=body, headers={"Content-Type": "application/json"})
    assert (response.status_code, "repeated key" in response.json()["detail"]) == (400, True)


async def test_at_most_100_errors_are_listed(client: httpx.AsyncClient) -> None:
    """A response lists the first 100 errors, and says how many there are."""
    body = {"patient_first_name": "Ann", "hospital_ids": ["#"] * 1000, "doctor_ids": ["#"] * 1000}
    problem = (await client.post("/patients/patients/", json=body)).json()
    assert len(problem["errors"]) == 100
    assert "the first 100 of 2000" in problem["detail"]
