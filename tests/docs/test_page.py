"""The page at /docs as a browser shows it: Chromium, on a service in a process of its own."""

import json
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Browser, ConsoleMessage, Locator, Page, async_playwright, expect

from app.auth.scopes import Scope
from tests.auth.support import make_key
from tests.support import EXAMPLE, Served

CHROMIUMS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking")
PATIENCE = 15_000
"""Milliseconds to wait for anything on the page; all of it takes two seconds."""
OPERATIONS = """sections => sections.flatMap(section =>
    Array.from(section.querySelectorAll(".opblock"), operation => [
        section.querySelector(".opblock-tag").dataset.tag,
        operation.querySelector(".opblock-summary-method").innerText,
        operation.querySelector(".opblock-summary-path").dataset.path,
        operation.querySelector(".opblock-summary-description").innerText,
    ]))"""
"""Tag, method, path and summary of each operation on the page, from top to bottom."""


def chromium() -> str | None:
    """The first Chromium that starts; Ubuntu has a command of the name that only says where to get one."""
    for path in filter(None, map(shutil.which, CHROMIUMS)):
        if subprocess.run([path, "--version"], check=False, capture_output=True, timeout=30).returncode == 0:
            return path
    return None


@pytest.fixture(scope="module")
async def browser() -> AsyncIterator[Browser]:
    path = chromium()
    if path is None:
        pytest.skip("Chromium is not at hand")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        await browser.close()


class Visit:
    """The page, opened, and what the browser asked for and complained of since."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.hosts: set[str] = set()
        """Of all requests."""
        self.complaints: list[str] = []
        """Errors and warnings as the console has them; what the policy blocks is among them."""
        self.tolerated: set[str] = set()
        page.on("request", lambda request: self.hosts.add(urlsplit(request.url).netloc))
        page.on("console", self._hear)
        page.on("pageerror", lambda error: self.complaints.append(f"uncaught: {error}"))

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"} and message.text not in self.tolerated:
            self.complaints.append(f"{message.type}: {message.text}")

    async def get(self, path: str) -> Any:
        """What the service answers, past the page."""
        return await (await self.page.request.get(path)).json()

    async def unfold(self, operation: str) -> Locator:
        """Open an operation: its parameters, its body to edit, the button that sends it."""
        place = self.page.locator(f"#operations-{operation}")
        await place.locator(".opblock-summary-control").click()
        return place


@pytest.fixture
def served(serve: Callable[..., Served], database_url: str, request: pytest.FixtureRequest) -> Served:
    """The service with demo data; a test's parameter says whether it asks for credentials."""
    return serve("--demo", DATABASE_URL=database_url, PATIENTS_AUTH=getattr(request, "param", "off"))


@pytest.fixture
async def visit(browser: Browser, served: Served) -> AsyncIterator[Visit]:
    """At its end, nothing came from anywhere else, and the browser had no complaint."""
    page = await browser.new_page(base_url=served.url, viewport={"width": 1200, "height": 1500})
    page.set_default_timeout(PATIENCE)
    visit = Visit(page)
    await page.goto("/docs")
    yield visit
    await page.close()
    assert visit.complaints == []
    assert visit.hosts == {urlsplit(served.url).netloc}


async def executed(operation: Locator) -> Locator:
    """Press the button, and wait for the answer: the row with its status and body."""
    await operation.get_by_role("button", name="Execute").click()
    answer = operation.locator(".live-responses-table tbody .response")
    await answer.wait_for()
    return answer


def operations(document: dict[str, Any]) -> list[list[str]]:
    """What the page has to show, resource by resource."""
    return [
        [tag["name"], method.upper(), path, operation["summary"]]
        for tag in document["tags"]
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        if operation["tags"] == [tag["name"]]
    ]


async def test_it_shows_every_operation_under_its_resource(visit: Visit) -> None:
    """All that the document has, in its order."""
    expected = operations(await visit.get("/openapi.json"))
    await expect(visit.page.locator(".opblock")).to_have_count(len(expected), timeout=PATIENCE)
    assert await visit.page.locator(".opblock-tag-section").evaluate_all(OPERATIONS) == expected


async def test_the_contracts_example_can_be_sent_as_it_stands(visit: Visit) -> None:
    """`create_patient` is prefilled with the contract's example, and the demo data take it."""
    operation = await visit.unfold("patients-create_patient")
    assert json.loads(await operation.locator("textarea").input_value()) == EXAMPLE
    answer = await executed(operation)
    assert (await answer.locator(".response-col_status").inner_text()).split()[0] == "201"
    shown = json.loads(await answer.locator(".response-col_description code").first.inner_text())
    assert await visit.get(f"/patients/patients/{shown['unique_id']}/") == shown


async def test_a_wrong_value_is_explained(visit: Visit) -> None:
    """The problem can be read on the page; the one line that Chromium itself has on an answer of 422 is tolerated."""
    status = f"the server responded with a status of 422 ({HTTPStatus(422).phrase})"
    visit.tolerated.add(f"Failed to load resource: {status}")
    operation = await visit.unfold("patients-create_patient")
    body = operation.locator("textarea")
    await body.fill((await body.input_value()).replace("1980-01-01", "17/05/1990"))
    answer = await executed(operation)
    assert (await answer.locator(".response-col_status").inner_text()).split()[0] == "422"
    message = answer.get_by_text("Must be a date written YYYY-MM-DD")
    await message.scroll_into_view_if_needed()
    assert await message.is_visible()


@pytest.mark.parametrize("served", ["required"], indirect=True)
async def test_authorize_takes_a_key(visit: Visit, database_url: str) -> None:
    """Where credentials are required, a key given to the Authorize button opens what was refused before."""
    key = await make_key(database_url, Scope.PATIENTS_READ)
    status = f"the server responded with a status of 401 ({HTTPStatus(401).phrase})"
    visit.tolerated.add(f"Failed to load resource: {status}")
    operation = await visit.unfold("patients-get_patient")
    answer = await executed(operation)
    assert (await answer.locator(".response-col_status").inner_text()).split()[0] == "401"
    await visit.page.locator(".btn.authorize").click()
    form = visit.page.locator(".auth-container", has_text="X-API-Key")
    await form.locator("input").fill(key)
    await form.locator(".btn.authorize").click()
    await visit.page.locator(".btn-done").first.click()
    await operation.get_by_role("button", name="Execute").click()
    shown = operation.locator(".live-responses-table tbody .response")
    await expect(shown.locator(".response-col_status")).to_contain_text("200", timeout=PATIENCE)
    body = json.loads(await shown.locator(".response-col_description code").first.inner_text())
    assert (body["unique_id"], body["patient_last_name"]) == ("pat123", "Doe")
