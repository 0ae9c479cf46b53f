"""The command line itself: help, versions, mistyped commands and options, and what `keys` and `erase` check first."""

import asyncio
import importlib.metadata
import json
import os
import pty
import subprocess
import sys

import asyncpg
import pytest

from tests.fork_server import start_command
from tests.processes import run_cli


def test_version_is_printed() -> None:
    """`--version` prints the name and the version of the package."""
    result = run_cli("--version")
    version = importlib.metadata.version("patients-api")
    assert (result.returncode, result.stdout, result.stderr) == (0, f"patients-api {version}\n", "")


def test_a_bare_call_prints_the_help() -> None:
    """Without a command, the help is printed on stdout, and that is no error."""
    result = run_cli()
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == run_cli("--help").stdout
    assert "serve" in result.stdout


@pytest.mark.parametrize(
    ("command", "suggestion"),
    [("migrat", "did you mean migrate?"), ("key", "did you mean keys?"), ("xyz", "choose from serve, migrate, check")],
)
def test_an_unknown_command_names_the_nearest(command: str, suggestion: str) -> None:
    """A mistyped command is exit status 2 and names the nearest command, or all commands if none is near."""
    result = run_cli(command)
    assert (result.returncode, result.stdout) == (2, "")
    assert f"there is no command {command}; {suggestion}" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("serve", "--prot", "80"), "there is no option --prot; did you mean --port?"),
        (("serve", "--workrs=2"), "there is no option --workrs; did you mean --workers?"),
        (("keys", "list", "--jsn"), "there is no option --jsn; did you mean --json?"),
        (("keys", "list", "-v"), "there is no option -v; `patients-api keys list --help` lists all options"),
        (("audit",), "the following arguments are required: {prune}"),
    ],
    ids=" ".join,
)
def test_an_unknown_option_names_the_nearest(arguments: tuple[str, ...], expected: str) -> None:
    """A mistyped option is exit status 2 and names the nearest option of the command; a missing argument is named."""
    result = run_cli(*arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert expected in result.stderr.splitlines()[-1]


KEYS_CREATE = ("keys", "create", "--name", "a", "--scope", "admin")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("serve", "--port", "abc"), "--port: must be a number from 1 to 65535"),
        (("serve", "--port", "65536"), "--port: must be a number from 1 to 65535"),
        (("health", "--url", "localhost:8000"), "--url: must be the http:// URL of a service"),
        (("serve", "--workers", "many"), "--workers: must be a number, 1 or more"),
        (("serve", "--host", "300.1.1.1"), "--host: must be an IP address of this machine, such as 127.0.0.1"),
        (("serve", "--host", ""), "--host: must be an IP address of this machine, such as 127.0.0.1"),
        ((*KEYS_CREATE, "--expires", "tomorrow"), "--expires: must be a date as YYYY-MM-DD, such as 2030-12-31"),
        ((*KEYS_CREATE, "--expires", "2020-01-01"), "--expires: must not be in the past, or the key would never work"),
        ((*KEYS_CREATE, "--expires", "2030-02-30"), "--expires: must be a date as YYYY-MM-DD, such as 2030-12-31"),
    ],
    ids=" ".join,
)
def test_invalid_options_say_what_is_allowed(arguments: tuple[str, ...], expected: str) -> None:
    """An invalid value of an option is exit status 2 and a line that says which values are valid."""
    result = run_cli(*arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert expected in result.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("no-such-host.invalid", "There is no host no-such-host.invalid: set --host to an IP address of this machine"),
        ("192.0.2.1", "192.0.2.1 is not an address of this machine: set --host to one"),
    ],
)
def test_hosts_that_cannot_be_listened_on_are_named(host: str, expected: str) -> None:
    """A host that does not exist or is another machine is not reported as a problem of the port."""
    result = run_cli("serve", "--host", host, DATABASE_URL="postgresql://127.0.0.1:1/clinic")
    assert result.returncode == 1
    assert result.stderr.startswith(expected)
    assert "port" not in result.stderr


@pytest.mark.parametrize(
    ("error", "environment", "expected"),
    [
        ("KeyError('Nandi Dube')", {}, "This is a defect of patients-api: KeyError in app/cli/__init__.py:"),
        ("OSError(28, 'No space left on device')", {}, "The command failed: No space left on device."),
        ("KeyError('Nandi Dube')", {"PYTHONDEVMODE": "1"}, "Traceback (most recent call last):"),
    ],
    ids=["defect", "system", "development"],
)
def test_no_command_prints_a_traceback(error: str, environment: dict[str, str], expected: str) -> None:
    """An unexpected error is one line without its message, which may quote data, except in Python's dev mode."""
    code = f"""
import sys, app.cli, app.cli.openapi
def run(arguments): raise {error}
app.cli.openapi.run = run
sys.exit(app.cli.main())
"""
    process = subprocess.run(
        [sys.executable, "-c", code, "openapi"],
        env={**os.environ, **environment},
        check=False,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (process.returncode, process.stdout) == (1, "")
    assert process.stderr.startswith(expected)
    if not environment:
        assert process.stderr.count("\n") == 1
        assert "Nandi" not in process.stderr


async def test_a_key_is_restricted_only_to_hospitals_that_exist(
    database_url: str, connection: asyncpg.Connection
) -> None:
    """A mistyped hospital is named with the nearest one, and no key is created."""
    await connection.execute("INSERT INTO hospitals (unique_id, hospital_name) VALUES ('hos123', 'A'), ('hos456', 'B')")
    for hospital, suggestion in (
        ("hos12", "did you mean hos123?"),
        ("nope", "`patients-api export --resource hospitals` lists all"),
    ):
        options = ("--hospital", "hos456", "--hospital", hospital)
        result = await asyncio.to_thread(run_cli, *KEYS_CREATE, *options, DATABASE_URL=database_url)
        expected = f"There is no hospital {hospital}, so no key was created; {suggestion}\n"
        assert (result.returncode, result.stdout, result.stderr) == (1, "", expected)
    assert await connection.fetchval("SELECT count(*) FROM api_keys") == 0


async def test_keys_are_listed_as_json(database_url: str, connection: asyncpg.Connection) -> None:
    """`keys list --json` prints all keys with all columns but the digest, and an empty array without keys."""
    assert json.loads(run_cli("keys", "list", "--json", DATABASE_URL=database_url).stdout) == []
    await asyncio.to_thread(run_cli, *KEYS_CREATE, "--expires", "2099-01-31", DATABASE_URL=database_url)
    created = await connection.fetchval("SELECT created FROM api_keys")
    result = await asyncio.to_thread(run_cli, "keys", "list", "--json", DATABASE_URL=database_url)
    assert (result.returncode, result.stderr) == (0, "")
    assert json.loads(result.stdout) == [
        {
            "name": "a",
            "scopes": ["admin"],
            "hospitals": None,
            "created": created.isoformat(),
            "expires": "2099-01-31T23:59:59.999999+00:00",
            "revoked": None,
            "last_used": None,
        }
    ]


@pytest.mark.parametrize("what", ["patient", "profile"])
def test_erase_looks_before_it_asks(database_url: str, what: str) -> None:
    """An id that never existed is reported at once on a terminal, without a question."""
    terminal, end = pty.openpty()
    try:
        arguments = ("erase", what, "nope", "--reason", "asked")
        pipe = subprocess.PIPE
        os.write(terminal, b"nope\n")  # an answer, in case there is a question
        environment = {"DATABASE_URL": database_url}
        with start_command(*arguments, env=environment, stdin=end, stdout=pipe, stderr=pipe, text=True) as process:
            out, err = process.communicate(timeout=30)
    finally:
        os.close(terminal)
        os.close(end)
    assert (process.returncode, out, err) == (1, "", f"There is no {what} with this unique_id.\n")
