"""Privileges that docker-compose.yml gives to containers."""

from pathlib import Path
from typing import Any

import pytest
import yaml

COMPOSE_SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(
    (Path(__file__).parents[1] / "docker-compose.yml").read_text()
)["services"]
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
