"""All settings of the service, documented where they are declared.

`DATABASE_URL` has its conventional name; all other environment variables begin with `PATIENTS_`. A test compares the
README's table with this file.
"""

import os
import re
from functools import cached_property
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from phonenumbers import SUPPORTED_REGIONS
from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

ENVIRONMENT_PREFIX = "PATIENTS_"


def is_secure_url(url: str) -> bool:
    """Return whether responses from `url` are authentic, because it uses https or points to this machine."""
    parts = urlsplit(url)
    is_local = parts.scheme == "http" and parts.hostname in {"127.0.0.1", "::1", "localhost"}
    return bool(parts.netloc) and (parts.scheme == "https" or is_local)


class InvalidSettingsError(Exception):
    """One or more environment variables are invalid. The message names each of them, but never a value."""


class Settings(BaseSettings):
    """The settings that environment variables may set, read once at startup by `Settings.load()`."""

    model_config = SettingsConfigDict(
        env_prefix=ENVIRONMENT_PREFIX, extra="ignore", frozen=True, hide_input_in_errors=True
    )

    database_url: SecretStr | None = Field(default=None, validation_alias=AliasChoices("DATABASE_URL", "database_url"))
    """The PostgreSQL database, as a libpq URL `postgresql://…` or `postgres://…`; if unset, an embedded server."""

    database_url_file: Path | None = Field(
        default=None, validation_alias=AliasChoices("DATABASE_URL_FILE", "database_url_file")
    )
    """A file that contains the database URL, such as a mounted secret, which does not appear in the environment."""

    data_dir: Path = Path(".data")
    """The directory in which the embedded PostgreSQL stores its data."""

    pool_size: int = Field(default=max(4, 2 * (os.cpu_count() or 1)), ge=1, le=1000)
    """Maximum number of database connections per worker process; by default twice the number of cores, at least 4."""

    list_cap: int | None = Field(default=None, ge=1, le=10_000)
    """Maximum number of records in a list without `limit`, up to 10,000; its `Link` header leads to the rest."""

    phone_region: str = "ZA"
    """Country (ISO 3166-1 code, such as `ZA`) of phone numbers that are written without a country code."""

    require_if_match: bool = False
    """Whether PUT, PATCH and DELETE requests must carry `If-Match` (428 without it)."""

    cors_origins: Annotated[tuple[str, ...], NoDecode] = ()
    """Browser origins that may call the service, comma-separated: `https://app.example.org,http://localhost:5173`."""

    auth: Literal["off", "required"] | None = None
    """Whether requests need credentials. They do unless this is `off`, which `serve` sets by itself only for the
    embedded database on this machine."""

    oidc_issuer: str | None = None
    """Issuer URL of the identity provider; its access tokens are accepted."""

    oidc_audience: str | None = None
    """The audience that these tokens must have; required with `PATIENTS_OIDC_ISSUER`."""

    oidc_scope_claim: str = "scope"
    """The claim that contains a person's scopes, as a list or as space-separated text."""

    oidc_hospitals_claim: str | None = None
    """The claim that contains the hospitals a person is restricted to. If this is set, a token without the claim gives
    access to no patient, unless it has the scope `admin`."""

    rate_limit: str | None = None
    """Requests allowed per principal and worker process, such as `1200/minute`; `off` for no limit."""

    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = ()
    """Host names under which the service may be called, comma-separated, also as `*.example.org`; if unset, any."""

    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = ()
    """IP addresses or networks of the proxies that are trusted to send `X-Forwarded-…` headers, comma-separated."""

    drain_seconds: float = Field(default=1.0, ge=0, le=300)
    """Seconds for which a stopping service still serves requests while `/readyz` returns 503."""

    client_timeout_seconds: float = Field(default=30.0, gt=0, le=3600)
    """Seconds that a client has to send a request, and to receive each part of its response; a stalled client is
    disconnected after at most twice this time."""

    transaction_batching: bool = True
    """Whether concurrent changes of the same kind share a transaction, which multiplies their rate."""

    slow_query_ms: int = Field(default=500, ge=1, le=60_000)
    """Duration in milliseconds from which a database statement is logged as a warning."""

    audit_reads: bool | None = None
    """Whether reads of patients and profiles are audited, as their changes always are."""

    audit_days: int = Field(default=2190, ge=1, le=36_500)
    """Days for which audit entries are kept: six years (HIPAA, 164.316(b)(2)), then `patients-api audit prune`."""

    @field_validator("phone_region")
    @classmethod
    def _check_phone_region(cls, region: str) -> str:
        if region.upper() not in SUPPORTED_REGIONS:
            raise ValueError("must be a two-letter country code (ISO 3166-1), such as ZA")
        return region.upper()

    @field_validator("database_url")
    @classmethod
    def _check_database_url(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None and not url.get_secret_value().startswith(("postgresql://", "postgres://")):
            raise ValueError("must begin with postgresql:// or postgres://")
        try:
            _ = url and urlsplit(url.get_secret_value()).port
        except ValueError:
            # not the error's own message, because it quotes a part of the password
            raise ValueError("is not a URL: in a password, write / as %2F, # as %23, ? as %3F and @ as %40") from None
        return url

    @field_validator("data_dir", mode="before")
    @classmethod
    def _check_data_dir(cls, path: object) -> object:
        if path == "":
            raise ValueError("must not be empty")
        return path

    @model_validator(mode="before")
    @classmethod
    def _read_database_url_file(cls, values: dict[str, Any]) -> dict[str, Any]:
        path = values.get("DATABASE_URL_FILE")
        if not path:
            return values
        if values.get("DATABASE_URL"):
            raise ValueError("set DATABASE_URL or DATABASE_URL_FILE, not both")
        try:
            return {**values, "DATABASE_URL": Path(path).read_text().strip()}
        except (OSError, ValueError):
            raise ValueError("DATABASE_URL_FILE does not name a readable file") from None

    @field_validator("allowed_hosts", "trusted_proxies", mode="before")
    @classmethod
    def _split_commas(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("allowed_hosts")
    @classmethod
    def _check_allowed_hosts(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        if not all(re.fullmatch(r"(\*\.)?[A-Za-z0-9.:\[\]-]+", host) for host in hosts):
            raise ValueError("must be host names such as patients.example.org or *.example.org")
        return hosts

    @field_validator("trusted_proxies")
    @classmethod
    def _check_trusted_proxies(cls, networks: tuple[str, ...]) -> tuple[str, ...]:
        try:
            parsed = [ip_network(network) for network in networks]
        except ValueError:
            raise ValueError("must be IP addresses or networks such as 10.0.0.0/8") from None
        if any(network.prefixlen == 0 for network in parsed):
            raise ValueError("must not include a network of all addresses")
        return networks

    @field_validator("rate_limit")
    @classmethod
    def _check_rate_limit(cls, value: str | None) -> str | None:
        if value is not None and value != "off" and re.fullmatch(r"[1-9][0-9]*/(second|minute|hour)", value) is None:
            raise ValueError("must be a number of requests per second, minute or hour, such as 1200/minute, or off")
        return value

    @field_validator("oidc_issuer")
    @classmethod
    def _check_oidc_issuer(cls, value: str | None) -> str | None:
        if value is not None and not is_secure_url(value):
            raise ValueError("must be an https:// URL, or an http:// URL of this machine")
        return value

    @model_validator(mode="after")
    def _check_oidc_audience(self) -> Self:
        if (self.oidc_issuer is None) != (self.oidc_audience is None):
            raise ValueError("set both PATIENTS_OIDC_ISSUER and PATIENTS_OIDC_AUDIENCE, or neither")
        return self

    @property
    def is_local_only(self) -> bool:
        """Whether no setting implies that anyone but this machine's user can reach the service."""
        return self.auth is None and not (self.oidc_issuer or self.trusted_proxies or self.allowed_hosts)

    @cached_property  # read at each request
    def auth_required(self) -> bool:
        """Whether requests need credentials."""
        return self.auth != "off"

    @cached_property
    def reads_audited(self) -> bool:
        """Whether reads are audited; by default if requests need credentials, because only then is the reader known."""
        return self.auth_required if self.audit_reads is None else self.audit_reads

    @property
    def effective_rate_limit(self) -> str | None:
        """The rate limit, or None for no limit. By default there is none if requests need no credentials."""
        limit = self.rate_limit or ("1200/minute" if self.auth_required else "off")
        return None if limit == "off" else limit

    @field_validator("cors_origins", mode="before")
    @classmethod
    def _split_cors_origins(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        origins = tuple(origin.strip() for origin in value.split(",") if origin.strip())
        for origin in origins:
            parts = urlsplit(origin)
            if parts.scheme not in {"http", "https"} or not parts.netloc or parts.path or parts.query:
                raise ValueError("must be origins such as https://app.example.org, without a path")
        return origins

    @classmethod
    def load(cls) -> Self:
        """Return the settings that the environment variables specify.

        Raises:
            InvalidSettingsError: a value is invalid, or a `PATIENTS_…` variable is unknown (it may be mistyped).
        """
        valid_names = {
            f"{ENVIRONMENT_PREFIX}{name}".upper() for name in cls.model_fields if not name.startswith("database_url")
        }
        unknown_names = sorted(
            name
            for name in os.environ
            if name.upper().startswith(ENVIRONMENT_PREFIX) and name.upper() not in valid_names
        )
        error_messages = [f"{name}: there is no such setting" for name in unknown_names]
        try:
            settings = cls()
        except ValidationError as error:
            for item in error.errors(include_input=False, include_url=False):
                message = item["msg"].removeprefix("Value error, ")
                name = str(item["loc"][0]).upper() if item["loc"] else ""
                if name and not name.startswith("DATABASE_URL"):
                    name = f"{ENVIRONMENT_PREFIX}{name.removeprefix(ENVIRONMENT_PREFIX)}"
                error_messages.append(f"{name}: {message}" if name else message)
            raise InvalidSettingsError("\n".join(error_messages)) from None
        if error_messages:
            raise InvalidSettingsError("\n".join(error_messages))
        return settings
