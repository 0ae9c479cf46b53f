"""Checks what migrations would do to a database in use: squawk reads their SQL, and `make check` runs it.

A new revision obeys all rules, or is in `ACCEPTED_VIOLATIONS` with the reason why it blocks no request;
docs/writing-migrations.md shows how to write each kind of change. Downgrades are not checked, because deployments only
go forward.
"""

import io
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TextIO

from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationStep
from alembic.script import Script, ScriptDirectory

MIGRATIONS_DIRECTORY = Path(__file__).parent
SQUAWK_PATH = Path(sysconfig.get_path("scripts"), "squawk")
OLDEST_POSTGRESQL_VERSION = "17"
"""The oldest supported version."""

IGNORED_RULES = {
    "require-statement-timeout": "indexes and batches are slow; lock_timeout ends what would block requests",
}
"""Rules that no revision has to obey, with the reason."""
ACCEPTED_VIOLATIONS: Mapping[str, Mapping[str, str]] = {
    "20261122_01": {
        "prefer-text-field": "Alembic's own table, created by Alembic",
    },
    "20261122_02": {
        "ban-drop-table": "older than the first release: the service is stopped, as CHANGELOG.md says",
    },
    "20261123_01": {
        "prefer-bigint-over-smallint": "an HTTP status has three digits",
    },
    "20261129_03": {
        "renaming-table": "another table takes the name in the same transaction, with all rows",
        "renaming-object": "objects that had the names of that table's objects",
        "require-concurrent-index-deletion": "in the same transaction, on a table that is already locked",
        "ban-drop-constraint": "another primary key replaces it in the same transaction",
        "ban-alter-identity": "the new table of that name continues the numbers in the same transaction",
        "prefer-bigint-over-smallint": "an HTTP status has three digits",
    },
    "20261125_01": {
        "adding-field-with-default": "older than the first release: rewrites patients, as CHANGELOG.md says",
        "require-concurrent-index-creation": "in the same transaction, while writes are blocked anyway",
    },
    "20261129_02": {
        "ban-drop-constraint": "a temporary one of its own, until the column is NOT NULL",
        "prefer-robust-stmts": "SET NOT NULL can be repeated",
    },
    "20261130_01": {
        "adding-field-with-default": "older than the first release: rewrites profiles, as CHANGELOG.md says",
    },
    "20261130_12": {
        "adding-field-with-default": "older than the first release: rewrites profiles, as CHANGELOG.md says",
    },
    "20261130_50": {
        "ban-drop-constraint": "checks that allow more replace them in the same transaction",
    },
    "20261130_51": {
        "prefer-robust-stmts": "a validation can be repeated",
    },
}
"""By revision: the rules that it violates, and why that is acceptable."""


def alembic_config(*extra_directories: Path, output: TextIO = sys.stdout) -> Config:
    """Return the Alembic configuration for these revisions and those in further directories; SQL goes to `output`."""
    config = Config(output_buffer=output)
    config.set_main_option("script_location", str(MIGRATIONS_DIRECTORY))
    config.set_main_option(
        "version_locations", "\n".join([str(MIGRATIONS_DIRECTORY / "versions"), *map(str, extra_directories)])
    )
    config.set_main_option("path_separator", "newline")
    return config


def script_directory(*extra_directories: Path) -> ScriptDirectory:
    """Return these revisions and those in further directories."""
    return ScriptDirectory.from_config(alembic_config(*extra_directories))


def upgrade_sql(script: Script, directory: ScriptDirectory) -> str:
    """Return the statements of the upgrade of one of the directory's revisions.

    Alembic's own command would load all revisions anew for each.
    """
    output = io.StringIO()
    with EnvironmentContext(
        alembic_config(output=output),
        directory,
        fn=lambda _, __: [MigrationStep.upgrade_from_script(directory.revision_map, script)],
        as_sql=True,
        starting_rev=script.down_revision or "base",
        destination_rev=script.revision,
    ):
        directory.run_env()
    return output.getvalue()


def squawk_report(statements: str, name: str, accepted_rules: Sequence[str]) -> str | None:
    """Return squawk's report on the statements of a revision, or None if it has none."""
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory, name).with_suffix(".sql")
        file.write_text(statements)
        rules = ",".join([*IGNORED_RULES, *accepted_rules])
        arguments = [str(SQUAWK_PATH), "--pg-version", OLDEST_POSTGRESQL_VERSION, "--exclude", rules, file.name]
        result = subprocess.run(arguments, check=False, capture_output=True, text=True, cwd=directory)  # noqa: S603  # fixed arguments
    return None if result.returncode == 0 else result.stdout + result.stderr


def main(*extra_directories: Path) -> int:
    """Check all revisions and those in further directories, and return 0, or 1 if one would block requests."""
    status = 0
    directory = script_directory(*extra_directories)
    for script in directory.walk_revisions():
        path = Path(script.path)
        violations = squawk_report(
            upgrade_sql(script, directory), path.name, list(ACCEPTED_VIOLATIONS.get(script.revision, ()))
        )
        if violations is not None:
            status = 1
            print(violations)  # noqa: T201  # a command's output
            print(  # noqa: T201
                f"{path}: this would block a database in use or break a running version. "
                "docs/writing-migrations.md shows how to split it into steps."
            )
    return status


if __name__ == "__main__":
    sys.exit(main())
