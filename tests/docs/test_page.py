"""The pages for people in a browser: /docs, with the service in its own process, and the access report."""

import asyncio
import json
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.async_api import (
    Browser,
    ConsoleMessage,
    Locator,
    Page,
    ViewportSize,
    async_playwright,
    expect,
)

from app.audit.report import render_report
from app.audit.schemas import AccessEntry
from app.auth.scopes import Scope
from tests.auth.support import make_key
from tests.support import EXAMPLE_PATIENT, ServiceProcess

CHROMIUM_COMMANDS = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM_FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking")
TIMEOUT_MILLISECONDS = 60_000
"""The timeout for anything on the page, all of which loads within two seconds unless the machine is busy."""
LAPTOP: ViewportSize = {"width": 1200, "height": 1500}
PHONE: ViewportSize = {"width": 390, "height": 844}
UNKNOWN_FORMAT_WARNINGS = {f"Could not find component: JsonSchema_string_{kind}" for kind in ("date", "date-time")}
"""Warnings of Swagger UI about parameters that are dates, which it shows as text."""
UNAVAILABLE_MESSAGE = "Failed to load resource: the server responded with a status of 503 (Service Unavailable)"
"""What the console says about a response that `execute` requests again."""
READ_OPERATIONS_SCRIPT = """sections => sections.flatMap(section =>
    Array.from(section.querySelectorAll(".opblock"), operation => [
        section.querySelector(".opblock-tag").dataset.tag,
        operation.querySelector(".opblock-summary-method").innerText,
        operation.querySelector(".opblock-summary-path").dataset.path,
        operation.querySelector(".opblock-summary-description").innerText,
    ]))"""
"""Returns tag, method, path and summary of each operation on the page, from top to bottom."""


def find_chromium() -> str | None:
    """Return the first Chromium that starts; on Ubuntu the command may only print how to install it."""
    for path in filter(None, map(shutil.which, CHROMIUM_COMMANDS)):
        if subprocess.run([path, "--version"], check=False, capture_output=True, timeout=30).returncode == 0:
            return path
    return None


@pytest.fixture(scope="module")
async def browser() -> AsyncIterator[Browser]:
    path = find_chromium()
    if path is None:
        pytest.skip("Chromium is not installed")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=CHROMIUM_FLAGS)
        yield browser
        await browser.close()


class DocsPage:
    """The opened page, with the hosts requested and the errors logged since."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.requested_hosts: set[str] = set()
        """The hosts of all requests."""
        self.console_errors: list[str] = []
        """Errors and warnings of the console, including what the content security policy blocks."""
        self.tolerated_messages: set[str] = set()
        page.on("request", lambda request: self.requested_hosts.add(urlsplit(request.url).netloc))
        page.on("console", self._on_console_message)
        page.on("pageerror", lambda error: self.console_errors.append(f"uncaught: {error}"))

    def _on_console_message(self, message: ConsoleMessage) -> None:
        tolerated = self.tolerated_messages | {UNAVAILABLE_MESSAGE}
        if message.type in {"error", "warning"} and message.text not in tolerated:
            self.console_errors.append(f"{message.type}: {message.text}")

    async def get_json(self, path: str) -> Any:
        """Return JSON directly from the service, without the page."""
        return await (await self.page.request.get(path)).json()

    async def open_operation(self, operation: str) -> Locator:
        """Expand an operation to show its parameters, its editable body and the button that sends it."""
        section = self.page.locator(f"#operations-{operation}")
        await section.locator(".opblock-summary-control").click()
        return section

    async def reset(self) -> None:
        """Close the open operations, forget their responses, and show all operations on a laptop in light colors."""
        await self.page.set_viewport_size(LAPTOP)
        await self.page.emulate_media(color_scheme="light")
        await self.page.get_by_label("Filter operations").fill("")
        for section in reversed(await self.page.locator(".opblock.is-open").all()):  # each is found by its number
            if await (clear := section.get_by_role("button", name="Clear")).count():
                await clear.click()
            await section.locator(".opblock-summary-control").click()
        await expect(self.page.locator(".opblock.is-open")).to_have_count(0)
        self.tolerated_messages.clear()


@pytest.fixture(scope="module")
def served(
    module_serve: Callable[..., ServiceProcess], module_database_url: str, request: pytest.FixtureRequest
) -> ServiceProcess:
    """Run the service with demo data; the fixture's parameter, if any, is PATIENTS_AUTH."""
    return module_serve("--demo", DATABASE_URL=module_database_url, PATIENTS_AUTH=getattr(request, "param", "off"))


@pytest.fixture(scope="module")
async def module_docs_page(browser: Browser, served: ServiceProcess) -> AsyncIterator[DocsPage]:
    """Open the page for all tests of a service, because loading it takes longer than what most tests do with it."""
    page = await browser.new_page(base_url=served.url, viewport=LAPTOP)
    page.set_default_timeout(TIMEOUT_MILLISECONDS)
    opened_page = DocsPage(page)
    await page.goto("/docs")
    yield opened_page
    await page.close()


@pytest.fixture
async def docs_page(module_docs_page: DocsPage, served: ServiceProcess) -> AsyncIterator[DocsPage]:
    """Yield the page; at the end, check that nothing was requested from another host and the console has no error.

    The next test finds the page as it was loaded, except for credentials.
    """
    yield module_docs_page
    await module_docs_page.reset()
    assert module_docs_page.console_errors == []
    assert module_docs_page.requested_hosts == {urlsplit(served.url).netloc}


async def execute(operation: Locator) -> Locator:
    """Press the button, and return the row with the status and the body once the response is shown.

    On a busy machine, a search may take longer than the service allows: a 503 asks clients to try again.
    """
    response_row = operation.locator(".live-responses-table tbody .response")
    async with asyncio.timeout(60):
        while True:
            await operation.get_by_role("button", name="Execute").click()
            await response_row.wait_for()
            if await response_status(response_row) != "503":
                return response_row
            await operation.get_by_role("button", name="Clear").click()


async def response_status(response_row: Locator) -> str:
    """Return the shown status of a response."""
    return (await response_row.locator(".response-col_status").inner_text()).split()[0]


def expected_operations(document: dict[str, Any]) -> list[list[str]]:
    """Return the operations that the page must show, grouped by resource."""
    return [
        [tag["name"], method.upper(), path, operation["summary"]]
        for tag in document["tags"]
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        if operation["tags"] == [tag["name"]]
    ]


async def test_page_shows_every_operation_under_its_resource(docs_page: DocsPage) -> None:
    """The page shows all operations of the document in its order, and no choice of a server, because there is one."""
    expected = expected_operations(await docs_page.get_json("/openapi.json"))
    await expect(docs_page.page.locator(".opblock")).to_have_count(len(expected), timeout=TIMEOUT_MILLISECONDS)
    assert await docs_page.page.locator(".opblock-tag-section").evaluate_all(READ_OPERATIONS_SCRIPT) == expected
    await expect(docs_page.page.locator(".btn.authorize")).to_be_visible()
    await expect(docs_page.page.locator(".schemes-server-container")).to_be_hidden()


async def test_the_contracts_example_can_be_sent_as_it_stands(docs_page: DocsPage) -> None:
    """`create_patient` is prefilled with the contract's example, and sending it unchanged succeeds on the demo data."""
    operation = await docs_page.open_operation("patients-create_patient")
    assert json.loads(await operation.locator("textarea").input_value()) == EXAMPLE_PATIENT
    response = await execute(operation)
    assert await response_status(response) == "201"
    shown = json.loads(await response.locator(".response-col_description code").first.inner_text())
    assert await docs_page.get_json(f"/patients/patients/{shown['unique_id']}/") == shown


@pytest.mark.parametrize(
    "operation",
    [
        "patients-list_patients",
        "patients-search_patients",
        "patients-list_patient_history",
        "patients-get_patient_version",
        "patients-restore_patient",
        "patients-list_patient_access",
        "hospitals-list_hospitals",
        "audit-list_audit_entries",
    ],
)
async def test_operations_are_filled_in_to_find_something(docs_page: DocsPage, operation: str) -> None:
    """Each operation is filled in so that sending it unchanged finds something, and lists are pages of 20."""
    docs_page.tolerated_messages |= UNKNOWN_FORMAT_WARNINGS
    section = await docs_page.open_operation(operation)
    if "list" in operation:
        await expect(section.locator("[data-param-name=limit] input")).to_have_value("20")
    response = await execute(section)
    assert await response_status(response) == "200"
    assert json.loads(await response.locator(".response-col_description code").first.inner_text())


@pytest.mark.parametrize("size", [{"width": 1200, "height": 900}, PHONE], ids=["laptop", "phone"])
@pytest.mark.parametrize("operation", ["patients-list_patients", "patients-create_patient"])
async def test_execute_is_in_sight(docs_page: DocsPage, operation: str, size: ViewportSize) -> None:
    """The button that sends a request is in sight as soon as the operation is open, however long its parameters are."""
    docs_page.tolerated_messages |= UNKNOWN_FORMAT_WARNINGS
    await docs_page.page.set_viewport_size(size)
    section = await docs_page.open_operation(operation)
    await section.evaluate("element => element.scrollIntoView()")
    await expect(section.get_by_role("button", name="Execute")).to_be_in_viewport(ratio=1)


async def test_validation_errors_are_shown_on_the_page(docs_page: DocsPage) -> None:
    """The page shows a validation problem, and Chromium's console has nothing but its own line about the 422."""
    status = f"the server responded with a status of 422 ({HTTPStatus(422).phrase})"
    docs_page.tolerated_messages.add(f"Failed to load resource: {status}")
    operation = await docs_page.open_operation("patients-create_patient")
    body = operation.locator("textarea")
    await body.fill((await body.input_value()).replace("1980-01-01", "17/05/1990"))
    response = await execute(operation)
    assert await response_status(response) == "422"
    message = response.get_by_text("Must be a date written YYYY-MM-DD")
    await message.scroll_into_view_if_needed()
    assert await message.is_visible()


async def horizontal_overflow(page: Page) -> int:
    """Return by how many pixels the document is wider than the window."""
    script = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    return int(await page.evaluate(script))


async def test_page_fits_a_phone(docs_page: DocsPage) -> None:
    """On a phone, the page does not scroll sideways, and descriptions have most of its width."""
    docs_page.tolerated_messages |= UNKNOWN_FORMAT_WARNINGS
    await docs_page.page.set_viewport_size(PHONE)
    for operation in ("patients-create_patient", "patients-list_patients"):
        section = await docs_page.open_operation(operation)
        for cell in ("td.parameters-col_description", ".headers td:nth-child(2)"):
            box = await section.locator(cell).first.bounding_box()
            assert box is not None
            assert box["width"] > 0.6 * PHONE["width"], (operation, cell)
        await expect(section.get_by_role("button", name="Execute")).to_be_visible()
    assert await horizontal_overflow(docs_page.page) == 0


async def test_page_follows_the_dark_color_scheme(docs_page: DocsPage) -> None:
    """The page is dark if the system is, also if the system changes while the page is open."""
    root, title = docs_page.page.locator("html"), docs_page.page.locator(".info .title")
    await docs_page.page.emulate_media(color_scheme="dark")
    await expect(root).to_have_css("background-color", "rgb(28, 32, 34)")
    await expect(title).to_have_css("color", "rgb(210, 214, 215)")
    await docs_page.page.emulate_media(color_scheme="light")
    await expect(root).to_have_css("background-color", "rgba(0, 0, 0, 0)")
    await expect(title).to_have_css("color", "rgb(59, 65, 81)")


async def test_filter_finds_operations_by_several_words(docs_page: DocsPage) -> None:
    """The filter keeps the operations whose resource, method, path and summary contain all words."""
    expected = expected_operations(await docs_page.get_json("/openapi.json"))
    words = ("history", "get", "patients/patients")
    matching = [one for one in expected if all(word in " ".join(one).lower() for word in words)]
    assert 0 < len(matching) < len(expected)
    operations = docs_page.page.locator(".opblock")
    box = docs_page.page.get_by_label("Filter operations")
    await box.fill("History GET patients/patients")
    await expect(operations).to_have_count(len(matching), timeout=TIMEOUT_MILLISECONDS)
    assert await docs_page.page.locator(".opblock-tag-section").evaluate_all(READ_OPERATIONS_SCRIPT) == matching
    await box.fill("")
    await expect(operations).to_have_count(len(expected), timeout=TIMEOUT_MILLISECONDS)


# the last test of the page, because the page of another service is loaded anew, as it would be for a test after it
@pytest.mark.parametrize("served", ["required"], indirect=True)
async def test_authorize_button_accepts_an_api_key(docs_page: DocsPage, module_database_url: str) -> None:
    """If credentials are required, a key entered with the Authorize button makes a refused request succeed."""
    key = await make_key(module_database_url, Scope.PATIENTS_READ)
    status = f"the server responded with a status of 401 ({HTTPStatus(401).phrase})"
    docs_page.tolerated_messages.add(f"Failed to load resource: {status}")
    operation = await docs_page.open_operation("patients-get_patient")
    response = await execute(operation)
    assert await response_status(response) == "401"
    await docs_page.page.locator(".btn.authorize").click()
    form = docs_page.page.locator(".auth-container", has_text="X-API-Key")
    await form.locator("input").fill(key)
    await form.locator(".btn.authorize").click()
    await docs_page.page.locator(".btn-done").first.click()
    await operation.get_by_role("button", name="Clear").click()
    shown = await execute(operation)
    assert await response_status(shown) == "200"
    body = json.loads(await shown.locator(".response-col_description code").first.inner_text())
    assert (body["unique_id"], body["patient_last_name"]) == ("pat123", "Doe")


async def test_access_report_fits_a_phone(browser: Browser) -> None:
    """On a phone, the access report shows long ids and names without scrolling sideways, in letters of full size."""
    entry = AccessEntry(
        time=datetime(2026, 1, 2, tzinfo=UTC),
        principal=f"oidc:{'x' * 64}",
        action="read",
        description="Viewed the record",
        reason="y" * 64,
        request_id=None,
    )
    page = await browser.new_page(viewport=PHONE, is_mobile=True)
    await page.set_content(render_report("z" * 64, [entry], retention_days=365, reads_audited=True))
    assert await page.evaluate("innerWidth") == PHONE["width"]
    assert await horizontal_overflow(page) == 0
    await page.close()
