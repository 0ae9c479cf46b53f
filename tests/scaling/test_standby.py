"""Long reads on a standby: an export that is audited on the primary, verification, a dump, and the change feed."""

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import httpx
import pytest

from app.embedded.server import EmbeddedPostgres
from benchmarks.database import execute
from tests.doc_commands import code_blocks, run_shell_block
from tests.processes import data_directory, run_cli
from tests.scaling.conftest import RetryingClient
from tests.scaling.test_failover import OPTIONS
from tests.servers import copy_server, create_standby
from tests.support import ServiceProcess

pytestmark = pytest.mark.crowd

PATIENTS = "/patients/patients/"


class Servers(NamedTuple):
    """A primary and its standby."""

    primary_url: str
    standby_url: str
    url: str
    """The URL of both, which leads to the primary."""


@pytest.fixture(scope="module")
def servers(postgres_url: str) -> Iterator[Servers]:
    """A migrated primary, and a standby that applies each transaction before its commit returns."""
    with ExitStack() as stack:
        directories = [stack.enter_context(data_directory()) for _ in range(2)]
        copy_server(postgres_url, directories[0])
        primary = stack.enter_context(EmbeddedPostgres(directories[0], options=OPTIONS))
        create_standby(primary.url, directories[1])
        standby = stack.enter_context(EmbeddedPostgres(directories[1], options=OPTIONS))
        asyncio.run(
            execute(
                primary.url,
                "ALTER SYSTEM SET synchronous_standby_names = '*'",
                "ALTER SYSTEM SET synchronous_commit = remote_apply",
                "SELECT pg_reload_conf()",
            )
        )
        # the standby first, so that a connection to the first host that accepts one would lead to it
        hosts = ",".join(quote(str(directory)) for directory in reversed(directories))
        url = f"postgresql://patients@/patients?host={hosts}&port=5432,5432&target_session_attrs=read-write"
        yield Servers(primary.url, standby.url, url)


@pytest.fixture(scope="module")
def service(servers: Servers, module_serve: Callable[..., ServiceProcess]) -> ServiceProcess:
    """A service on the primary that audits reads, with some patients whose creation is numbered in the feed."""
    served = module_serve(DATABASE_URL=servers.url, PATIENTS_AUDIT_READS="true")
    for number in range(30):
        body = {"unique_id": f"pat{number:02}", "patient_last_name": "Doe"}
        assert httpx.post(f"{served.url}{PATIENTS}", json=body).status_code == 201
    assert len(httpx.get(f"{served.url}/changes/").json()) == 30
    return served


async def test_export_reads_from_the_standby_and_is_audited_on_the_primary(
    servers: Servers, service: ServiceProcess, tmp_path: Path
) -> None:
    """The export has all patients, its cursor continues in the primary's feed, and the primary has its audit rows.

    The other documented commands verify the standby and a dump of it.
    """
    (block,) = code_blocks("scaling.md", "Standbys that serve reads")
    target = tmp_path / "patients.ndjson"
    exported = await asyncio.to_thread(
        run_shell_block, f"cd {tmp_path}\nexec 2>&1\n{block}", DATABASE_URL=servers.url, STANDBY_URL=servers.standby_url
    )
    assert "patients.ndjson: 30 records" in exported
    assert exported.count("Every record matches its newest entry.") == 2
    assert [json.loads(line)["unique_id"] for line in target.read_text().splitlines()] == [
        f"pat{number:02}" for number in range(30)
    ]
    cursor = exported.partition("Changes-Cursor: ")[2].split()[0]
    async with RetryingClient(base_url=service.url) as client:
        rows = (await client.get("/audit/", params={"principal": "export"})).json()
        assert [len(row["ids"]) for row in rows] == [30]
        assert (await client.get("/changes/", params={"after": cursor})).json() == []
        assert (await client.post(PATIENTS, json={"unique_id": "later", "patient_last_name": "Doe"})).status_code == 201
        changes = (await client.get("/changes/", params={"after": cursor})).json()
        assert [change["unique_id"] for change in changes] == ["later"]


@pytest.mark.usefixtures("service")
@pytest.mark.parametrize(
    ("arguments", "url", "message"),
    [
        (["--from-standby"], "primary_url", "no host is in the state that target_session_attrs"),
        ([], "standby_url", "The database is read-only"),
        (["--from-standby"], "standby_url", "The database is read-only"),
        (["--from-standby"], None, "set DATABASE_URL, with the standby as another host"),
    ],
)
async def test_an_export_that_cannot_be_audited_leaves_no_file(
    servers: Servers, tmp_path: Path, arguments: list[str], url: str | None, message: str
) -> None:
    """Without a standby to read from, or a primary for the audit, the export says so, and writes nothing."""
    environment = {} if url is None else {"DATABASE_URL": getattr(servers, url)}
    file = tmp_path / "patients.ndjson"
    refused = await asyncio.to_thread(run_cli, "export", "--output", str(file), *arguments, **environment)
    assert refused.returncode == 1
    assert message in refused.stderr
    assert not file.exists()


@pytest.mark.usefixtures("service")
async def test_hospitals_can_be_exported_on_the_standby_alone(servers: Servers) -> None:
    """Hospitals and doctors are not audited, so their export needs no primary."""
    exported = await asyncio.to_thread(run_cli, "export", "--resource", "hospitals", DATABASE_URL=servers.standby_url)
    assert exported.returncode == 0, exported.stderr


async def test_a_service_on_the_standby_lists_numbered_changes(
    servers: Servers, service: ServiceProcess, module_serve: Callable[..., ServiceProcess]
) -> None:
    """The feed of a service on the standby has what the primary has numbered, and continues with the same cursors."""
    reading = module_serve(DATABASE_URL=servers.standby_url, PATIENTS_AUDIT_READS="false")
    async with RetryingClient(base_url=reading.url) as standby, RetryingClient(base_url=service.url) as primary:
        page = await standby.get("/changes/", params={"limit": 10})
        assert page.json() == (await primary.get("/changes/", params={"limit": 10})).json()
        after = {"after": page.headers["Next-Cursor"]}
        assert (await standby.get("/changes/", params=after)).json() == (
            await primary.get("/changes/", params=after)
        ).json()
        newest = {"after": (await standby.get("/changes/", params={"after": "now"})).headers["Next-Cursor"]}
        created = await primary.post(PATIENTS, json={"unique_id": "unnumbered", "patient_last_name": "Doe"})
        assert created.status_code == 201
        assert (await standby.get("/changes/", params=newest)).json() == [], "a standby cannot number changes"
        numbered = (await primary.get("/changes/", params=newest)).json()
        assert [change["unique_id"] for change in numbered] == ["unnumbered"]
        assert (await standby.get("/changes/", params=newest)).json() == numbered
