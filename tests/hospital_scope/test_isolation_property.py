"""Random requests of a restricted principal, among random changes by an unrestricted one, reveal no hidden record."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from random import Random
from typing import Any, NamedTuple

import asyncpg
import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.auth.support import HOSPITALS, PATIENTS, PROFILES, make_key, secured_app
from tests.hospital_scope.conftest import REGULAR_SCOPES
from tests.hospital_scope.test_access_matrix import comparable_response
from tests.hospital_scope.world import ID_PREFIXES, UNRESTRICTED_ACTIONS, Step, UnrestrictedChanges, World

GONE_DETAIL = "What the first request with this Idempotency-Key made is no longer there."
RECORD_ROUTES = (
    ("GET", ""),
    ("PUT", ""),
    ("PATCH", ""),
    ("PUT", ""),
    ("DELETE", ""),
    ("GET", "history/"),
    ("GET", "history/{version}/"),
    ("POST", "restore/"),
    ("GET", "access/"),
)
RESTRICTED_ACTIONS = (
    "patient",
    "patient",
    "patient",
    "patient",
    "profile",
    "profile",
    "list",
    "create",
    "create",
    "repeat",
    "repeat",
    "refused_requests",
)


HOSPITAL_BIT_CHOICES = (1, 1, 1, 1, 3, 7, 0, 2)
"""Sets of hospitals as bits, most of them the principal's own hospital."""


def generate_steps(seed: int, length: int) -> Iterator[Step]:
    """Yield random steps of all kinds. Hypothesis itself would choose the same small numbers again and again."""
    random = Random(seed)  # noqa: S311  # the numbers need not be secret
    for _ in range(length):
        yield Step(
            random.choice(RESTRICTED_ACTIONS + UNRESTRICTED_ACTIONS),
            *(random.randrange(number) for number in (60, 60, 16, 56)),
        )
    yield from (Step("list", 0, 0, 0, 0), Step("list", 0, 1, 1, 1))


class SentRequest(NamedTuple):
    """A request with an Idempotency-Key, and its response."""

    path: str
    keywords: dict[str, Any]
    response: httpx.Response


class PropertyRun(UnrestrictedChanges):
    """The steps of one example, and the properties that each response must have."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.sent_requests: list[SentRequest] = []
        self.gone_response: object = None

    async def run_step(self, step: Step) -> None:
        self.state = await self.world.read_visible_state()
        await self.world.note_shown_traces(self.state)
        await getattr(self, step.action)(step)
        if step.action in RESTRICTED_ACTIONS:
            after = await self.world.read_visible_state()
            restorable_profiles = {(PROFILES, profile) for profile in self.state.deleted_patients.values()}
            for record in self.state.hidden_versions.keys() - restorable_profiles:
                assert after.hidden_versions.get(record) == self.state.hidden_versions[record], (
                    f"{record} was changed by {step}"
                )

    async def request_restricted(self, method: str, path: str, **keywords: Any) -> httpx.Response:
        """Send a request of the restricted principal, and return its response without traces of hidden records."""
        response = await self.world.restricted.request(method, path, **keywords)
        assert response.status_code < 500, (method, path, keywords)
        assert list(self.world.leaked_traces(response)) == [], (method, path, keywords, response.text)
        return response

    async def condition_headers(self, step: Step, one: str) -> dict[str, str]:
        """Return headers with a condition or a key, some with the real tag of a record."""
        tag = (await self.world.unrestricted.get(one)).headers.get("ETag", '"AAAAAAAAAAAAAAAAAAAAAA"')
        key = f"key-{self.world.number}-{len(self.sent_requests)}-{step.record_number}"
        choices: list[dict[str, str]] = [
            {},
            {"If-None-Match": tag},
            {"If-Match": tag},
            {"If-None-Match": "*"},
            {"If-Match": "*"},
            {"Idempotency-Key": key},
            {"Idempotency-Key": key, "If-Match": tag},
        ]
        return choices[step.condition_number % len(choices)]

    def body(self, step: Step) -> dict[str, Any]:
        """Return a body that sets one or more of a patient's town, hospitals and profile."""
        body: dict[str, Any] = {"patient_town": f"Town {step.other_number}"} if step.variant & 1 else {}
        if step.variant & 2:
            body["hospital_ids"] = self.world.hospitals_from_bits(HOSPITAL_BIT_CHOICES[step.condition_number % 8])
        if step.variant & 12:
            new = f"w{self.world.number}-prof-new{step.other_number}"
            profile = self.linkable_profile_id(step.other_number) if step.variant & 4 else new
            if profile not in self.world.ids[PROFILES]:
                self.world.ids[PROFILES].append(profile)
            body["patient_profile"] = {
                "unique_id": profile,
                **({"first_name": "Ann"} if step.condition_number & 1 else {}),
            }
        return body

    def names_hidden_profile(self, body: dict[str, Any]) -> bool:
        """Return whether a body names a hidden profile."""
        profile = body.get("patient_profile", {}).get("unique_id")
        return (PROFILES, profile) in self.state.hidden_versions

    async def request_record(self, resource: str, step: Step) -> None:
        method, path = RECORD_ROUTES[step.variant % (9 if resource == PATIENTS else 8)]
        unique_id = self.pick_id(resource, step.record_number)
        one, absent = f"{resource}{unique_id}/", f"{resource}{self.world.ids[resource][0]}/"
        keywords: dict[str, Any] = {"headers": await self.condition_headers(step, one)}
        if path == "restore/":
            keywords["json"] = {"version": step.other_number % 4 + 1, "skip_missing": step.other_number % 3 == 0}
        elif method in {"PUT", "PATCH"}:
            keywords["json"] = {"first_name": "Eve"} if resource == PROFILES else self.body(step)
        elif path == "history/" and step.other_number % 2:
            keywords["params"] = {"limit": step.other_number % 5 + 1}
        path = path.format(version=step.other_number % 4 + 1)
        response = await self.request_restricted(method, f"{one}{path}", **keywords)
        if not self.state.may_read(resource, unique_id, path):
            assert response.status_code == 404, (step, keywords)
            assert comparable_response(response) == comparable_response(
                await self.request_restricted(method, f"{absent}{path}", **keywords)
            )
            return
        assert response.status_code != 404 or path.startswith("history/"), (step, response.text)
        if resource == PATIENTS and self.names_hidden_profile(keywords.get("json", {})):
            assert response.status_code in {409, 412, 422}
        if method == "DELETE" and response.status_code == 409:
            assert response.json()["detail"].startswith("One or more patients are linked")
        if "Idempotency-Key" in keywords["headers"] and method == "POST" and response.is_success:
            self.sent_requests.append(SentRequest(f"{one}{path}", keywords, response))

    async def patient(self, step: Step) -> None:
        await self.request_record(PATIENTS, step)

    async def profile(self, step: Step) -> None:
        await self.request_record(PROFILES, step)

    async def list(self, step: Step) -> None:
        """Check that the list, whole or in pages, has exactly the visible records in the unrestricted order."""
        resource = (PATIENTS, PROFILES)[step.variant % 2]
        everything = (await self.world.unrestricted.get(resource)).json()
        expected = [record for record in everything if record["unique_id"] in self.state.visible_ids[resource]]
        if step.condition_number % 2:
            assert (await self.request_restricted("GET", resource)).json() == expected
            return
        found, size, url = [], step.other_number % 4 + 1, f"{resource}?limit={step.other_number % 4 + 1}"
        while url:
            page = await self.request_restricted("GET", url)
            found += page.json()
            assert page.json()
            assert len(page.json()) == size or "next" not in page.links
            url = page.links.get("next", {}).get("url", "")
        assert found == expected

    async def create(self, step: Step) -> None:
        hospitals = self.world.hospitals_from_bits(HOSPITAL_BIT_CHOICES[step.other_number % 8])
        body = {"patient_last_name": "New", **self.body(step), "hospital_ids": hospitals}
        headers = {"Idempotency-Key": f"new-{self.world.number}-{len(self.sent_requests)}-{step.record_number}"}
        keywords = {"json": body, "headers": headers}
        response = await self.request_restricted("POST", PATIENTS, **keywords)
        if self.names_hidden_profile(body) or self.world.hospitals[0] not in hospitals:
            assert response.status_code == 422
        if response.is_success:
            self.world.ids[PATIENTS].append(response.json()["unique_id"])
            self.sent_requests.append(SentRequest(PATIENTS, keywords, response))

    async def repeat(self, step: Step) -> None:
        """Check that a repeat is replayed while its record is visible, and then is one and the same 409."""
        if not self.sent_requests:
            return
        path, keywords, first = self.sent_requests[step.record_number % len(self.sent_requests)]
        response = await self.request_restricted("POST", path, **keywords)
        if first.json()["unique_id"] in self.state.visible_ids[PATIENTS if path.startswith(PATIENTS) else PROFILES]:
            assert (response.status_code, response.content) == (first.status_code, first.content)
            assert response.headers["Idempotency-Replayed"] == "true"
        else:
            assert (response.status_code, response.json()["detail"]) == (409, GONE_DETAIL)
            self.gone_response = self.gone_response or comparable_response(response)
            assert comparable_response(response) == self.gone_response

    async def refused_requests(self, step: Step) -> None:
        """Check what is refused whatever is hidden: choosing an id, creating a profile, reading the audit, counting."""
        for resource, prefix in ID_PREFIXES.items():
            body = (
                {"patient_last_name": "New", "hospital_ids": self.world.hospitals_from_bits(1)}
                if prefix == "pat"
                else {}
            )
            body["unique_id"] = self.pick_id(resource, step.record_number)
            response = await self.request_restricted("POST", resource, json=body)
            body["unique_id"] = self.world.ids[resource][0]
            assert response.status_code == 403
            assert comparable_response(response) == comparable_response(
                await self.request_restricted("POST", resource, json=body)
            )
        assert (
            await self.request_restricted(
                "GET", "/audit/", params={"patient": self.pick_id(PATIENTS, step.record_number)}
            )
        ).status_code == 403
        response = await self.request_restricted("DELETE", f"{HOSPITALS}{self.world.hospitals[step.variant % 3]}/")
        assert response.json()["detail"].startswith("One or more patients are linked")


WorldFactory = Callable[[], Awaitable[World]]


@pytest.fixture
async def create_world(database_url: str, connection: asyncpg.Connection) -> AsyncIterator[WorldFactory]:
    """Yield a function that creates a new world for each example, all in one service."""
    free = await make_key(database_url, *REGULAR_SCOPES, name="free")
    async with secured_app(database_url, rate_limit="off") as app:
        yield lambda: World.create(app, database_url, connection, free)


@pytest.mark.long
@given(seed=st.integers(0, 2**32), length=st.integers(20, 45))
@settings(
    max_examples=25,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
async def test_restricted_principal_never_reaches_hidden_records(
    create_world: WorldFactory, seed: int, length: int
) -> None:
    """No request, by any route and after any changes, reads or changes a hidden record."""
    world = await create_world()
    async with world.stack:
        run = PropertyRun(world)
        for step in generate_steps(seed, length):
            await run.run_step(step)
