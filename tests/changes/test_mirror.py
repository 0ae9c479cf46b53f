"""`docs/samples/mirror.py`, run as its documentation says; the tests of the hospital scope use its class, too."""

import subprocess
import sys
from collections.abc import Callable

import httpx

from tests.doc_commands import REPOSITORY_ROOT
from tests.support import ServiceProcess, eventually

PATIENTS = "/patients/patients/"


def has_listed_patients(served: ServiceProcess) -> bool:
    """Return whether the log has a line about a list of patients."""
    return any((line.get("method"), line.get("route")) == ("GET", PATIENTS) for line in served.log_entries())


def test_the_sample_keeps_a_copy(serve: Callable[..., ServiceProcess], database_url: str) -> None:
    """The program copies the patients, and then follows each change as it is made."""
    served = serve(DATABASE_URL=database_url)
    httpx.post(f"{served.url}{PATIENTS}", json={"unique_id": "first", "patient_last_name": "Doe"}).raise_for_status()
    command = [sys.executable, str(REPOSITORY_ROOT / "docs/samples/mirror.py"), served.url, "none"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as mirror:
        assert mirror.stdout is not None
        try:
            # the program copies this list, and then gets the changes after it
            eventually(lambda: has_listed_patients(served), within_seconds=30)
            for count, method, path in ((2, "POST", PATIENTS), (1, "DELETE", f"{PATIENTS}first/")):
                body = {"patient_last_name": "Roe"} if method == "POST" else None
                httpx.request(method, f"{served.url}{path}", json=body).raise_for_status()
                while mirror.stdout.readline() != f"{count} patients\n":
                    assert mirror.poll() is None
        finally:
            mirror.kill()
