"""Later versions of the service, derived from this one by adding a field."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def version_with_column(directory: Path) -> Path:
    """Return a version with an indexed nickname column that clients do not see yet, and its generated migrations."""
    version = directory / "with-column"
    for part in ("app", "migrations"):  # with their bytecode, except for what is being written
        shutil.copytree(ROOT / part, version / part, ignore=shutil.ignore_patterns("*.pyc.*"))
    shutil.copy(ROOT / "alembic.ini", version)
    model = version / "app/models/patient.py"
    _insert_before(
        model, before="    patient_title: ", line="    patient_nickname: Mapped[str | None] = text_column(100)"
    )
    _insert_before(model, before='for _name in ("date_created",', line="Index(None, _PATIENT_COLUMNS.patient_nickname)")
    written = subprocess.run(
        [sys.executable, "-m", "migrations", "patient nickname"],
        env={**os.environ, **version_environment(version)},
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert written.returncode == 0, written.stderr
    return version


def version_with_field(earlier: Path) -> Path:
    """Return the version after it, in which clients read and write the nickname."""
    version = earlier.with_name("with-field")
    shutil.copytree(earlier, version)
    schemas = version / "app/patients/schemas.py"
    field = "    patient_nickname: Annotated[str | None, Text(columns.patient_nickname)] = None"
    _insert_before(schemas, before="    patient_title: str | None", line="    patient_nickname: str | None")
    _insert_before(schemas, before="    patient_title: Annotated[", line=field)
    return version


def version_environment(version: Path) -> dict[str, str]:
    """Return environment variables that make a process run this version, wherever it is started."""
    return {"PYTHONPATH": str(version), "PYTHONSAFEPATH": "1"}


def _insert_before(file: Path, *, before: str, line: str) -> None:
    text = file.read_text()
    assert text.count(before) == 1
    file.write_text(text.replace(before, f"{line}\n{before}"))
