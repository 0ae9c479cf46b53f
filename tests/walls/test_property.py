"""Random requests by who is limited, among random changes by who is not: nothing comes across the wall."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from random import Random
from typing import Any, NamedTuple

import asyncpg
import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.auth.support import HOSPITALS, PATIENTS, PROFILES, make_key, secured
from tests.walls.conftest import SCOPES
from tests.walls.test_matrix import told
from tests.walls.world import FREE, PREFIXES, Changes, Step, World

GONE = "What the first request with this Idempotency-Key made is no longer there."
ROUTES = (
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
LIMITED = (
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
    "elsewhere",
)


CHOICES = (1, 1, 1, 1, 3, 7, 0, 2)
"""Of hospitals, as bits: mostly the own one."""


def steps_of(seed: int, length: int) -> Iterator[Step]:
    """Steps of all kinds alike. Hypothesis itself would choose the same small numbers again and again."""
    random = Random(seed)  # noqa: S311  # nobody is to be kept from guessing
    for _ in range(length):
        yield Step(random.choice(LIMITED + FREE), *(random.randrange(number) for number in (60, 60, 16, 56)))
    yield from (Step("list", 0, 0, 0, 0), Step("list", 0, 1, 1, 1))


class Sent(NamedTuple):
    """A request with an Idempotency-Key that was answered."""

    path: str
    keywords: dict[str, Any]
    answer: httpx.Response


class Run(Changes):
    """The steps of one example, and what has to hold of each answer."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.sent: list[Sent] = []
        self.gone: object = None

    async def take(self, step: Step) -> None:
        self.state = await self.world.state()
        await self.world.show(self.state)
        await getattr(self, step.what)(step)
        if step.what in LIMITED:
            after = await self.world.state()
            brought = {(PROFILES, profile) for profile in self.state.deleted.values()}
            for record in self.state.hidden.keys() - brought:
                assert after.hidden.get(record) == self.state.hidden[record], f"{record} was reached by {step}"

    async def ask(self, method: str, path: str, **keywords: Any) -> httpx.Response:
        """Send a request of the limited principal; its answer, without a trace of anything hidden."""
        answer = await self.world.limited.request(method, path, **keywords)
        assert answer.status_code < 500, (method, path, keywords)
        assert list(self.world.leaks(answer)) == [], (method, path, keywords, answer.text)
        return answer

    async def conditions(self, step: Step, one: str) -> dict[str, str]:
        """Headers, among them the real tag of a record."""
        tag = (await self.world.free.get(one)).headers.get("ETag", '"AAAAAAAAAAAAAAAAAAAAAA"')
        key = f"key-{self.world.number}-{len(self.sent)}-{step.which}"
        choices: list[dict[str, str]] = [
            {},
            {"If-None-Match": tag},
            {"If-Match": tag},
            {"If-None-Match": "*"},
            {"If-Match": "*"},
            {"Idempotency-Key": key},
            {"Idempotency-Key": key, "If-Match": tag},
        ]
        return choices[step.condition % len(choices)]

    def body(self, step: Step) -> dict[str, Any]:
        """What to set of a patient: its name, its hospitals, its profile, or several of these."""
        body: dict[str, Any] = {"patient_town": f"Town {step.other}"} if step.how & 1 else {}
        if step.how & 2:
            body["hospital_ids"] = self.world.choice(CHOICES[step.condition % 8])
        if step.how & 12:
            new = f"w{self.world.number}-prof-new{step.other}"
            profile = self.named(step.other) if step.how & 4 else new
            if profile not in self.world.ids[PROFILES]:
                self.world.ids[PROFILES].append(profile)
            body["patient_profile"] = {"unique_id": profile, **({"first_name": "Ann"} if step.condition & 1 else {})}
        return body

    def unavailable(self, body: dict[str, Any]) -> bool:
        """Whether a body names a profile that is hidden."""
        profile = body.get("patient_profile", {}).get("unique_id")
        return (PROFILES, profile) in self.state.hidden

    async def about(self, resource: str, step: Step) -> None:
        method, path = ROUTES[step.how % (9 if resource == PATIENTS else 8)]
        unique_id = self.pick(resource, step.which)
        one, absent = f"{resource}{unique_id}/", f"{resource}{self.world.ids[resource][0]}/"
        keywords: dict[str, Any] = {"headers": await self.conditions(step, one)}
        if path == "restore/":
            keywords["json"] = {"version": step.other % 4 + 1, "skip_missing": step.other % 3 == 0}
        elif method in {"PUT", "PATCH"}:
            keywords["json"] = {"first_name": "Eve"} if resource == PROFILES else self.body(step)
        elif path == "history/" and step.other % 2:
            keywords["params"] = {"limit": step.other % 5 + 1}
        path = path.format(version=step.other % 4 + 1)
        answer = await self.ask(method, f"{one}{path}", **keywords)
        if not self.state.knows(resource, unique_id, path):
            assert answer.status_code == 404, (step, keywords)
            assert told(answer) == told(await self.ask(method, f"{absent}{path}", **keywords))
            return
        assert answer.status_code != 404 or path.startswith("history/"), (step, answer.text)
        if resource == PATIENTS and self.unavailable(keywords.get("json", {})):
            assert answer.status_code in {409, 412, 422}
        if method == "DELETE" and answer.status_code == 409:
            assert answer.json()["detail"].startswith("It is in use: patients are linked")
        if "Idempotency-Key" in keywords["headers"] and method == "POST" and answer.is_success:
            self.sent.append(Sent(f"{one}{path}", keywords, answer))

    async def patient(self, step: Step) -> None:
        await self.about(PATIENTS, step)

    async def profile(self, step: Step) -> None:
        await self.about(PROFILES, step)

    async def list(self, step: Step) -> None:
        """Exactly what is seen, in the order in which who sees all sees it; whole, or page after page."""
        resource = (PATIENTS, PROFILES)[step.how % 2]
        everything = (await self.world.free.get(resource)).json()
        expected = [record for record in everything if record["unique_id"] in self.state.seen[resource]]
        if step.condition % 2:
            assert (await self.ask("GET", resource)).json() == expected
            return
        found, size, url = [], step.other % 4 + 1, f"{resource}?limit={step.other % 4 + 1}"
        while url:
            page = await self.ask("GET", url)
            found += page.json()
            assert page.json()
            assert len(page.json()) == size or "next" not in page.links
            url = page.links.get("next", {}).get("url", "")
        assert found == expected

    async def create(self, step: Step) -> None:
        hospitals = self.world.choice(CHOICES[step.other % 8])
        body = {"patient_last_name": "New", **self.body(step), "hospital_ids": hospitals}
        headers = {"Idempotency-Key": f"new-{self.world.number}-{len(self.sent)}-{step.which}"}
        keywords = {"json": body, "headers": headers}
        answer = await self.ask("POST", PATIENTS, **keywords)
        if self.unavailable(body) or self.world.hospitals[0] not in hospitals:
            assert answer.status_code == 422
        if answer.is_success:
            self.world.ids[PATIENTS].append(answer.json()["unique_id"])
            self.sent.append(Sent(PATIENTS, keywords, answer))

    async def repeat(self, step: Step) -> None:
        """The first answer, as long as what it made is seen; then the same, be it deleted or moved."""
        if not self.sent:
            return
        path, keywords, first = self.sent[step.which % len(self.sent)]
        answer = await self.ask("POST", path, **keywords)
        if first.json()["unique_id"] in self.state.seen[PATIENTS if path.startswith(PATIENTS) else PROFILES]:
            assert (answer.status_code, answer.content) == (first.status_code, first.content)
            assert answer.headers["Idempotency-Replayed"] == "true"
        else:
            assert (answer.status_code, answer.json()["detail"]) == (409, GONE)
            self.gone = self.gone or told(answer)
            assert told(answer) == self.gone

    async def elsewhere(self, step: Step) -> None:
        """What is refused whoever is hidden: to choose an id, to make a profile, to read the audit, to count."""
        for resource, prefix in PREFIXES.items():
            body = {"patient_last_name": "New", "hospital_ids": self.world.choice(1)} if prefix == "pat" else {}
            body["unique_id"] = self.pick(resource, step.which)
            answer = await self.ask("POST", resource, json=body)
            body["unique_id"] = self.world.ids[resource][0]
            assert answer.status_code == 403
            assert told(answer) == told(await self.ask("POST", resource, json=body))
        assert (
            await self.ask("GET", "/audit/", params={"patient": self.pick(PATIENTS, step.which)})
        ).status_code == 403
        answer = await self.ask("DELETE", f"{HOSPITALS}{self.world.hospitals[step.how % 3]}/")
        assert answer.json()["detail"].startswith("It is in use: patients are linked")


Worlds = Callable[[], Awaitable[World]]


@pytest.fixture
async def worlds(database_url: str, connection: asyncpg.Connection) -> AsyncIterator[Worlds]:
    """Makes a new world for each example, all at one service."""
    free = await make_key(database_url, *SCOPES, name="free")
    async with secured(database_url, rate_limit="off") as app:
        yield lambda: World.make(app, database_url, connection, free)


@given(seed=st.integers(0, 2**32), length=st.integers(20, 45))
@settings(
    max_examples=25,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
async def test_nothing_comes_across_the_wall(worlds: Worlds, seed: int, length: int) -> None:
    """Whatever is asked, by whatever route, after whatever has happened."""
    world = await worlds()
    async with world.stack:
        run = Run(world)
        for step in steps_of(seed, length):
            await run.take(step)
