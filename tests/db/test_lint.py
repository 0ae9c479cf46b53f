"""`make check` reports what would make a migration unsafe on a database in use; what `make migration` writes passes."""

import subprocess
import sys
from pathlib import Path

import pytest

from migrations import lint
from tests.db.versions import version_environment, version_with_column

REVISION_TEMPLATE = """
import sqlalchemy as sa
from alembic import op

revision = "{revision}"
down_revision = "{head}"


def upgrade():
    {upgrade}
"""
HEAD_REVISION = lint.script_directory().get_current_head()
UNSAFE_UPGRADES = {
    "a required column": (
        'op.add_column("patients", sa.Column("x", sa.Text(), nullable=False))',
        "Make the field nullable",
    ),
    "a default that differs for each row": (
        'op.add_column("patients", sa.Column("x", sa.DateTime(), server_default=sa.func.clock_timestamp()))',
        "Add the column as nullable",
    ),
    "an index built under a lock": ('op.create_index("ix_x", "patients", ["patient_race"])', "Use `concurrently`"),
    "a foreign key that is validated at once": (
        'op.create_foreign_key("fk_x", "patients", "hospitals", ["patient_race"], ["unique_id"])',
        "Add `NOT VALID`",
    ),
    "a check that is validated at once": (
        'op.create_check_constraint("ck_x", "patients", "version > 0")',
        "Use `NOT VALID`",
    ),
    "a column that a running version reads": ('op.drop_column("patients", "patient_race")', "may break existing"),
    "a column renamed": (
        'op.alter_column("patients", "patient_race", new_column_name="race")',
        "may break existing",
    ),
    "a table that is rewritten": ('op.alter_column("patients", "version", type_=sa.Numeric())', "rewritten"),
    "steps that remain applied if a later one fails": (
        """op.add_column("patients", sa.Column("x", sa.Text()))
    with op.get_context().autocommit_block():
        op.create_index("ix_x", "patients", ["x"], postgresql_concurrently=True)""",
        "can't be rerun",
    ),
}


def write_revision(directory: Path, upgrade: str) -> Path:
    """Write a revision with this `upgrade` that follows the current head, and return its directory."""
    text = REVISION_TEMPLATE.format(revision="29991231_01", head=HEAD_REVISION, upgrade=upgrade)
    (directory / "29991231_01_later.py").write_text(text)
    return directory


def test_all_revisions_pass(capsys: pytest.CaptureFixture[str]) -> None:
    """All existing revisions pass, so a violation in a new one is reported."""
    assert lint.main() == 0, capsys.readouterr().out


@pytest.mark.parametrize("kind", UNSAFE_UPGRADES)
def test_blocking_migrations_are_found_with_their_remedy(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each kind of unsafe revision is reported with its file, its problem and the remedy."""
    upgrade, remedy = UNSAFE_UPGRADES[kind]
    assert lint.main(write_revision(tmp_path, upgrade)) == 1
    output = capsys.readouterr().out
    assert remedy in output
    assert "29991231_01_later.py" in output
    assert "docs/writing-migrations.md" in output


def test_a_harmless_revision_passes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Adding a nullable column is not reported."""
    assert lint.main(write_revision(tmp_path, 'op.add_column("patients", sa.Column("x", sa.Text()))')) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("revision", lint.ACCEPTED_VIOLATIONS)
def test_every_accepted_violation_still_exists(revision: str) -> None:
    """Every accepted violation is really a violation in its revision."""
    directory = lint.script_directory()
    script = directory.get_revision(revision)
    for rule in lint.ACCEPTED_VIOLATIONS[revision]:
        others = [other for other in lint.ACCEPTED_VIOLATIONS[revision] if other != rule]
        complaint = lint.squawk_report(lint.upgrade_sql(script, directory), "revision", others)
        assert complaint is not None
        assert rule in complaint


def test_generated_migrations_pass_the_linter(tmp_path: Path) -> None:
    """A new column with a length check and an index becomes two revisions: the quick steps, and the slow ones."""
    version = version_with_column(tmp_path)
    quick, slow = sorted((version / "migrations/versions").glob("*nickname*"))
    assert "postgresql_not_valid=True" in quick.read_text()
    assert "ALTER COLUMN patient_nickname SET STATISTICS 0" in quick.read_text()
    assert "create_index" not in quick.read_text()
    for step in ("autocommit_block", "postgresql_concurrently=True", "VALIDATE CONSTRAINT"):
        assert step in slow.read_text()
    checked = subprocess.run(
        [sys.executable, "-m", "migrations.lint"],
        env=version_environment(version),
        check=False,
        capture_output=True,
        text=True,
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")
