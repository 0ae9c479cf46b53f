"""What migrations would do to a database in use: squawk reads their SQL; `make check` runs it.

A new revision obeys all rules, or stands in `ACCEPTED` with the reason why nobody is held up; docs/operations.md shows
how each kind of change is written. What a downgrade does is not looked at: deployments go forwards.
"""

import io
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TextIO

from alembic import command
from alembic.config import Config
from alembic.script import Script, ScriptDirectory

MIGRATIONS_DIRECTORY = Path(__file__).parent
SQUAWK_PATH = Path(sysconfig.get_path("scripts"), "squawk")
OLDEST_POSTGRESQL_VERSION = "17"
"""The oldest version that is supported."""

IGNORED_RULES = {
    "require-statement-timeout": "indexes and batches take their time; what holds up requests ends by lock_timeout",
}
"""Rules that no revision has to obey, and why."""
ACCEPTED_VIOLATIONS: Mapping[str, Mapping[str, str]] = {
    "20261122_01": {
        "prefer-text-field": "Alembic's own table, made by Alembic",
    },
    "20261122_02": {
        "ban-drop-table": "older than the first release: the service is stopped, as CHANGELOG.md says",
    },
    "20261123_01": {
        "prefer-bigint-over-smallint": "an HTTP status has three digits",
    },
    "20261129_03": {
        "renaming-table": "in the same transaction another one takes its name, with all rows",
        "renaming-object": "of what had the names of that table's",
        "require-concurrent-index-deletion": "in the same transaction; of a table that is locked already",
        "ban-drop-constraint": "another primary key takes its place, in the same transaction",
        "ban-alter-identity": "the table of that name has it, in the same transaction, and goes on with its numbers",
        "prefer-bigint-over-smallint": "an HTTP status has three digits",
    },
    "20261125_01": {
        "adding-field-with-default": "older than the first release: rewrites patients, as CHANGELOG.md says",
        "require-concurrent-index-creation": "in the same transaction, when nobody can write anyway",
    },
    "20261129_02": {
        "ban-drop-constraint": "its own, which stands in until the column is NOT NULL",
        "prefer-robust-stmts": "SET NOT NULL can be repeated",
    },
}
"""By revision: the rules that it breaks, and why that is right."""


def alembic_config(*extra_directories: Path, output: TextIO = sys.stdout) -> Config:
    """Alembic's, of our revisions and those of `more` directories; SQL is `written` there."""
    config = Config(output_buffer=output)
    config.set_main_option("script_location", str(MIGRATIONS_DIRECTORY))
    config.set_main_option(
        "version_locations", "\n".join([str(MIGRATIONS_DIRECTORY / "versions"), *map(str, extra_directories)])
    )
    config.set_main_option("path_separator", "newline")
    return config


def script_directory(*extra_directories: Path) -> ScriptDirectory:
    """Our revisions, and those of `more` directories."""
    return ScriptDirectory.from_config(alembic_config(*extra_directories))


def upgrade_sql(script: Script, *extra_directories: Path) -> str:
    """The statements of one revision's upgrade."""
    output = io.StringIO()
    config = alembic_config(*extra_directories, output=output)
    command.upgrade(config, f"{script.down_revision or 'base'}:{script.revision}", sql=True)
    return output.getvalue()


def squawk_report(statements: str, name: str, accepted_rules: Sequence[str]) -> str | None:
    """What squawk has to say of the statements of a revision; nothing where it is content."""
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory, name).with_suffix(".sql")
        file.write_text(statements)
        rules = ",".join([*IGNORED_RULES, *accepted_rules])
        arguments = [str(SQUAWK_PATH), "--pg-version", OLDEST_POSTGRESQL_VERSION, "--exclude", rules, file.name]
        result = subprocess.run(arguments, check=False, capture_output=True, text=True, cwd=directory)  # noqa: S603  # fixed words
    return None if result.returncode == 0 else result.stdout + result.stderr


def main(*extra_directories: Path) -> int:
    """Check all revisions, and those of `more` directories; 0, or 1 where one would hold requests up."""
    status = 0
    for script in script_directory(*extra_directories).walk_revisions():
        path = Path(script.path)
        violations = squawk_report(
            upgrade_sql(script, *extra_directories), path.name, list(ACCEPTED_VIOLATIONS.get(script.revision, ()))
        )
        if violations is not None:
            status = 1
            print(violations)  # noqa: T201  # it talks to its terminal
            print(  # noqa: T201
                f"{path}: a database in use would be held up, or a running version would break. docs/operations.md, "
                '"Writing a migration", shows how to do it in steps.'
            )
    return status


if __name__ == "__main__":
    sys.exit(main())
