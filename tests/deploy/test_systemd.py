"""deploy/systemd: systemd accepts the units, and their commands and settings exist."""

import argparse
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from app.arguments.commands import COMMANDS
from app.cli.serve import SHUTDOWN_GRACE_SECONDS
from app.settings import Settings
from tests.doc_commands import REPOSITORY_ROOT

DIRECTORY = REPOSITORY_ROOT / "deploy" / "systemd"
SERVICES = sorted(path.name for path in DIRECTORY.glob("*.service"))
PROGRAM = "/opt/patients-api/bin/patients-api"
MAX_EXPOSURE = 15
"""Tenths of the exposure that `systemd-analyze security` calculates. It calls up to 20 "ok"."""

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")


def values_of(service: str, option: str) -> list[str]:
    """Return the values of an option of a unit, in order."""
    return re.findall(rf"^{option}=(.*)$", (DIRECTORY / service).read_text(), re.MULTILINE)


@needs_systemd
def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    """`systemd-analyze verify` finds nothing in the units, with a program that exists on this machine."""
    for path in DIRECTORY.iterdir():
        program = Path(sys.executable).with_name("patients-api")
        (tmp_path / path.name).write_text(path.read_text().replace(PROGRAM, str(program)))
    units = [str(path) for path in tmp_path.iterdir()]
    result = subprocess.run(["systemd-analyze", "verify", "--man=no", *units], check=False, capture_output=True)
    assert (result.returncode, result.stderr) == (0, b"")


@needs_systemd
@pytest.mark.parametrize("service", SERVICES)
def test_the_services_are_confined(service: str) -> None:
    """The exposure that systemd calculates is low."""
    command = ["systemd-analyze", "security", "--offline=true", f"--threshold={MAX_EXPOSURE}", str(DIRECTORY / service)]
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


def test_there_are_two_services() -> None:
    """The units are the service and what runs each night, each of which is checked here."""
    assert SERVICES == ["patients-api-nightly.service", "patients-api.service"]


@pytest.mark.parametrize("service", SERVICES)
def test_commands_and_settings_exist(service: str) -> None:
    """The commands and options of the units exist, and they set variables that exist."""
    for command_line in values_of(service, "ExecStart"):
        program, command, *options = shlex.split(command_line)
        assert program == PROGRAM
        parser = argparse.ArgumentParser()
        COMMANDS[command].add_arguments(parser)
        parser.parse_args(options)
    names = {assignment.partition("=")[0] for line in values_of(service, "Environment") for assignment in line.split()}
    settings = {f"PATIENTS_{name.upper()}" for name in Settings.model_fields} | {"DATABASE_URL_FILE"}
    assert names - {"PYTHONDONTWRITEBYTECODE"} <= settings
    assert "DATABASE_URL_FILE" in names


def test_what_runs_each_night_is_what_the_guide_says() -> None:
    """The nightly unit runs the commands that docs/operations.md runs each night."""
    (line,) = re.findall(r"^- Each night, (.*)$", (REPOSITORY_ROOT / "docs/operations.md").read_text(), re.MULTILINE)
    commands = [
        command.removeprefix(f"{PROGRAM} ") for command in values_of("patients-api-nightly.service", "ExecStart")
    ]
    assert commands == re.findall(r"`patients-api ([a-z ]+)`", line)


def test_the_service_has_the_time_to_drain() -> None:
    """Only the supervisor gets SIGTERM, and there is time for the 8 seconds of draining that are allowed."""
    assert values_of("patients-api.service", "KillMode") == ["mixed"]
    (seconds,) = map(int, values_of("patients-api.service", "TimeoutStopSec"))
    assert seconds >= 8 + SHUTDOWN_GRACE_SECONDS
