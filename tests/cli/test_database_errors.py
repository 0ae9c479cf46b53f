"""What commands print if the database cannot be reached or migrated: where, why and what to do, but no password."""

import asyncio
import socketserver
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import httpx
import pytest

from app.main import create_app
from app.settings import Settings
from tests.processes import free_port, run_cli
from tests.support import database_url_for

PASSWORD = "hunter2"  # noqa: S105  # a password that must appear nowhere
SSL_REQUEST_CODE = 80877103
NO_TLS = b"N"


def message_bytes(kind: bytes, body: bytes) -> bytes:
    """Return a message of version 3.0 of the PostgreSQL protocol."""
    return kind + struct.pack("!i", len(body) + 4) + body


def error_bytes(sqlstate: str, text: str) -> bytes:
    """Return an ErrorResponse."""
    return message_bytes(b"E", f"SFATAL\0VFATAL\0C{sqlstate}\0M{text}\0\0".encode())


PASSWORD_ERROR = error_bytes("28P01", 'password authentication failed for user "someone"')
TLS_REQUIRED_ERROR = error_bytes("28000", 'no pg_hba.conf entry for host "10.0.0.1", user "someone", no encryption')
NO_ENTRY_ERROR = error_bytes("28000", 'no pg_hba.conf entry for host "10.0.0.1", user "someone", SSL encryption')
ROLE_LIMIT_ERROR = error_bytes("53300", 'too many connections for role "someone"')
STARTING_ERROR = error_bytes("57P03", "the database system is starting up")
OLD_SERVER_GREETING = (
    message_bytes(b"R", struct.pack("!i", 0))
    + message_bytes(b"S", b"server_version\x0015.3 (Debian 15.3-1)\0")
    + message_bytes(b"S", b"server_encoding\0UTF8\0")
    + message_bytes(b"K", struct.pack("!ii", 1, 1))
    + message_bytes(b"Z", b"I")
)


@contextmanager
def server_that_sends(reply: bytes) -> Iterator[int]:
    """Run a server without TLS that sends `reply` to each client that begins a session, and yield its port."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while header := self.rfile.read(8):
                length, code = struct.unpack("!ii", header)
                self.rfile.read(length - 8)
                if code != SSL_REQUEST_CODE:
                    self.wfile.write(reply)
                    self.rfile.read(1)  # until the client closes the connection
                    return
                self.wfile.write(NO_TLS)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def assert_one_line(result: object, *expected: str) -> None:
    """Check that a command failed with one line that contains all texts, and not the password."""
    status, out, err = (getattr(result, name) for name in ("returncode", "stdout", "stderr"))
    assert status == 1
    assert (out, err.count("\n")) == ("", 1), err
    for text in expected:
        assert text in err
    assert PASSWORD not in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("reply", "options", "reason"),
    [
        (
            PASSWORD_ERROR,
            "",
            r"the password is wrong, missing or expired, or the role does not exist. Correct DATABASE_URL",
        ),
        (TLS_REQUIRED_ERROR, "?sslmode=disable", "the server requires TLS. Set sslmode=verify-full"),
        (NO_ENTRY_ERROR, "?sslmode=disable", "pg_hba.conf on the server does not allow this connection. Add a line"),
        (b"", "?sslmode=require", "the server does not support TLS, which sslmode in DATABASE_URL requires. Turn on"),
        (b"", "?sslmode=verify-full&sslrootcert=/nope/root.crt", "the file /nope/root.crt does not exist or cannot be"),
        (b"", "?sslmode=require&sslcert=/nope/a.crt&sslkey=/nope/a.key", "read. Correct sslcert in DATABASE_URL."),
        (ROLE_LIMIT_ERROR, "", 'no more connections (too many connections for role "someone"). Raise this limit'),
        (STARTING_ERROR, "", "the server is starting, recovering or shutting down. Try again"),
        (OLD_SERVER_GREETING, "", "this is PostgreSQL 15.3, and version 17 or newer is needed. Upgrade the server"),
        (b"", "", "there was no response in time. Check that the server runs"),
    ],
    ids=[
        "password",
        "tls-required",
        "no-entry",
        "tls-unsupported",
        "no-root-certificate",
        "no-client-certificate",
        "role-limit",
        "starting",
        "old",
        "silent",
    ],
)
def test_what_a_server_refuses_is_explained(reply: bytes, options: str, reason: str) -> None:
    """Each refusal of a server is one line that names host, port, database, role, reason and remedy."""
    with server_that_sends(reply) as port:
        url = f"postgresql://someone:{PASSWORD}@127.0.0.1:{port}/clinic{options}"
        target = f"The database cannot be reached (database clinic on 127.0.0.1 port {port}, role someone): "
        assert_one_line(run_cli("migrate", DATABASE_URL=url), target, reason)


@pytest.mark.parametrize("options", ["", "?sslmode=disable"])
def test_a_server_that_is_not_postgresql_is_suspected(options: str) -> None:
    """A web server at the port is not said to lack TLS, which the URL does not require."""

    class WebServer(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.rfile.read(8)
            self.wfile.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), WebServer) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        url = f"postgresql://someone:{PASSWORD}@127.0.0.1:{server.server_address[1]}/clinic{options}"
        assert_one_line(
            run_cli("migrate", DATABASE_URL=url), "what listens there may not be PostgreSQL. Correct the host"
        )
        server.shutdown()


@pytest.mark.parametrize(
    ("location", "target", "reason"),
    [
        ("127.0.0.1:1/clinic", "clinic on 127.0.0.1 port 1,", "the connection was refused. Start PostgreSQL"),
        ("localhost:1/clinic", "clinic on localhost port 1,", "the connection was refused. Start PostgreSQL"),
        ("no-such-host.invalid/clinic", "clinic on no-such-host.invalid port 5432,", "the host name is unknown."),
        (
            "h1.invalid,h2.invalid:1/clinic",
            "clinic on h1.invalid port 5432 or h2.invalid port 1,",
            "host name is unknown",
        ),
        ("127.0.0.1:1/clinic?sslmode=on", "clinic on", "`sslmode` parameter must be one of: disable"),
        (
            "127.0.0.1:1/clinic?sslmode=verify-full",
            "clinic on",
            "not exist or cannot be accessed. Set sslrootcert",
        ),
        ("127.0.0.1:1/clinic?options", "clinic on", "DATABASE_URL is not a valid URL."),
    ],
)
def test_a_wrong_location_is_explained(location: str, target: str, reason: str) -> None:
    """A host, port or option that is wrong is one line that names it."""
    result = run_cli("migrate", DATABASE_URL=f"postgresql://someone:{PASSWORD}@{location}")
    assert_one_line(result, target, "role someone", reason)


@pytest.mark.parametrize("separator", ["/", "?", "#", "@"])
def test_an_unquoted_password_is_not_shown(separator: str) -> None:
    """If a password is not quoted, its parts are mistaken for the host or the database, but none of them is printed."""
    result = run_cli("migrate", DATABASE_URL=f"postgresql://someone:12{separator}{PASSWORD}@127.0.0.1:1/clinic")
    assert_one_line(result, "The database cannot be reached")


def test_missing_databases_and_roles_are_named(database_url: str) -> None:
    """A database or role that does not exist is named, with the statement that creates it."""
    result = run_cli("keys", "list", DATABASE_URL=database_url_for(database_url, "nope"))
    assert_one_line(result, "database nope on socket directory /", "run CREATE DATABASE nope.")
    stranger_url = urlunsplit(urlsplit(database_url)._replace(netloc=f"nobody:{PASSWORD}@"))
    assert_one_line(run_cli("keys", "list", DATABASE_URL=stranger_url), "role nobody)", "there is no such role.")


@pytest.mark.parametrize(
    "arguments",
    [
        ("serve",),
        ("migrate", "--serving-role", "other"),
        ("import", "-"),
        ("export",),
        ("keys", "create", "--name", "a", "--scope", "admin"),
        ("keys", "revoke", "a"),
        ("journal", "verify"),
        ("audit", "prune"),
        ("access-report", "pat123"),
        ("erase", "patient", "pat123", "--reason", "asked", "--yes"),
    ],
    ids=" ".join,
)
def test_every_command_explains(arguments: tuple[str, ...]) -> None:
    """Every command that needs the database prints the same line."""
    url = f"postgresql://someone:{PASSWORD}@127.0.0.1:1/clinic"
    port_options = ("--port", str(free_port())) if arguments == ("serve",) else ()
    result = run_cli(*arguments, *port_options, stdin_text="", DATABASE_URL=url)
    assert result.returncode == 1
    expected = "The database cannot be reached (database clinic on 127.0.0.1 port 1, role someone): the connection was "
    assert result.stderr.splitlines()[-1].startswith(expected)
    assert "Traceback" not in result.stderr
    assert PASSWORD not in result.stderr + result.stdout


async def test_clients_do_not_learn_the_details() -> None:
    """The response of the service names neither host nor role."""
    url = f"postgresql://someone:{PASSWORD}@127.0.0.1:1/clinic"
    app = create_app(Settings.model_validate({"database_url": url, "auth": "off"}))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://patients.test") as client,
    ):
        responses = [
            await client.get(path) for path in ("/readyz", "/patients/patients/", "/patients/patients/pat123/")
        ]
    for response in responses:
        assert response.status_code == 503
        assert response.json()["detail"] == "The database cannot be reached or is currently too busy. Try again."
        assert not {word for word in ("someone", "127.0.0.1", "clinic") if word in response.text}


async def test_another_encoding_is_refused(database_url: str, connection: asyncpg.Connection) -> None:
    """A database that is not in UTF8 is refused before a migration fails in it."""
    name = urlsplit(database_url).path[1:] + "_latin"
    await connection.execute(f"CREATE DATABASE {name} ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    try:
        url = database_url_for(database_url, name)
        result = await asyncio.to_thread(run_cli, "migrate", DATABASE_URL=url)
        assert_one_line(result, f"database {name}", "the encoding of this database is LATIN1, and UTF8 is needed.")
    finally:
        await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


async def test_failed_migrations_are_explained(database_url: str, connection: asyncpg.Connection) -> None:
    """A missing extension, a missing right or a table in the way is one line, and the rest of the schema remains."""
    await connection.execute("DROP SCHEMA public CASCADE; DROP SCHEMA extensions CASCADE; CREATE SCHEMA public")
    await connection.execute("CREATE TABLE doctors ()")
    result = await asyncio.to_thread(run_cli, "migrate", DATABASE_URL=database_url)
    assert_one_line(result, 'A migration failed: relation "doctors" already exists. Correct this in the database')
    await connection.execute("DROP TABLE doctors")
    name = urlsplit(database_url).path[1:]
    await connection.execute(f"ALTER DATABASE {name} SET extension_control_path = '/nonexistent'")
    result = await asyncio.to_thread(run_cli, "migrate", DATABASE_URL=database_url)
    assert_one_line(result, 'A migration failed: extension "', "is not available. Install", "postgresql-contrib")
    await connection.execute(f"ALTER DATABASE {name} RESET extension_control_path")
    await connection.execute(f"CREATE ROLE {name}_stranger LOGIN")
    try:
        url = urlunsplit(urlsplit(database_url)._replace(netloc=f"{name}_stranger@"))
        result = await asyncio.to_thread(run_cli, "migrate", DATABASE_URL=url)
        assert_one_line(result, "A migration failed: no schema has been selected", "the role that owns the database")
        await connection.execute("GRANT USAGE ON SCHEMA public TO PUBLIC")
        result = await asyncio.to_thread(run_cli, "migrate", DATABASE_URL=url)
        assert_one_line(result, "A migration failed: permission denied for", "the role that owns the database")
    finally:
        await connection.execute(f"DROP OWNED BY {name}_stranger; DROP ROLE {name}_stranger")


async def test_schemas_that_cannot_be_used_are_explained(database_url: str, connection: asyncpg.Connection) -> None:
    """Neither a missing table nor the database of another project that uses Alembic is taken for a newer version's."""
    await connection.execute("DROP TABLE api_keys")
    result = await asyncio.to_thread(run_cli, "keys", "list", DATABASE_URL=database_url)
    assert_one_line(result, 'is not that of its revision (relation "api_keys" does not exist): `patients-api check`')
    await connection.execute("UPDATE alembic_version SET version_num = '1975ea83b712'")
    for arguments in (("keys", "list"), ("migrate",), ("serve", "--port", str(free_port()))):
        result = await asyncio.to_thread(run_cli, *arguments, DATABASE_URL=database_url)
        assert_one_line(result, "Revision 1975ea83b712 in the table alembic_version is not of this service")
