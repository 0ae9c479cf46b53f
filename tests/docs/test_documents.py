"""The README and the guide to the API: their commands, run as they are written there, and the README's length."""

import re
from collections.abc import Callable

import pytest

from tests.doc_commands import REPOSITORY_ROOT, run_shell_block
from tests.support import ServiceProcess

MAX_WORDS = 1200
SKIPPED_COMMANDS = re.compile("git clone|docker compose|npm ")
"""Commands for which the tests have no network or no Docker; tests/clients runs the same npm packages."""
SHOWN_WORDS = re.compile(r"^HTTP/1\.1 .*|\"[^\"…]+\"", re.MULTILINE)
CHANGING_WORDS = re.compile(r'"(?:pat_\w+|(?:urn:request:)?req_\w+|\d{4}-.*|[\w-]{22})"')
"""Ids, timestamps and tags, which differ in every run."""


@pytest.mark.parametrize(("document", "block_count"), [("README.md", 5), ("docs/api.md", 12), ("docs/changes.md", 2)])
def test_commands_print_what_the_document_shows(
    document: str, block_count: int, serve: Callable[..., ServiceProcess], database_url: str
) -> None:
    """Each command, in order and on the demo data, prints all texts of the output that is shown under it."""
    served = serve("--demo", DATABASE_URL=database_url)
    text = (REPOSITORY_ROOT / document).read_text()
    shown = re.findall(r"^```sh\n((?:(?!```).*\n)*)```\n(?:\n```(?:\w*)\n((?:(?!```).*\n)*)```)?", text, re.MULTILINE)
    blocks = [(block, output) for block, output in shown if not SKIPPED_COMMANDS.search(block)]
    assert len(blocks) == block_count
    for block, output in blocks:
        printed = run_shell_block(block.replace("http://127.0.0.1:8000", served.url), PATIENTS=served.url)
        texts = [text for text in SHOWN_WORDS.findall(output) if not CHANGING_WORDS.fullmatch(text)]
        assert [text for text in texts if text not in printed.replace("\r", "")] == []


def test_readme_is_short() -> None:
    """The README has at most 1,200 words, so that people read it."""
    assert len((REPOSITORY_ROOT / "README.md").read_text().split()) <= MAX_WORDS
