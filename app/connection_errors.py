"""Explains to operators why a connection to PostgreSQL cannot be opened.

Commands print the explanation. Responses of the service do not contain it, because it names hosts and roles.
"""

import errno
import getpass
import os
import socket
import ssl
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

import asyncpg

from app.errors import UnavailableError

MIN_POSTGRES_VERSION = 17
"""Oldest major version of PostgreSQL that works: older ones lack the collation pg_c_utf8."""
REQUIRED_ENCODING = "UTF8"
_REFUSED = f"[Errno {errno.ECONNREFUSED}]"
"""Part of the message of the error that asyncio raises if several addresses of one host refuse the connection."""

_OPTIONAL_TLS_MODES = {"disable", "allow", "prefer"}
"""Values of `sslmode` with which a connection without TLS is accepted."""
_NOT_POSTGRES = (
    "the connection was closed before it was open: what listens there may not be PostgreSQL. Correct the host and port "
    "in DATABASE_URL, or see the log of PostgreSQL."
)

_CORRECT_URL = "Correct DATABASE_URL."
_SET_ROOT_CERTIFICATE = (
    "Set sslrootcert in DATABASE_URL to the certificate of the authority, for example to "
    "/etc/ssl/certs/ca-certificates.crt for all authorities that this machine trusts."
)

_MALFORMED_URL = (
    "DATABASE_URL is not a valid URL. In a password, write / as %2F, # as %23, ? as %3F and @ as %40; write @ as %40 "
    "also in options."
)


class UnsuitableServerError(Exception):
    """A connection was opened, but the service cannot work with this server. The message says what to do."""


CONNECTION_ERRORS = (
    OSError,  # includes TimeoutError, unknown hosts and failures of TLS
    ValueError,  # the URL cannot be parsed
    UnsuitableServerError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.TargetServerAttributeNotMatched,  # none of several hosts matches `target_session_attrs`
)
"""Errors that mean that a connection cannot be opened."""


class ConnectionFailedError(UnavailableError):
    """PostgreSQL cannot be reached or used.

    Clients get the message of `UnavailableError`. `operator_message` names the host, port, database and role, but never
    the password, and says what to do.
    """

    def __init__(self, url: str, error: Exception) -> None:
        super().__init__()
        target = _Target.from_url(url)
        if target is None:
            self.operator_message = f"The database cannot be reached: {_MALFORMED_URL}"
        else:
            self.operator_message = f"The database cannot be reached ({target}): {_explain(error, target)}"


def describe_database(url: str) -> str:
    """Return the database, host, port and role that a URL points to, in words and without the password."""
    target = _Target.from_url(url)
    return _MALFORMED_URL if target is None else str(target)


_FILE_OPTIONS = ("sslrootcert", "sslcert", "sslkey", "sslcrl")
"""Options of the URL that name files. An environment variable such as PGSSLROOTCERT has the same meaning."""


def _variable_of(option: str) -> str | None:
    return os.environ.get(f"PG{option.upper()}")


class _Target(NamedTuple):
    hosts: list[str]
    database: str
    role: str
    sslmode: str
    files: dict[str, str]
    """The paths of certificates and keys, by the option that names them."""

    @classmethod
    def from_url(cls, url: str) -> "_Target | None":
        """Return what a URL points to, as asyncpg reads it, or None if part of the password might be mistaken for it.

        A password that contains an unquoted /, # or ? ends the host name too early. Its rest, up to the @, is then in
        the path, the query or the fragment.
        """
        try:
            scheme, location, path, query_text, fragment = urlsplit(url)
            if not scheme or "@" in path + query_text + fragment:
                return None
            query = dict(parse_qsl(query_text))
            credentials, _, host_list = location.rpartition("@")
            role = unquote(credentials.partition(":")[0]) or query.get("user") or os.environ.get("PGUSER")
            role = role or getpass.getuser()
            database = unquote(path.removeprefix("/")) or query.get("dbname") or query.get("database")
            default_port = query.get("port") or os.environ.get("PGPORT") or "5432"
            hosts = unquote(host_list) or query.get("host") or os.environ.get("PGHOST") or "the default socket"
            return cls(
                [_describe_host(host, default_port) for host in hosts.split(",")],
                database or os.environ.get("PGDATABASE") or role,
                role,
                query.get("sslmode") or os.environ.get("PGSSLMODE") or "prefer",
                {option: file for option in _FILE_OPTIONS if (file := query.get(option) or _variable_of(option))},
            )
        except (ValueError, OSError, KeyError):  # getpass raises the last two if the user has no name
            return None

    def unreadable_file(self) -> tuple[str, str] | None:
        """Return the option and the path of the first file that cannot be read, or None if there is none."""
        return next((item for item in self.files.items() if not os.access(item[1], os.R_OK)), None)

    def __str__(self) -> str:
        return f"database {self.database} on {' or '.join(self.hosts)}, role {self.role}"


def _describe_host(host: str, default_port: str) -> str:
    if host.startswith("/"):
        return f"socket directory {host} port {default_port}"
    name, colon, port = host.rpartition(":")
    is_address = ":" in name and not name.startswith("[")  # an IPv6 address without brackets and without a port
    if not colon or host.endswith("]") or is_address:
        return f"{host} port {default_port}"
    return f"{name} port {port or default_port}"


def check_server(connection: asyncpg.Connection) -> None:
    """Check the server's version and the encoding of the database, both of which PostgreSQL sends when it connects.

    Raises:
        UnsuitableServerError: the version is too old, or the encoding is not UTF8.
    """
    version = connection.get_server_version()
    if version.major < MIN_POSTGRES_VERSION:
        raise UnsuitableServerError(
            f"this is PostgreSQL {version.major}.{version.micro}, and version {MIN_POSTGRES_VERSION} or newer is "
            "needed. Upgrade the server, or correct DATABASE_URL."
        )
    encoding = getattr(connection.get_settings(), "server_encoding", REQUIRED_ENCODING)
    if encoding != REQUIRED_ENCODING:
        raise UnsuitableServerError(
            f"the encoding of this database is {encoding}, and {REQUIRED_ENCODING} is needed. Create a database with "
            f"CREATE DATABASE … ENCODING '{REQUIRED_ENCODING}' TEMPLATE template0."
        )


def explain_missing_timeouts(names: list[str]) -> str:
    """Return what to do if sessions behind a connection pooler lack the time limits of these names."""
    return (
        f"Through a connection pooler, timeouts have to be settings of the role, which lacks {', '.join(names)}. Run "
        "`patients-api migrate --serving-role …` with the URL of PostgreSQL itself, then make the pooler reconnect "
        "(PgBouncer: RECONNECT)."
    )


def _explain(error: Exception, target: _Target) -> str:  # noqa: PLR0911  # one for each kind of error
    """Return what is wrong and what to do."""
    if isinstance(error, UnsuitableServerError):
        return str(error)
    if isinstance(error, asyncpg.PostgresError):
        return _explain_refusal(error, target)
    if isinstance(error, OSError):
        return _explain_network_error(error, target)
    if isinstance(error, asyncpg.TargetServerAttributeNotMatched):
        return "no host is in the state that target_session_attrs in DATABASE_URL asks for. Start or promote a server."
    if isinstance(error, asyncpg.ClientConfigurationError):
        return f"{_first_line(error)}. {_SET_ROOT_CERTIFICATE if 'root certificate' in str(error) else _CORRECT_URL}"
    if isinstance(error, ValueError):  # its message might quote part of the password
        return _MALFORMED_URL
    return f"the connection failed ({type(error).__name__}): {_first_line(error)}. See the log of PostgreSQL."


def _explain_refusal(error: asyncpg.PostgresError, target: _Target) -> str:  # noqa: PLR0911  # one for each kind of error
    """Explain an error that PostgreSQL, or a pooler in front of it, sends instead of accepting the connection."""
    message = _first_line(error)
    if isinstance(error, asyncpg.InvalidPasswordError):
        return (
            "the password is wrong, missing or expired, or the role does not exist. Correct DATABASE_URL, or as an "
            rf"administrator run \password {target.role} in psql."
        )
    if isinstance(error, asyncpg.InvalidCatalogNameError) or "no such database" in message:
        return f"there is no such database. Correct DATABASE_URL, or run CREATE DATABASE {target.database}."
    if isinstance(error, asyncpg.InvalidAuthorizationSpecificationError):
        if "no encryption" in message:
            return "the server requires TLS. Set sslmode=verify-full with sslrootcert (or require) in DATABASE_URL."
        if "does not exist" in message:
            return f"there is no such role. Correct DATABASE_URL, or run CREATE ROLE {target.role} LOGIN PASSWORD '…'."
        if "pg_hba.conf" in message:
            return "pg_hba.conf on the server does not allow this connection. Add a line for this host, role, database."
    if isinstance(error, asyncpg.CannotConnectNowError):
        return "the server is starting, recovering or shutting down. Try again in a moment."
    if isinstance(error, asyncpg.TooManyConnectionsError):
        return (
            f"the server accepts no more connections ({message}). Raise this limit, or lower PATIENTS_POOL_SIZE or "
            "--workers."
        )
    if isinstance(error, asyncpg.ConnectionDoesNotExistError):
        return _NOT_POSTGRES
    return f"PostgreSQL refuses the connection: {message}. Correct DATABASE_URL, or the rights of the role."


def _explain_network_error(error: OSError, target: _Target) -> str:  # noqa: PLR0911  # one for each kind of error
    if isinstance(error, socket.gaierror):
        return "the host name is unknown. Correct the host in DATABASE_URL, or check the name service of this machine."
    if isinstance(error, ssl.SSLCertVerificationError):
        reason = error.verify_message.rstrip(".")
        return (
            f"the TLS certificate of the server is not accepted: {reason}. Correct the host, or set sslrootcert in "
            "DATABASE_URL to the certificate of the authority."
        )
    if isinstance(error, ssl.SSLError):
        return f"TLS failed ({error.reason}). Check sslmode and the certificates in DATABASE_URL."
    if "rejected SSL upgrade" in str(error):
        if target.sslmode in _OPTIONAL_TLS_MODES:  # a server that refuses TLS in words of the protocol is accepted
            return _NOT_POSTGRES
        return (
            "the server does not support TLS, which sslmode in DATABASE_URL requires. Turn on ssl in postgresql.conf; "
            "on a network that you trust, sslmode=disable is an alternative."
        )
    if isinstance(error, TimeoutError):
        return "there was no response in time. Check that the server runs and that no firewall is in between."
    if isinstance(error, ConnectionRefusedError) or _REFUSED in str(error):
        return "the connection was refused. Start PostgreSQL, or correct the host and port in DATABASE_URL."
    if (unreadable := target.unreadable_file()) is not None:
        return "the file {1} does not exist or cannot be read. Correct {0} in DATABASE_URL.".format(*unreadable)
    if isinstance(error, FileNotFoundError):
        return "there is no such socket. Start PostgreSQL, or correct the host and port in DATABASE_URL."
    reason = error.strerror or type(error).__name__
    return f"{reason}. Check the network, and the host and port in DATABASE_URL."


def _first_line(error: Exception) -> str:
    """Return the message of an error without the details on its other lines."""
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
