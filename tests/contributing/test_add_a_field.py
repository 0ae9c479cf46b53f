"""CONTRIBUTING.md's steps for a new field, followed in a copy of the repository: nothing else has to be changed."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from app.models.patient import Patient
from tests.db.versions import version_environment
from tests.processes import run_cli
from tests.support import ServiceProcess

ROOT = Path(__file__).parents[2]
BIN_DIRECTORY = Path(sys.executable).parent
FIELD = "patient_preferred_language"
PATIENTS = "/patients/patients/"
TESTS_OF_FIELDS = (
    "tests/fields/test_field_consistency.py::test_every_field_is_in_model_migration_and_schemas[patients]",
    "tests/fields/test_field_consistency.py::test_example_patient_has_every_field",
    "tests/fields/test_field_consistency.py::test_every_field_is_stored_and_returned",
    "tests/fields/test_field_types.py::test_text_up_to_the_published_length_is_accepted",
    "tests/fhir/test_documentation.py::test_the_guide_has_the_mapping",
    "tests/patients/test_contract.py::test_get_response_matches_the_contract",
    "tests/test_openapi.py::test_the_committed_document_is_current",
    "tests/test_openapi_schemas.py::test_contract_requests_are_the_documented_examples",
    "tests/benchmarks",
    "tests/db/test_migrations.py::test_migrations_create_the_schema_of_the_models",
    "tests/hostile/test_erased_statistics.py::test_only_filtered_and_sorted_columns_have_statistics",
)
"""Tests that fail if a place lacks the field. The others hold for any fields."""


def chapter() -> str:
    """Return the chapter of CONTRIBUTING.md with the steps."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    found = re.search(r"^## How to add a field\n(.*?)^## ", text, re.DOTALL | re.MULTILINE)
    assert found is not None
    return found[1]


def blocks(language: str) -> list[str]:
    """Return the chapter's blocks of code in a language."""
    found = re.findall(rf"^ *```{language}\n(.*?)^ *```", chapter(), re.DOTALL | re.MULTILINE)
    return [textwrap.dedent(block) for block in found]


def apply_diff(directory: Path, block: str) -> str:
    """Add the lines with `+` below the line before them, and return the name of the file."""
    header, *hunks = re.split(r"^@@.*\n", block, flags=re.MULTILINE)
    name = header.removeprefix("+++ ").strip()
    text = "\n" + (directory / name).read_text()
    for hunk in hunks:
        context, *added = hunk.splitlines(keepends=True)
        place = f"\n{context[1:]}"
        assert text.count(place) == 1, f"{name} must have this line once:{place}"
        text = text.replace(place, place + "".join(line.removeprefix("+") for line in added))
    (directory / name).write_text(text[1:])
    return name


def run(directory: Path, *command: str) -> None:
    """Run a command in the copy, with the code of the copy."""
    result = subprocess.run(
        command,
        cwd=directory,
        env={**os.environ, **version_environment(directory)},
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, f"{' '.join(command)}\n{result.stdout}"


def copy_repository(directory: Path) -> None:
    """Copy what git has, or would add, of the working tree."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():  # not deleted
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, directory / name, follow_symlinks=False)


def follow_steps(directory: Path) -> list[str]:
    """Make the changes of the chapter's `diff` blocks, run its `make` commands, and return the changed files."""
    changed_files = [apply_diff(directory, block) for block in blocks("diff")]
    commands = [shlex.split(command, comments=True) for command in "".join(blocks("console")).split("$ ")[1:]]
    assert [command[:2] for command in commands] == [["make", "migration"], ["make", "openapi"]]
    for command in commands:
        run(directory, *command, "--assume-old=.venv/dev", f"BIN={BIN_DIRECTORY}")  # everything is installed
    return changed_files


async def check_service(service: ServiceProcess) -> None:
    """Check that the service creates, reads, refuses, changes and restores the field."""
    async with httpx.AsyncClient(base_url=service.url) as client:
        posted = await client.post(PATIENTS, json={"patient_last_name": "Doe", FIELD: " isiZulu "})
        assert (posted.status_code, posted.json()[FIELD]) == (201, "isiZulu")
        path = posted.headers["Location"]
        assert (await client.get(path)).json() == posted.json()
        assert (await client.put(path, json={FIELD: "x" * 101})).status_code == 422
        changed = await client.put(path, json={FIELD: "Sesotho"})
        assert changed.json() == {**posted.json(), FIELD: "Sesotho", "last_updated": changed.json()["last_updated"]}
        newest, oldest = (await client.get(f"{path}history/")).json()
        assert newest["changes"] == {FIELD: {"from": "isiZulu", "to": "Sesotho"}}
        assert oldest["record"][FIELD] == "isiZulu"
        assert (await client.post(f"{path}restore/", json={"version": 1})).json()[FIELD] == "isiZulu"


@pytest.mark.long
async def test_the_steps_are_all_that_a_field_needs(
    tmp_path: Path, serve: Callable[..., ServiceProcess], database_url: str
) -> None:
    """After the steps, the migrated service has the field, and the linters and the tests of fields pass in the copy."""
    if FIELD in Patient.__table__.columns:
        pytest.skip(f"somebody has followed the steps: the model has {FIELD}")
    copy_repository(tmp_path)
    changed_files = follow_steps(tmp_path)
    quick, slow = sorted((tmp_path / "migrations/versions").glob("*_preferred_language*"))
    assert f"ALTER COLUMN {FIELD} SET STATISTICS 0" in quick.read_text()
    assert "VALIDATE CONSTRAINT" in slow.read_text()
    environment = {"DATABASE_URL": database_url, **version_environment(tmp_path)}
    migrated = run_cli("migrate", **environment)
    assert migrated.returncode == 0, migrated.stderr
    await check_service(serve(**environment))
    verified = run_cli("journal", "verify", **environment)
    assert verified.returncode == 0, verified.stdout
    for linter in (["check"], ["format", "--check"]):
        run(tmp_path, f"{BIN_DIRECTORY}/ruff", *linter, "--no-cache", "migrations", *changed_files)
    run(tmp_path, sys.executable, "-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", *TESTS_OF_FIELDS)
