"""The README: its commands, run as they are written there, and its length."""

import re
from collections.abc import Callable

from tests.doc_commands import REPOSITORY_ROOT, run_shell_block
from tests.support import ServiceProcess

README = (REPOSITORY_ROOT / "README.md").read_text()
MAX_WORDS = 1200
SHOWN_WORDS = re.compile(r"^HTTP/1\.1 .*|\"[^\"…]+\"", re.MULTILINE)
CHANGING_WORDS = re.compile(r'"(?:pat_\w+|req_\w+|\d{4}-.*|[\w-]{22})"')
"""Ids, timestamps and tags, which differ in every run."""


def test_commands_print_what_the_readme_shows(serve: Callable[..., ServiceProcess], database_url: str) -> None:
    """Each command, in order and on the demo data, prints all texts of the output that the README shows under it."""
    served = serve("--demo", DATABASE_URL=database_url)
    shown = re.findall(r"^```sh\n((?:(?!```).*\n)*)```\n\n```\n((?:(?!```).*\n)*)```", README, re.MULTILINE)
    assert len(shown) == 6
    for block, output in shown[:-1]:  # the last one needs Docker
        printed = run_shell_block(block.replace("http://127.0.0.1:8000", served.url), PATIENTS=served.url)
        texts = [text for text in SHOWN_WORDS.findall(output) if not CHANGING_WORDS.fullmatch(text)]
        assert texts
        assert [text for text in texts if text not in printed.replace("\r", "")] == []


def test_readme_is_short() -> None:
    """The README has at most 1,200 words, so that people read it."""
    assert len(README.split()) <= MAX_WORDS
