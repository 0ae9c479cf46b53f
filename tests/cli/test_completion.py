"""`patients-api completion`: the shells accept the scripts, and complete commands, options, values and files."""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from app.arguments.commands import SHELLS
from tests.doc_commands import REPOSITORY_ROOT
from tests.processes import run_cli

BASH_DRIVER = """
source "$1"; shift
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMP_LINE="$*" COMP_POINT=${#COMP_LINE}
_shtab_patients_api patients-api "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""
FISH_DRIVER = 'source $argv[1]; complete --do-complete "$argv[2..]"'
ZSH_DRIVER = """
fpath=("${1:h}" $fpath)
autoload -U compinit && compinit -u -D && autoload +X _patients-api && print -r -- $_comps[patients-api]
"""
COMPLETIONS = [
    (("",), {"serve", "migrate", "access-report", "completion"}),
    (("keys", ""), {"create", "list", "revoke"}),
    (("keys", "create", "--s"), {"--scope"}),
    (("keys", "create", "--scope", "a"), {"audit:read", "admin"}),
    (("erase", ""), {"patient", "profile"}),
    (("import", "pypro"), {"pyproject.toml"}),
]


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return the file with the script for each shell, under the name by which zsh finds it."""
    paths = {}
    for shell in SHELLS:
        paths[shell] = tmp_path_factory.mktemp(shell) / "_patients-api"
        result = run_cli("completion", shell)
        assert (result.returncode, result.stderr) == (0, "")
        paths[shell].write_text(result.stdout)
    return paths


def run_shell(shell: str, *arguments: str) -> list[str]:
    """Run a shell in the repository and return the lines that it prints; skip the test if it is not installed."""
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    result = subprocess.run(
        [shell, *arguments], cwd=REPOSITORY_ROOT, check=False, capture_output=True, text=True, timeout=30
    )
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout.splitlines()


@pytest.mark.parametrize(("words", "expected"), COMPLETIONS, ids=[" ".join(words) for words, _ in COMPLETIONS])
def test_bash_completes(words: Sequence[str], expected: set[str], scripts: dict[str, Path]) -> None:
    """In bash, each word is completed to the expected ones."""
    lines = run_shell("bash", "--norc", "-c", BASH_DRIVER, "bash", str(scripts["bash"]), "patients-api", *words)
    assert expected <= set(lines)
    assert words == ("",) or expected == set(lines)


@pytest.mark.parametrize(("words", "expected"), COMPLETIONS, ids=[" ".join(words) for words, _ in COMPLETIONS])
def test_fish_completes(words: Sequence[str], expected: set[str], scripts: dict[str, Path]) -> None:
    """In fish, each word is completed to the expected ones."""
    lines = run_shell("fish", "--no-config", "-c", FISH_DRIVER, str(scripts["fish"]), "patients-api", *words)
    assert expected <= {line.partition("\t")[0] for line in lines}


def test_zsh_finds_the_function(scripts: dict[str, Path]) -> None:
    """Zsh reads the script without an error, and finds it in a directory of `fpath`."""
    assert run_shell("zsh", "-f", "-c", ZSH_DRIVER, "zsh", str(scripts["zsh"])) == ["_patients-api"]
