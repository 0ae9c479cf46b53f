"""deploy/nginx: nginx runs the example in front of the service, and keeps the rules of docs/proxy.md."""

import datetime as dt
import ssl
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.hostile.proxies import documented_nginx_site, nginx_command, run_proxy
from tests.processes import data_directory, free_port, port_of
from tests.support import ServiceProcess

HOST_NAME = "patients.example.org"
PATIENTS = "/patients/patients/"
MIN_HEADER_BYTES = 4096
"""What nginx accepts at most unless `proxy_buffer_size` is set."""


def write_certificate(path: Path) -> None:
    """Write a certificate for this machine, signed by itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, HOST_NAME)])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    key_format = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    pem = serialization.Encoding.PEM
    path.write_bytes(certificate.public_bytes(pem) + key.private_bytes(pem, *key_format))


@pytest.fixture(scope="module")
def proxied(module_serve: Callable[..., ServiceProcess], module_database_url: str) -> Iterator[httpx.Client]:
    """Yield a client of the service behind nginx, as the example configures it."""
    served = module_serve(
        DATABASE_URL=module_database_url, PATIENTS_ALLOWED_HOSTS=HOST_NAME, PATIENTS_TRUSTED_PROXIES="127.0.0.1"
    )
    port = free_port()
    with data_directory() as directory:
        certificate = directory / "certificate.pem"
        write_certificate(certificate)
        command = nginx_command(directory, documented_nginx_site(port_of(served.url), port, certificate))
        context = ssl.create_default_context(cafile=certificate)
        with (
            run_proxy(command, directory, port),
            httpx.Client(base_url=f"https://127.0.0.1:{port}", headers={"Host": HOST_NAME}, verify=context) as client,
        ):
            yield client


def test_records_are_served_over_tls(proxied: httpx.Client) -> None:
    """Requests work under the public host name, and a header makes browsers use TLS only."""
    created = proxied.post(PATIENTS, json={"patient_last_name": "Doe"})
    assert created.status_code == 201
    assert created.headers["Strict-Transport-Security"] == "max-age=31536000; includeSubDomains"
    path = created.headers["Location"]
    assert proxied.get(path).json()["patient_last_name"] == "Doe"
    assert proxied.get(path, headers={"Host": "other.example.org"}).status_code == 400


@pytest.mark.parametrize("path", ["/livez", "/readyz/", "/metrics", "/%6detrics"])
def test_the_paths_of_operators_are_not_published(proxied: httpx.Client, path: str) -> None:
    """Probes and metrics are a 404 of nginx, not of the service."""
    response = proxied.get(path)
    assert response.status_code == 404
    assert "x-request-id" not in response.headers


def test_paths_arrive_unchanged(proxied: httpx.Client) -> None:
    """An escaped slash reaches the service as it was sent."""
    response = proxied.get(f"{PATIENTS}a%2Fb/")
    assert (response.status_code, response.headers["Content-Type"]) == (404, "application/problem+json")


def test_long_headers_of_responses_reach_the_client(proxied: httpx.Client) -> None:
    """A page of a list with long filters has three cursors in its headers, with which the client reads on."""
    filters = {
        f"patient_{name}": "x" * 150 for name in ("first_name", "last_name", "town", "region", "province", "country")
    }
    filters["patient_access_medical_care"] = "x" * 255
    for _ in range(3):
        assert proxied.post(PATIENTS, json=filters).status_code == 201
    page = proxied.get(PATIENTS, params={**filters, "limit": "1"})
    assert len(page.headers["Link"] + page.headers["Next-Cursor"]) > MIN_HEADER_BYTES
    next_page = proxied.get(page.links["next"]["url"])
    assert next_page.status_code == 200
    assert len(next_page.json()) == 1


def test_limits_are_enforced_before_the_service(proxied: httpx.Client) -> None:
    """Bodies of more than 1 MiB and heads of more than the service accepts are refused by nginx."""
    assert proxied.post(PATIENTS, content=b"x" * (1024 * 1024 + 1)).status_code == 413
    response = proxied.get(PATIENTS, headers={"X-Large": "x" * 20_000})
    assert response.status_code == 400
    assert "x-request-id" not in response.headers


def test_imports_may_be_larger_than_other_requests(proxied: httpx.Client) -> None:
    """An import of more than 1 MiB reaches the service."""
    line = b'{"patient_last_name": "Doe"}' + b" " * 100_000 + b"\n"
    headers = {"Content-Type": "application/x-ndjson"}
    response = proxied.post(f"{PATIENTS}import/", params={"dry_run": "true"}, content=line * 12, headers=headers)
    assert (response.status_code, len(response.text.splitlines())) == (200, 12)


def test_upgrades_do_not_reach_the_service(proxied: httpx.Client) -> None:
    """A request for an upgrade is served without it, on a connection that nginx keeps."""
    for _ in range(2):
        response = proxied.get(f"{PATIENTS}?limit=1", headers={"Connection": "Upgrade", "Upgrade": "websocket"})
        assert response.status_code == 200
