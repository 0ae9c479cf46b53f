"""The list of commands: it names what the code of the commands offers, and parsing imports none of that code."""

import subprocess
import sys

from app.cli.commands import ERASABLE_RECORDS, FORMAT_NAMES, FORMER_PROFILE_POLICIES, RESOURCE_NAMES
from app.cli.erase import ERASABLE_SERVICES
from app.records.service import FormerProfilePolicy
from app.transfer.exporting import FORMATS
from app.transfer.resources import RESOURCES

LIST_MODULES = "import sys; from app.cli import main\ntry: main()\nfinally: print(*sys.modules, file=sys.stderr)"


def test_arguments_name_what_there_is() -> None:
    """The names that arguments accept, which are listed apart from the code, are those of the code."""
    assert tuple(RESOURCES) == RESOURCE_NAMES
    assert tuple(FORMATS) == FORMAT_NAMES
    assert tuple(ERASABLE_SERVICES) == ERASABLE_RECORDS
    assert tuple(policy.value for policy in FormerProfilePolicy) == FORMER_PROFILE_POLICIES


def imported_modules(*arguments: str) -> set[str]:
    """Return the modules that a process has imported when the command with these arguments has ended."""
    process = subprocess.run(
        [sys.executable, "-c", LIST_MODULES, *arguments], check=False, capture_output=True, text=True, timeout=30
    )
    return set(process.stderr.splitlines()[-1].split())


def test_help_imports_none_of_the_code() -> None:
    """`--help` and `completion`, which adds the arguments of all commands, import neither libraries nor the service."""
    for arguments in (["--help"], ["export", "--help"], ["completion", "bash"]):
        modules = imported_modules(*arguments)
        assert not {
            name for name in modules if name.partition(".")[0] in {"asyncio", "asyncpg", "pydantic", "sqlalchemy"}
        }
        assert {name for name in modules if name.startswith("app.")} <= {
            *("app.auth", "app.auth.scopes", "app.cli", "app.cli.commands", "app.cli.completion"),
            *("app.identifiers", "app.suggestions"),
        }
