"""The list of commands: it names what the code of the commands offers, and parsing imports none of that code."""

import os
import subprocess
import sys

import pytest

from app.arguments.commands import ERASABLE_RECORDS, FORMAT_NAMES, FORMER_PROFILE_POLICIES, RESOURCE_NAMES
from app.cli.erase import ERASABLE_SERVICES
from app.records.service import FormerProfilePolicy
from app.transfer.exporting import FORMATS
from app.transfer.resources import RESOURCES

UNUSED_MODULES = (
    *("alembic", "cryptography", "fastapi", "httpx", "jwt", "opentelemetry", "rapidfuzz", "rich.progress", "stdnum"),
    *("structlog", "app.matching.comparison"),
)
"""Modules that take long to import, and that commands without a server, a migration and a progress bar do not use."""
RUN_COMMAND = """
from contextlib import suppress
from app.cli import main
with suppress(SystemExit):
    main()
"""


def test_arguments_name_what_there_is() -> None:
    """The names that arguments accept, which are listed apart from the code, are those of the code."""
    assert tuple(RESOURCES) == RESOURCE_NAMES
    assert tuple(FORMATS) == FORMAT_NAMES
    assert tuple(ERASABLE_SERVICES) == ERASABLE_RECORDS
    assert tuple(policy.value for policy in FormerProfilePolicy) == FORMER_PROFILE_POLICIES


def imported_modules(code: str, *arguments: str, **environment: str) -> set[str]:
    """Return the modules that a process has imported after it has run this code."""
    process = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules, file=sys.stderr)", *arguments],
        env={**os.environ, **environment},
        check=True,
        capture_output=True,
        text=True,
        timeout=30,
    )
    return set(process.stderr.splitlines()[-1].split())


def test_help_imports_none_of_the_code() -> None:
    """`--help` and `completion`, which adds the arguments of all commands, import neither libraries nor the service."""
    for arguments in (["export", "--help"], ["completion", "bash"]):
        modules = imported_modules(RUN_COMMAND, *arguments)
        libraries = {"asyncio", "asyncpg", "pydantic", "sqlalchemy"}
        assert not {name for name in modules if name.partition(".")[0] in libraries}
        assert {name for name in modules if name.startswith("app.")} <= {
            *(
                "app.auth",
                "app.auth.scopes",
                "app.arguments",
                "app.arguments.commands",
                "app.cli",
                "app.cli.completion",
            ),
            *("app.identifiers", "app.suggestions"),
            *("app.arguments.types",),
        }


@pytest.mark.parametrize(
    "arguments",
    [("keys", "list"), ("export",), ("check",), ("import", "docs/samples/hospitals.csv", "--dry-run")],
    ids=" ".join,
)
def test_commands_import_only_what_they_use(arguments: tuple[str, ...], database_url: str) -> None:
    """A command does not import libraries of the server, of migrations, of telemetry or of matching."""
    modules = imported_modules(RUN_COMMAND, *arguments, DATABASE_URL=database_url)
    used = {"cryptography"} if arguments == ("export",) else set()  # for the cursor of the change feed
    assert not modules.intersection(UNUSED_MODULES) - used


def test_a_server_imports_only_what_it_uses() -> None:
    """A server process imports neither Alembic nor OpenTelemetry's SDK, nor the libraries of an identity provider."""
    modules = imported_modules("import app.cli.serve, app.server.protocol, app.server.worker")
    assert not modules & {"alembic", "httpx", "jwt", "opentelemetry.sdk", "rich.progress", "sqlalchemy.ext.asyncio"}
