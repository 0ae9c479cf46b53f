"""A primary with a standby, as Patroni and managed services run them: the primary dies and the standby is promoted."""

import asyncio
import os
import signal
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from app.embedded.server import EmbeddedPostgres
from benchmarks.database import execute
from tests.processes import RawRequest, data_directory, is_running, postgres_pid, run_cli, send_concurrently
from tests.scaling.conftest import RetryingClient
from tests.servers import create_standby
from tests.support import ServiceProcess, eventually

pytestmark = pytest.mark.crowd

PATIENTS = "/patients/patients/"
OPTIONS = {"fsync": "off"}


@pytest.mark.parametrize(
    ("session_attributes", "statuses_before_promotion"), [("read-write", {503}), ("any", {200, 503})]
)
async def test_primary_dies_and_the_standby_takes_over(
    serve: Callable[..., ServiceProcess],
    migrated_data_dir: Path,
    session_attributes: str,
    statuses_before_promotion: set[int],
) -> None:
    """Until the standby is promoted, requests get a 503 quickly or, with `any`, the standby serves reads.

    Then all requests are served without a restart of the service. No acknowledged write is lost, because the standby is
    synchronous.
    """
    with ExitStack() as stack:
        here, there = migrated_data_dir, stack.enter_context(data_directory())
        primary = stack.enter_context(EmbeddedPostgres(here, options=OPTIONS))
        create_standby(primary.url, there)
        standby = stack.enter_context(EmbeddedPostgres(there, options=OPTIONS))
        await execute(primary.url, "ALTER SYSTEM SET synchronous_standby_names = '*'", "SELECT pg_reload_conf()")

        reading = serve(DATABASE_URL=standby.url)
        async with RetryingClient(base_url=reading.url) as client:
            assert (await client.get(f"{PATIENTS}?limit=1")).status_code == 200
        (response,) = await send_concurrently(reading.url, [RawRequest("POST", PATIENTS, {"patient_last_name": "Roe"})])
        assert response.status == 503, "the standby must refuse writes"

        asked = await asyncio.to_thread(
            run_cli, "journal", "verify", DATABASE_URL=f"{standby.url}&target_session_attrs=read-write"
        )
        assert asked.returncode == 1
        assert asked.stderr.startswith("The database cannot be reached"), "no host accepts writes"

        hosts = ",".join(quote(str(directory)) for directory in (here, there))
        url = f"postgresql://patients@/patients?host={hosts}&port=5432,5432&target_session_attrs={session_attributes}"
        served = serve("--workers", "2", DATABASE_URL=url)
        async with RetryingClient(base_url=served.url, timeout=60) as client:
            bodies = [{"unique_id": f"pat{n}", "patient_last_name": "Doe"} for n in range(50)]
            made = await asyncio.gather(*(client.post(PATIENTS, json=body) for body in bodies))
        assert {response.status_code for response in made} <= {201, 409}  # 409: stored, but the response came too late

        postgres = postgres_pid(here)
        os.kill(postgres, signal.SIGKILL)
        eventually(lambda: not is_running(postgres))
        calls = [RawRequest("GET", f"{PATIENTS}pat1/"), RawRequest("POST", PATIENTS, {"patient_last_name": "Roe"})] * 10
        for statuses in (
            {503} | statuses_before_promotion,
            statuses_before_promotion,
        ):  # on connections that were open when the primary died, then on new ones
            responses = await send_concurrently(served.url, calls)
            assert {response.status for response in responses} <= statuses
            assert {response.status for response in responses[1::2]} == {503}, "the standby must refuse writes"
            assert max(response.seconds for response in responses) < 2
        assert {response.status for response in responses} == statuses_before_promotion

        await execute(standby.url, "SELECT pg_promote()")
        eventually(lambda: {httpx.get(f"{served.url}/readyz").status_code for _ in range(8)} == {204})
        async with RetryingClient(base_url=served.url, timeout=60) as client:
            for n in range(50):
                assert (await client.get(f"{PATIENTS}pat{n}/")).status_code == 200, "an acknowledged patient is lost"
            assert (await client.post(PATIENTS, json={"patient_last_name": "Roe"})).status_code == 201
        verified = await asyncio.to_thread(run_cli, "journal", "verify", DATABASE_URL=url)
        assert verified.returncode == 0, verified.stderr
        assert [line for line in served.log_entries() if line["level"] == "error"] == []
