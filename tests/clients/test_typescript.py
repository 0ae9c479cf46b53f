"""openapi.json as its consumers use it: checked by a linter, and turned into a TypeScript client."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import EXAMPLE_PATIENT, GET_EXAMPLE, PUT_EXAMPLE, ServiceProcess

HERE = Path(__file__).parent
OPENAPI_DOCUMENT = HERE.parents[1] / "openapi.json"
EXAMPLES_MODULE = f"""
import type {{ components }} from "./schema.js";

export const getExample: components["schemas"]["Patient"] = {json.dumps(GET_EXAMPLE)};
export const postExample: components["schemas"]["PatientCreate"] = {json.dumps(EXAMPLE_PATIENT)};
export const putExample: components["schemas"]["PatientUpdate"] = {json.dumps(PUT_EXAMPLE)};
"""
"""The contract's examples as a module, in which the compiler checks their types."""
NPM_NETWORK_ERROR_PATTERN = re.compile(
    "code (E40[134]|E5|EAI_AGAIN|ECONN|EHOSTUNREACH|ENETUNREACH|ENOTCACHED|ENOTFOUND|ETIMEDOUT"
    "|ERR_SOCKET_TIMEOUT|SELF_SIGNED|UNABLE_TO|CERT_)\\w*"
)
"""npm's error codes if it cannot get the packages; any other error is a fault in package.json or its lock and fails."""


def run(directory: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; both of its output streams are in `stdout`."""
    quiet = {"REDOCLY_TELEMETRY": "off", "REDOCLY_SUPPRESS_UPDATE_NOTICE": "true", "NO_COLOR": "1"}
    return subprocess.run(
        command,
        cwd=directory,
        env={**os.environ, **quiet},
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
    )


@pytest.fixture(scope="module")
def client_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with the files of this one, the packages of its lock file, and the document."""
    if shutil.which("npm") is None or shutil.which("node") is None:
        pytest.skip("Node is not installed")
    directory = tmp_path_factory.mktemp("typescript")
    for file in HERE.iterdir():
        if file.suffix in {".json", ".ts", ".yaml"}:
            shutil.copy(file, directory)
    version = run(directory, "node", "--version").stdout.strip()
    if int(version.removeprefix("v").partition(".")[0]) < 20:
        pytest.skip(f"the tools need Node 20 or newer; this is {version}")
    shutil.copy(OPENAPI_DOCUMENT, directory)
    install = run(directory, "npm", "ci", "--prefer-offline", "--no-audit", "--no-fund", "--fetch-retries=0")
    if install.returncode != 0 and (found := NPM_NETWORK_ERROR_PATTERN.search(install.stdout)):
        pytest.skip(f"npm cannot get the packages: {found[0]}")
    assert install.returncode == 0, install.stdout
    return directory


def test_redocly_finds_no_problems(client_project: Path) -> None:
    """Redocly's recommended rules report nothing except the exceptions that `redocly.yaml` gives reasons for."""
    lint = run(
        client_project,
        "npx",
        "redocly",
        "lint",
        "--config",
        "redocly.yaml",
        "--format",
        "github-actions",
        OPENAPI_DOCUMENT.name,
    )
    assert lint.returncode == 0, lint.stdout
    assert "::" not in lint.stdout, lint.stdout


def test_a_generated_client_does_what_the_contract_shows(
    client_project: Path, serve: Callable[..., ServiceProcess], database_url: str
) -> None:
    """`contract.ts` compiles strictly with the types generated from the document, and gets the contract's responses."""
    generated = run(client_project, "npx", "openapi-typescript", OPENAPI_DOCUMENT.name, "--output", "schema.ts")
    assert generated.returncode == 0, generated.stdout
    (client_project / "examples.ts").write_text(EXAMPLES_MODULE)
    compiled = run(client_project, "npx", "tsc")
    assert compiled.returncode == 0, compiled.stdout
    served = serve("--demo", DATABASE_URL=database_url)
    ran = run(client_project, "node", "contract.js", served.url)
    assert ran.returncode == 0, ran.stdout
    assert ran.stdout == "as the contract has it\n"
