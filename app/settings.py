"""Every setting of the service, documented where it is declared.

`DATABASE_URL` is the name the field uses; everything else begins with `PATIENTS_`. A test holds the
README's table against this file.
"""

import os
import re
from functools import cached_property
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from app.fields.phones import SUPPORTED_REGIONS

ENVIRONMENT_PREFIX = "PATIENTS_"


def is_secure_url(url: str) -> bool:
    """Whether what is fetched from a URL comes from there: by https, or from this machine."""
    parts = urlsplit(url)
    is_local = parts.scheme == "http" and parts.hostname in {"127.0.0.1", "::1", "localhost"}
    return bool(parts.netloc) and (parts.scheme == "https" or is_local)


class InvalidSettingsError(Exception):
    """One or more environment variables cannot be used; the message names each, never its value."""


class Settings(BaseSettings):
    """What the environment may set. Read once, at start, by `Settings.load()`."""

    model_config = SettingsConfigDict(
        env_prefix=ENVIRONMENT_PREFIX, extra="ignore", frozen=True, hide_input_in_errors=True
    )

    database_url: SecretStr | None = Field(default=None, validation_alias=AliasChoices("DATABASE_URL", "database_url"))
    """PostgreSQL to use, `postgresql://…` or `postgres://…`, as libpq reads it; without it, an embedded one."""

    database_url_file: Path | None = Field(
        default=None, validation_alias=AliasChoices("DATABASE_URL_FILE", "database_url_file")
    )
    """A file that holds the URL instead: a mounted secret, which no environment shows."""

    data_dir: Path = Path(".data")
    """Where the embedded PostgreSQL keeps its data."""

    pool_size: int = Field(default=max(4, 2 * (os.cpu_count() or 1)), ge=1, le=1000)
    """Database connections per worker process: twice the cores, at least 4."""

    list_cap: int | None = Field(default=None, ge=1, le=10_000)
    """The most records that a list without `limit` returns, up to 10,000; the rest is behind its `Link`."""

    phone_region: str = "ZA"
    """The country of telephone numbers that are written without a country's code, by ISO 3166-1: `ZA`."""

    require_if_match: bool = False
    """Whether PUT, PATCH and DELETE must carry `If-Match` (428 without it)."""

    cors_origins: Annotated[tuple[str, ...], NoDecode] = ()
    """Browser origins that may call the service, separated by commas: `https://app.example.org,http://localhost:5173`."""

    auth: Literal["off", "required"] | None = None
    """Whether requests need credentials; `off` only where it is said, or for the embedded database on this machine."""

    oidc_issuer: str | None = None
    """The identity provider whose access tokens are accepted, by its issuer URL."""

    oidc_audience: str | None = None
    """What those tokens must have as their audience; needed with `PATIENTS_OIDC_ISSUER`."""

    oidc_scope_claim: str = "scope"
    """The claim that holds a person's scopes: a list, or text with spaces between."""

    oidc_hospitals_claim: str | None = None
    """The claim that holds the hospitals a person is limited to; set, a token without it sees no patient."""

    rate_limit: str | None = None
    """Requests of each principal and worker process, as `1200/minute`; `off` for none."""

    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = ()
    """Names by which the service may be called, separated by commas, `*.example.org` too; without it, any."""

    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = ()
    """Addresses or networks of proxies whose `X-Forwarded-…` headers are believed, separated by commas."""

    drain_seconds: float = Field(default=1.0, ge=0, le=300)
    """Seconds for which a service that was told to stop still serves, but answers `/readyz` with 503."""

    client_timeout_seconds: float = Field(default=30.0, gt=0, le=3600)
    """Seconds that a client has for sending a request, and for taking some of its answer; at most twice as many."""

    slow_query_ms: int = Field(default=500, ge=1, le=60_000)
    """Milliseconds from which on a statement to the database is logged as a warning."""

    audit_reads: bool | None = None
    """Whether reading patients and profiles is put on record, as changing them always is."""

    audit_days: int = Field(default=2190, ge=1, le=36_500)
    """Days for which the audit is kept, six years (HIPAA, 164.316(b)(2)); then `patients-api audit prune`."""

    @field_validator("phone_region")
    @classmethod
    def _check_phone_region(cls, region: str) -> str:
        if region.upper() not in SUPPORTED_REGIONS:
            raise ValueError("must be a country's two letters, such as ZA")
        return region.upper()

    @field_validator("database_url")
    @classmethod
    def _check_database_url(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None and not url.get_secret_value().startswith(("postgresql://", "postgres://")):
            raise ValueError("must begin with postgresql:// or postgres://")
        try:
            _ = url and urlsplit(url.get_secret_value()).port
        except ValueError:
            # not the error's own words: they quote a part of the password
            raise ValueError("is no URL: in a password, write / as %2F, # as %23, ? as %3F and @ as %40") from None
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
            raise ValueError("DATABASE_URL_FILE names no file that can be read") from None

    @field_validator("allowed_hosts", "trusted_proxies", mode="before")
    @classmethod
    def _split_commas(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("allowed_hosts")
    @classmethod
    def _check_allowed_hosts(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        if not all(re.fullmatch(r"(\*\.)?[A-Za-z0-9.:\[\]-]+", host) for host in hosts):
            raise ValueError("must be names such as patients.example.org or *.example.org")
        return hosts

    @field_validator("trusted_proxies")
    @classmethod
    def _check_trusted_proxies(cls, networks: tuple[str, ...]) -> tuple[str, ...]:
        try:
            parsed = [ip_network(network) for network in networks]
        except ValueError:
            raise ValueError("must be addresses or networks such as 10.0.0.0/8") from None
        if any(network.prefixlen == 0 for network in parsed):
            raise ValueError("must not be everybody")
        return networks

    @field_validator("rate_limit")
    @classmethod
    def _check_rate_limit(cls, value: str | None) -> str | None:
        if value is not None and value != "off" and re.fullmatch(r"[1-9][0-9]*/(second|minute|hour)", value) is None:
            raise ValueError("must be a number of requests and a time, such as 1200/minute, or off")
        return value

    @field_validator("oidc_issuer")
    @classmethod
    def _check_oidc_issuer(cls, value: str | None) -> str | None:
        if value is not None and not is_secure_url(value):
            raise ValueError("must be an https:// URL")
        return value

    @model_validator(mode="after")
    def _check_oidc_audience(self) -> Self:
        if (self.oidc_issuer is None) != (self.oidc_audience is None):
            raise ValueError("PATIENTS_OIDC_ISSUER and PATIENTS_OIDC_AUDIENCE go together")
        return self

    @property
    def is_local_only(self) -> bool:
        """Whether nothing that is set says that others than this machine's user are to reach the service."""
        return self.auth is None and not (self.oidc_issuer or self.trusted_proxies or self.allowed_hosts)

    @cached_property  # asked for at each request
    def auth_required(self) -> bool:
        """Whether requests need credentials."""
        return self.auth != "off"

    @cached_property
    def reads_audited(self) -> bool:
        """Whether reading is put on record: by default where it is known who reads."""
        return self.auth_required if self.audit_reads is None else self.audit_reads

    @property
    def effective_rate_limit(self) -> str | None:
        """The rate limit, if there is one: not by default where nobody has to say who asks."""
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
        """Read the environment.

        Raises:
            InvalidSettingsError: a value cannot be used, or a `PATIENTS_…` variable is unknown (it may be mistyped).
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
