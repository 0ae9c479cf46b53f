"""Reverse proxies in front of the service: Caddy and nginx as we document them, nginx passing upgrades on, HAProxy."""

import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.doc_commands import REPOSITORY_ROOT
from tests.processes import port_of
from tests.support import eventually

STRIP_UPGRADE_LINE = "request_header -Upgrade"
"""The line of the Caddyfile that keeps upgrade requests from the service."""

NGINX_MAIN_CONFIG = """
daemon off;
worker_processes 1;
pid {directory}/nginx.pid;
error_log stderr crit;
events {{}}
http {{
    access_log off;
    client_body_temp_path {directory}/bodies;
    proxy_temp_path {directory}/proxied;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    include {directory}/site.conf;
}}
"""
NGINX_PASSING_UPGRADES_ON = """
    upstream api {{
        server 127.0.0.1:{upstream};
        keepalive 1;
    }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://api;
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection "upgrade";
        }}
    }}
"""
HAPROXY_CONFIG = """
defaults
    mode http
    timeout connect 5s
    timeout client 30s
    timeout server 30s
    http-reuse always
frontend all
    bind 127.0.0.1:{port}
    default_backend api
backend api
    server api 127.0.0.1:{upstream}
"""


def documented_caddyfile() -> str:
    """Return the Caddyfile in docs/proxy.md."""
    _, found, rest = (REPOSITORY_ROOT / "docs" / "proxy.md").read_text().partition("```\n# Caddyfile\n")
    assert found, "docs/proxy.md has no Caddyfile"
    return rest.partition("```")[0]


def _caddy(directory: Path, upstream: int, port: int, *, strip_upgrades: bool) -> list[str]:
    text = documented_caddyfile()
    for ours, theirs in {
        "patients.example.org": f"http://:{port}",
        "api:8000": f"127.0.0.1:{upstream}",
        "auto_https disable_redirects": "admin off\n\tauto_https off",
    }.items():
        assert ours in text
        text = text.replace(ours, theirs)
    assert STRIP_UPGRADE_LINE in text
    if not strip_upgrades:
        text = text.replace(STRIP_UPGRADE_LINE, "")
    (directory / "Caddyfile").write_text(text)
    return ["caddy", "run", "--adapter", "caddyfile", "--config", str(directory / "Caddyfile")]


def _nginx(directory: Path, upstream: int, port: int) -> list[str]:
    return nginx_command(directory, NGINX_PASSING_UPGRADES_ON.format(upstream=upstream, port=port))


def nginx_command(directory: Path, site: str) -> list[str]:
    """Write the configuration of a site, and return the command that serves it."""
    (directory / "site.conf").write_text(site)
    (directory / "nginx.conf").write_text(NGINX_MAIN_CONFIG.format(directory=directory))
    return ["nginx", "-p", str(directory), "-c", str(directory / "nginx.conf")]


def documented_nginx_site(upstream: int, port: int, certificate: Path | None = None) -> str:
    """Return deploy/nginx/patients-api.conf for these ports. Without a certificate, it speaks plain HTTP."""
    text = (REPOSITORY_ROOT / "deploy" / "nginx" / "patients-api.conf").read_text()
    replacements = {"server 127.0.0.1:8000;": f"server 127.0.0.1:{upstream};"}
    if certificate is None:
        replacements |= {"listen 443 ssl http2;": f"listen 127.0.0.1:{port};", "    ssl_": "    # ssl_"}
    else:
        replacements |= {
            "listen 443 ssl http2;": f"listen 127.0.0.1:{port} ssl http2;",
            "/etc/ssl/patients.example.org/fullchain.pem": str(certificate),
            "/etc/ssl/patients.example.org/privkey.pem": str(certificate),
        }
    for ours, theirs in replacements.items():
        assert ours in text
        text = text.replace(ours, theirs)
    return text


def _haproxy(directory: Path, upstream: int, port: int) -> list[str]:
    (directory / "haproxy.cfg").write_text(HAPROXY_CONFIG.format(upstream=upstream, port=port))
    return ["haproxy", "-f", str(directory / "haproxy.cfg")]


PROXY_COMMANDS: dict[str, Callable[[Path, int, int], list[str]]] = {
    "caddy": lambda *arguments: _caddy(*arguments, strip_upgrades=True),
    "caddy-passing-upgrades-on": lambda *arguments: _caddy(*arguments, strip_upgrades=False),
    "nginx": lambda directory, upstream, port: nginx_command(directory, documented_nginx_site(upstream, port)),
    "nginx-passing-upgrades-on": _nginx,
    "haproxy": _haproxy,
}
"""By name: a function that writes the configuration and returns the command to run."""


@contextmanager
def proxy_in_front_of(url: str, name: str, directory: Path, port: int) -> Iterator[str]:
    """Run a proxy in front of a service and return its URL; skip the test if the program is not installed."""
    with run_proxy(PROXY_COMMANDS[name](directory, port_of(url), port), directory, port):
        yield f"http://127.0.0.1:{port}"


@contextmanager
def run_proxy(command: list[str], directory: Path, port: int) -> Iterator[None]:
    """Run a proxy until the context ends; skip the test if the program is not installed."""
    program = shutil.which(command[0], path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
    if program is None:
        pytest.skip(f"{command[0]} is not installed")
    process = subprocess.Popen(
        [program, *command[1:]],
        env={"HOME": str(directory), "XDG_DATA_HOME": str(directory), "XDG_CONFIG_HOME": str(directory)},
        stderr=subprocess.PIPE,
    )

    def accepts_connections() -> bool:
        assert process.poll() is None, process.stderr and process.stderr.read()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    try:
        eventually(accepts_connections, within_seconds=30)
        yield
    finally:
        process.terminate()
        process.communicate(timeout=30)
