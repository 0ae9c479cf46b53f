"""Helpers that tests share, besides fixtures."""

import json
import secrets
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from app.db.pool import DriverConnection

EXAMPLE_PATIENT: dict[str, Any] = {
    "patient_profile": {
        "unique_id": "prof123",
        "email": "user@example.com",
        "first_name": "John",
        "last_name": "Doe",
    },
    "patient_email_address": "patient@example.com",
    "patient_mobile_number": "+123456789",
    "patient_title": "Mr.",
    "patient_first_name": "John",
    "patient_initials": "J",
    "patient_last_name": "Doe",
    "patient_date_of_birth": "1980-01-01",
    "patient_gender": "Male",
    "patient_race": "Caucasian",
    "patient_physical_address": "123 Street Name",
    "patient_address_line_1": "Apt 101",
    "patient_town": "Sample Town",
    "patient_region": "Sample Region",
    "patient_province": "Sample Province",
    "patient_country": "Sample Country",
    "patient_postal_code": "12345",
    "patient_latitude": "12.345678",
    "patient_longitude": "-12.345678",
    "patient_access_medical_care": "Public",
    "hospital_ids": ["hos123", "hos456"],
    "doctor_ids": ["doc123"],
}
"""The contract's POST example, word for word."""

GET_EXAMPLE: dict[str, Any] = {
    "unique_id": "pat123",
    **{name: value for name, value in EXAMPLE_PATIENT.items() if not name.endswith("_ids")},
    "patient_hospital": [{"unique_id": "hos123", "hospital_name": "General Hospital"}],
    "patient_doctor": [{"unique_id": "doc123", "doctor_first_name": "Dr. Smith"}],
    "date_created": "2023-01-01T12:00:00Z",
    "last_updated": "2023-01-01T12:00:00Z",
}
"""The contract's GET example, word for word, which is also the only element of its list."""

PUT_EXAMPLE = {
    "patient_mobile_number": "+987654321",
    "patient_race": "African",
    "patient_province": "New Province",
    "hospital_ids": ["hos789"],
    "doctor_ids": ["doc456"],
}
"""The contract's PUT example, word for word."""

PUT_RESPONSE = GET_EXAMPLE | {
    "patient_mobile_number": "+987654321",
    "patient_race": "African",
    "patient_province": "New Province",
    "patient_hospital": [{"unique_id": "hos789", "hospital_name": "New Hospital"}],
    "patient_doctor": [{"unique_id": "doc456", "doctor_first_name": "Dr. Adams"}],
}
"""The response to the contract's PUT example, except for `last_updated`."""


class ResourceExample(NamedTuple):
    """A resource with an example record and a change of it."""

    path: str
    name: str
    minimal_body: dict[str, Any]
    """The smallest body that creates a record."""
    update_body: dict[str, Any]

    @property
    def table(self) -> str:
        return f"{self.name}s"

    @property
    def create_body(self) -> dict[str, Any]:
        """The body that creates the record `own`."""
        return {"unique_id": "own", **self.minimal_body}

    @property
    def record_path(self) -> str:
        """The path of the record `own`."""
        return f"{self.path}own/"


RESOURCE_EXAMPLES = (
    ResourceExample("/patients/patients/", "patient", {"patient_last_name": "Doe"}, {"patient_last_name": "Roe"}),
    ResourceExample("/profiles/profiles/", "profile", {"first_name": "John"}, {"first_name": "Jane"}),
    ResourceExample("/hospitals/hospitals/", "hospital", {"hospital_name": "Old"}, {"hospital_name": "New"}),
    ResourceExample("/doctors/doctors/", "doctor", {"doctor_first_name": "Ann"}, {"doctor_first_name": "Eve"}),
)


async def dump_tables(connection: asyncpg.Connection) -> dict[str, list[str]]:
    """Return all rows of all tables as text, each with the transaction that wrote it.

    The result stays equal as long as nothing is written. The audit is left out, because refused requests are recorded
    there too, the change feed, because readers number its changes, and what the background comparison writes.
    """
    tables = await connection.fetch(
        "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
        " AND tablename NOT LIKE 'audit%' AND tablename NOT LIKE '%changes%'"
        " AND tablename NOT IN ('duplicates', 'pending_comparisons') ORDER BY 1"
    )
    rows = "SELECT t.xmin::text || ' ' || t::text FROM {} t ORDER BY 1"
    return {table: [row for (row,) in await connection.fetch(rows.format(table))] for (table,) in tables}


def database_url_for(url: str, database: str) -> str:
    """Return the URL of another database of the same server."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{database}"))


@asynccontextmanager
async def temporary_database(postgres_url: str, template: str = "patients") -> AsyncIterator[str]:
    """Create a database on the server of the URL, migrated and empty by default, yield its URL, and drop it."""
    name = f"test_{secrets.token_hex(4)}"
    administration = await asyncpg.connect(database_url_for(postgres_url, "postgres"))
    try:
        await administration.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
        try:
            yield database_url_for(postgres_url, name)
        finally:
            await administration.execute(f"DROP DATABASE {name} WITH (FORCE)")
    finally:
        await administration.close()


def eventually(condition: Callable[[], bool], *, within_seconds: float = 10.0) -> None:
    """Wait until `condition` holds, and fail if it does not within `within_seconds`."""
    deadline = time.monotonic() + within_seconds
    while not condition():
        assert time.monotonic() < deadline, f"the condition did not hold within {within_seconds} seconds"
        time.sleep(0.02)


@dataclass
class ServiceProcess:
    """A service in its own process."""

    url: str
    process: subprocess.Popen[bytes]
    stdout_lines: list[str] = field(default_factory=list)
    """The lines that it has written to stdout so far."""

    def log_entries(self) -> list[dict[str, Any]]:
        """Return its log entries so far."""
        return [json.loads(line) for line in self.stdout_lines]


class SentStatement(NamedTuple):
    """A statement that the service sent to PostgreSQL, such as BEGIN, with the values of its parameters."""

    text: str
    values: tuple[Any, ...]


@contextmanager
def recorded_statements() -> Iterator[list[SentStatement]]:
    """Yield a list that grows by each statement that an application in this process sends to PostgreSQL."""
    sent: list[SentStatement] = []

    def recording(method: Callable[..., Any]) -> Callable[..., Any]:
        def send(self: DriverConnection, text: str, *values: Any, **options: Any) -> Any:
            sent.append(SentStatement(text.strip(), values))
            return method(self, text, *values, **options)

        return send

    with pytest.MonkeyPatch.context() as patch:
        for method in (DriverConnection.fetch, DriverConnection.execute):
            patch.setattr(DriverConnection, method.__name__, recording(method))
        yield sent
