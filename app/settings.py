"""All settings of the service, each documented where it is declared.

The environment variables `DATABASE_URL` and `DATABASE_URL_FILE` have their conventional names. The names of all other
variables begin with `PATIENTS_`. A test checks that the table of `docs/deploying.md` lists the settings of this file in
the same order.
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

from app.locality import Locality
from app.locality.short_forms import short_forms
from app.suggestions import suggestion

ENVIRONMENT_PREFIX = "PATIENTS_"


def is_secure_url(url: str) -> bool:
    """Return whether `url` uses https or points to this machine, so that responses from it are authentic."""
    parts = urlsplit(url)
    is_local = parts.scheme == "http" and parts.hostname in {"127.0.0.1", "::1", "localhost"}
    return bool(parts.netloc) and (parts.scheme == "https" or is_local)


_MESSAGES = {
    "int_parsing": "must be a whole number",
    "float_parsing": "must be a number",
    "bool_parsing": "must be true or false",
    "literal_error": "must be {expected}",
    "greater_than_equal": "must be at least {ge}",
    "greater_than": "must be more than {gt}",
    "less_than_equal": "must be at most {le}",
}
"""What is allowed, by the type of Pydantic's error. Validators of this file have messages of their own."""


class InvalidSettingsError(Exception):
    """One or more environment variables are invalid. The message names these variables, but contains no values."""


class Settings(BaseSettings):
    """The settings of the service. `Settings.load()` reads them once, at startup, from environment variables."""

    model_config = SettingsConfigDict(
        env_prefix=ENVIRONMENT_PREFIX, extra="ignore", frozen=True, hide_input_in_errors=True
    )

    database_url: SecretStr | None = Field(default=None, validation_alias=AliasChoices("DATABASE_URL", "database_url"))
    """The PostgreSQL database, as a libpq URL `postgresql://…` or `postgres://…`. If this is unset, an embedded
    server is used."""

    database_url_file: Path | None = Field(
        default=None, validation_alias=AliasChoices("DATABASE_URL_FILE", "database_url_file")
    )
    """A file with the database URL, such as a mounted secret, so that the URL does not appear in the environment."""

    data_dir: Path = Path(".data")
    """The directory in which the embedded PostgreSQL stores its data."""

    pool_size: int = Field(default=max(4, 2 * (os.cpu_count() or 1)), ge=1, le=1000)
    """Maximum number of database connections per worker process. The default is twice the number of cores, but at least
    4."""

    list_cap: int | None = Field(default=None, ge=1, le=10_000)
    """Maximum number of records in the response to a list request without `limit`. The setting is at most 10,000. The
    `Link` header of the response leads to the next records. If this is unset, the response contains the whole list."""

    phone_region: str = "ZA"
    """Country (ISO 3166-1 code, such as `ZA`) that is assumed for phone numbers without a country code."""

    short_forms_file: Path | None = None
    """A file with further short forms of names, such as `Bob` for `Robert`, that a search finds. Each line has the form
    `robert, roberta: bob, bobby`."""
    duplicate_check: Literal["queue", "refuse"] = "queue"
    """What happens if a new patient may be registered already: `queue` registers it and adds the pair to the queue of
    possible duplicates, `refuse` responds with 409. The header `Duplicate-Check` of a request takes precedence."""

    require_if_match: bool = False
    """Whether PUT, PATCH and DELETE requests must have an `If-Match` header. If so, requests without it get a 428."""

    cors_origins: Annotated[tuple[str, ...], NoDecode] = ()
    """Browser origins that may call the service, comma-separated: `https://app.example.org,http://localhost:5173`."""

    auth: Literal["off", "required"] | None = None
    """Whether requests need credentials: `required` or `off`. If this is unset, they do, with one exception: `serve`
    turns authentication off if it uses the embedded database, listens only on this machine, and no setting implies
    remote clients."""

    oidc_issuer: str | None = None
    """Issuer URL of the identity provider whose access tokens are accepted. If unset, only API keys are accepted."""

    oidc_audience: str | None = None
    """The audience that access tokens must have. It must be set if and only if `PATIENTS_OIDC_ISSUER` is set."""

    oidc_scope_claim: str = "scope"
    """Name of the token claim that contains a person's scopes, as a list or as space-separated text."""

    oidc_hospitals_claim: str | None = None
    """Name of the token claim that contains the hospitals to which a person is restricted. If this is set, a token
    without the claim gives access to no patient, unless the token has the scope `admin`."""

    rate_limit: str | None = None
    """Maximum rate of requests per principal in each worker process, such as `1200/minute`, or `off` for no limit."""

    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = ()
    """Host names under which clients may call the service, comma-separated. `*.example.org` stands for all subdomains.
    If this is unset, any host name is allowed."""

    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = ()
    """IP addresses or networks of the proxies that are trusted to send `X-Forwarded-…` headers, comma-separated."""

    drain_seconds: float = Field(default=1.0, ge=0, le=300)
    """Seconds for which a stopping service still serves requests, while `/readyz` already returns 503."""

    client_timeout_seconds: float = Field(default=30.0, gt=0, le=3600)
    """Seconds that a client has to send a request, and to receive each 16 KiB of its response. A stalled client is
    disconnected after at most twice this time."""

    transaction_batching: bool = True
    """Whether concurrent changes of the same kind share a transaction, which multiplies write throughput."""

    slow_query_ms: int = Field(default=500, ge=1, le=60_000)
    """Duration in milliseconds. A database statement that takes at least this long is logged as a warning."""

    audit_reads: bool | None = None
    """Whether reads of patients and profiles are audited. Changes to them are always audited."""

    audit_days: int = Field(default=2190, ge=1, le=36_500)
    """Minimum number of days for which audit entries are kept, by default six years (HIPAA, 164.316(b)(2)). The command
    `patients-api audit prune` removes the entries of a month when all of them are older."""

    changes_days: int = Field(default=30, ge=1, le=36_500)
    """Number of days for which the change feed keeps changes. A client that follows less often needs a new copy."""

    changes_count: int = Field(default=2_000_000, ge=1)
    """Maximum number of changes that the change feed keeps, whatever their age. A million take about 400 MB."""

    @field_validator("phone_region")
    @classmethod
    def _check_phone_region(cls, region: str) -> str:
        if region.upper() not in SUPPORTED_REGIONS:
            raise ValueError("must be a two-letter country code (ISO 3166-1), such as ZA")
        return region.upper()

    @field_validator("short_forms_file")
    @classmethod
    def _check_short_forms_file(cls, path: Path | None) -> Path | None:
        try:
            short_forms(path)
        except OSError:
            raise ValueError("does not name a readable file") from None
        except UnicodeDecodeError:
            raise ValueError("must name a text file in UTF-8") from None
        return path

    @property
    def locality(self) -> Locality:
        """The place where the service is used."""
        return Locality(self.phone_region, short_forms(self.short_forms_file))

    @field_validator("database_url")
    @classmethod
    def _check_database_url(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None and not url.get_secret_value().startswith(("postgresql://", "postgres://")):
            raise ValueError("must begin with postgresql:// or postgres://")
        try:
            _ = url and urlsplit(url.get_secret_value()).port
        except ValueError:
            # the message of this error is not used, because it quotes part of the password
            raise ValueError(
                "is not a URL: the port is a number up to 65535, and in a password, / is written as %2F, # as %23, "
                "? as %3F and @ as %40"
            ) from None
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
            raise ValueError("Set DATABASE_URL or DATABASE_URL_FILE, not both")
        try:
            return {**values, "DATABASE_URL": Path(path).read_text().strip()}
        except (OSError, ValueError):
            raise ValueError("DATABASE_URL_FILE: must name a readable file") from None

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
            raise ValueError("Set both PATIENTS_OIDC_ISSUER and PATIENTS_OIDC_AUDIENCE, or neither")
        return self

    @property
    def is_local_only(self) -> bool:
        """Whether the settings for authentication, proxies and host names are all unset.

        If any of them is set, clients on other machines are expected.
        """
        return self.auth is None and not (self.oidc_issuer or self.trusted_proxies or self.allowed_hosts)

    @cached_property  # cached because every request reads it
    def auth_required(self) -> bool:
        """Whether requests need credentials, which is the case unless `auth` is `off`."""
        return self.auth != "off"

    @cached_property
    def reads_audited(self) -> bool:
        """Whether reads are audited.

        By default, they are audited only if requests need credentials, because otherwise the reader is not known.
        """
        return self.auth_required if self.audit_reads is None else self.audit_reads

    @property
    def effective_rate_limit(self) -> str | None:
        """The rate limit that applies, such as `1200/minute`, or None if there is no limit.

        By default, there is no limit if requests need no credentials.
        """
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
            InvalidSettingsError: a value is invalid, or a `PATIENTS_…` variable does not belong to any setting. Its
                name may be mistyped.
        """
        valid_names = {
            f"{ENVIRONMENT_PREFIX}{name}".upper() for name in cls.model_fields if not name.startswith("database_url")
        }
        unknown_names = sorted(
            name
            for name in os.environ
            if name.upper().startswith(ENVIRONMENT_PREFIX) and name.upper() not in valid_names
        )
        error_messages = [
            f"{name}: there is no such setting; {suggestion(name, valid_names, 'docs/deploying.md lists all settings')}"
            for name in unknown_names
        ]
        try:
            settings = cls()
        except ValidationError as error:
            for item in error.errors(include_input=False, include_url=False):
                message = _MESSAGES.get(item["type"], "").format_map(item.get("ctx", {}))
                message = message or item["msg"].removeprefix("Value error, ")
                name = str(item["loc"][0]).upper() if item["loc"] else ""
                if name and not name.startswith("DATABASE_URL"):
                    name = f"{ENVIRONMENT_PREFIX}{name.removeprefix(ENVIRONMENT_PREFIX)}"
                error_messages.append(f"{name}: {message}" if name else message)
            raise InvalidSettingsError("\n".join(error_messages)) from None
        if error_messages:
            raise InvalidSettingsError("\n".join(error_messages))
        return settings
