"""docker-compose.yml: the privileges of its containers, and the settings that it and .env.example pass to them."""

import re
from typing import Any

import pytest
import yaml

from app.settings import ENVIRONMENT_PREFIX, Settings
from tests.doc_commands import REPOSITORY_ROOT

COMPOSE_TEXT = (REPOSITORY_ROOT / "docker-compose.yml").read_text()
COMPOSE_SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE_TEXT)["services"]
EXAMPLE_VARIABLES = re.findall(r"^#?([A-Z_]+)=", (REPOSITORY_ROOT / ".env.example").read_text(), re.MULTILINE)
UNUSED_SETTINGS = {"PATIENTS_DATABASE_URL", "PATIENTS_DATABASE_URL_FILE", "PATIENTS_DATA_DIR"}
"""Settings that Docker Compose does not pass on: the URL is written in the file, and there is no embedded database."""
EXPECTED_CAPABILITIES = {"db": {"CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID"}}
"""Capabilities with which the official image's entrypoint gives the volume to the user postgres and becomes it."""


def test_compose_services_are_db_migrate_and_api() -> None:
    """The services are db, migrate and api, so that each of them is checked here."""
    assert COMPOSE_SERVICES.keys() == {"db", "migrate", "api"}


@pytest.mark.parametrize("name", COMPOSE_SERVICES)
def test_a_service_has_no_rights_that_it_does_not_need(name: str) -> None:
    """A service has only the expected capabilities, cannot gain others, and gets nothing of the host."""
    service = COMPOSE_SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert set(service.get("cap_add", ())) == EXPECTED_CAPABILITIES.get(name, set())
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not service.keys() & {"privileged", "devices", "pid", "ipc", "network_mode", "userns_mode", "user"}
    assert service.get("read_only", name == "db"), "only PostgreSQL may write: its socket and its files"


def test_the_service_gets_every_setting() -> None:
    """The service gets each setting by its name, and no setting that does not exist."""
    names = {f"{ENVIRONMENT_PREFIX}{name.upper()}" for name in Settings.model_fields} - UNUSED_SETTINGS
    passed_on = [name for name in COMPOSE_SERVICES["api"]["environment"] if name.startswith(ENVIRONMENT_PREFIX)]
    assert set(passed_on) == names


def test_the_example_lists_the_variables_that_are_used() -> None:
    """.env.example lists each variable that docker-compose.yml reads from .env, once, and no other."""
    environments = [service.get("environment", {}) for service in COMPOSE_SERVICES.values()]
    passed_on = {name for environment in environments for name, value in environment.items() if value is None}
    interpolated = set(re.findall(r"(?<!\$)\$\{([A-Z_]+)", COMPOSE_TEXT))
    assert sorted(EXAMPLE_VARIABLES) == sorted(passed_on | interpolated)


def test_the_example_has_the_defaults_of_the_file() -> None:
    """What .env.example sets without a comment sign is what docker-compose.yml uses without .env."""
    example = dict(re.findall(r"^([A-Z_]+)=(.*)$", (REPOSITORY_ROOT / ".env.example").read_text(), re.MULTILINE))
    defaults = dict(re.findall(r"(?<!\$)\$\{([A-Z_]+):-([^}]*)\}", COMPOSE_TEXT))
    assert example == defaults


def test_only_a_build_changes_the_image() -> None:
    """`docker compose run migrate …` uses the image of the service, without building or pulling another."""
    for name in ("migrate", "api"):
        assert (COMPOSE_SERVICES[name]["image"], COMPOSE_SERVICES[name]["pull_policy"]) == ("patients-api", "never")
    assert [name for name, service in COMPOSE_SERVICES.items() if "build" in service] == ["migrate"]
