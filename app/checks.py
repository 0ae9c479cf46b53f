"""Checks of what an operator can put in order: disk, database, schema, role, clock and identity provider.

`patients-api check` prints them.
"""

import json
import re
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal, NamedTuple

import asyncpg
from sqlalchemy import func, select, text

import app.models  # noqa: F401  # declares the tables on which rights are checked
from app.connection_errors import describe_database, explain_missing_timeouts
from app.counts import counted
from app.db.base import Base
from app.db.connection import Connection
from app.db.database import Database
from app.db.errors import READ_ONLY_MESSAGE
from app.db.pool import missing_timeouts
from app.db.rights import distributed_tables, serving_grants
from app.db.schema_version import explain_schema, is_newer, read_revisions
from app.errors import UnavailableError
from app.settings import Settings

MAX_CLOCK_DIFFERENCE_SECONDS = 5.0
"""Difference between the clocks of the database and of this machine up to which the check succeeds. With a larger one,
times in the log and in the journal cannot be compared."""
MIN_FREE_BYTES = 1 << 30
"""Free space that the embedded database must have: its server stops if the disk is full."""


class Check(NamedTuple):
    """The result of one check. The explanation of a failed check says what to do."""

    name: str
    status: Literal["ok", "failed", "not used"]
    explanation: str


def check_disk(settings: Settings) -> Check:
    """Check that the disk of the embedded database has free space."""
    if settings.database_url is not None:
        return Check("disk", "not used", "The data are on the server of DATABASE_URL.")
    directory = settings.data_dir.resolve()
    while not directory.exists():
        directory = directory.parent
    free_bytes = shutil.disk_usage(directory).free
    free_space = f"{free_bytes / (1 << 30):,.1f} GiB are free in {directory}"
    if free_bytes < MIN_FREE_BYTES:
        return Check("disk", "failed", f"Only {free_space}: free some space, or set PATIENTS_DATA_DIR to another disk.")
    return Check("disk", "ok", f"{free_space}.")


async def check_database(url: str) -> list[Check]:
    """Run the checks that need the database. If it cannot be reached, the result is one failed check."""
    checks: list[Check] = []
    async with Database(url, pool_size=1) as database:
        try:
            async with database.read() as connection:
                is_read_only = (await connection.execute(_SELECT_IS_READ_ONLY)).scalar_one()
            if is_read_only:
                checks.append(Check("database", "failed", READ_ONLY_MESSAGE))
            else:
                checks.append(Check("database", "ok", f"The {describe_database(url)}, responds."))
            for check in (_check_version, _check_schema, _check_role, _check_clock):
                async with database.read() as connection:
                    checks.append(await check(connection))
        except UnavailableError as error:
            explanation = getattr(error, "operator_message", str(error))
            checks.append(Check("database", "failed", explanation))
    return checks


_SELECT_MISSING_TABLES = text(
    "SELECT name FROM unnest(CAST(:tables AS text[])) AS name WHERE to_regclass('public.' || name) IS NULL ORDER BY 1"
)
_SELECT_IS_READ_ONLY = text("SELECT pg_is_in_recovery() OR current_setting('default_transaction_read_only')::boolean")


async def _check_version(connection: Connection) -> Check:
    # an older version than the service needs is refused when the connection is opened
    version = (await connection.execute(text("SHOW server_version"))).scalar_one()
    return Check("PostgreSQL", "ok", f"Version {version}.")


async def missing_tables(connection: Connection) -> Sequence[str]:
    """Return the names of the tables of this version that the database does not have, in alphabetical order."""
    names = [table.name for table in Base.metadata.sorted_tables]
    return (await connection.execute(_SELECT_MISSING_TABLES, {"tables": names})).scalars().all()


async def _check_schema(connection: Connection) -> Check:
    try:
        revisions = await read_revisions(connection)
    except asyncpg.InsufficientPrivilegeError:
        return Check("schema", "failed", "The role may not read the revision: see the line of the role.")
    if (problem := explain_schema(revisions)) is not None:
        return Check("schema", "failed", problem)
    if is_newer(revisions[0]):
        return Check("schema", "ok", f"Revision {revisions[0]} is of a newer version, with which this version works.")
    if missing := await missing_tables(connection):
        explanation = (
            f"Tables that revision {revisions[0]} has are missing ({', '.join(missing)}): restore the database from a "
            "backup."
        )
        return Check("schema", "failed", explanation)
    return Check("schema", "ok", f"Revision {revisions[0]} is the newest of this version.")


_SELECT_ROLE = text(
    """
    SELECT current_user, (SELECT pg_has_role(relowner, 'USAGE') FROM pg_class
        WHERE relname = 'alembic_version' AND relnamespace = 'public'::regnamespace),
        has_schema_privilege('public', 'CREATE')
    """
)
"""Selects the role, whether it owns the tables (null if there are none), and whether it may create tables."""

_SELECT_MISSING_RIGHTS = text(
    """
    SELECT privilege || coalesce(' (' || needed.attname || ')', '') || ' on ' || relname
    FROM unnest(CAST(:tables AS text[]), CAST(:columns AS text[]), CAST(:privileges AS text[]))
        WITH ORDINALITY AS needed (relname, attname, privilege, ordinal)
    JOIN pg_class USING (relname)
    LEFT JOIN pg_attribute ON attrelid = pg_class.oid AND pg_attribute.attname = needed.attname
    WHERE relnamespace = 'public'::regnamespace AND NOT
        CASE WHEN relkind = 'S' THEN has_sequence_privilege(pg_class.oid, privilege)
        WHEN needed.attname IS NULL THEN has_table_privilege(pg_class.oid, privilege)
        ELSE has_column_privilege(pg_class.oid, attnum, privilege) END
    ORDER BY ordinal
    """
)


_RIGHT_PATTERN = re.compile(r"(\w+)(?: \(([^)]*)\))?")
"""Matches one right of a GRANT, such as `SELECT` or `UPDATE (last_used)`, with its columns."""


async def _check_role(connection: Connection) -> Check:
    role, is_owner, may_create = (await connection.execute(_SELECT_ROLE)).one()
    if is_owner is None and not may_create:
        explanation = f"{role} may not create tables: use the DATABASE_URL of the role that owns the database."
        return Check("role", "failed", explanation)
    if is_owner is None:
        return Check("role", "ok", f"{role} may create the tables.")
    if missing := await missing_timeouts(connection):
        return Check("role", "failed", explain_missing_timeouts(missing))
    distributed = await distributed_tables(connection)
    rights = [
        (grant.relation, column, privilege)
        for table in Base.metadata.sorted_tables
        for grant in serving_grants(table, is_distributed=table.name in distributed)
        for privilege, columns in _RIGHT_PATTERN.findall(grant.rights)
        for column in (columns.split(", ") if columns else [None])
    ]
    tables, columns, privileges = (list(values) for values in zip(*rights, strict=True))
    parameters = {"tables": tables, "columns": columns, "privileges": privileges}
    missing_rights = (await connection.execute(_SELECT_MISSING_RIGHTS, parameters)).scalars().all()
    if missing_rights:
        others = f" and {counted(len(missing_rights) - 1, 'other right')}" if len(missing_rights) > 1 else ""
        explanation = (
            f"{role} lacks {missing_rights[0]}{others}, which `serve` needs: as the owner of the tables, run "
            f"`patients-api migrate --serving-role {role}`."
        )
        return Check("role", "failed", explanation)
    if is_owner:
        return Check("role", "ok", f"{role} has the rights of the owner of the tables, for all commands.")
    return Check("role", "ok", f"{role} has the rights that `serve` needs, and may not migrate.")


async def _check_clock(connection: Connection) -> Check:
    sent_at = datetime.now(UTC)
    database_time: datetime = (await connection.execute(select(func.clock_timestamp()))).scalar_one()
    received_at = datetime.now(UTC)
    seconds = (database_time - (sent_at + (received_at - sent_at) / 2)).total_seconds()
    difference = (
        f"The clock of the database is {abs(seconds):.1f} s {'ahead of' if seconds > 0 else 'behind'} this machine's"
    )
    if abs(seconds) > MAX_CLOCK_DIFFERENCE_SECONDS:
        return Check("clock", "failed", f"{difference}: synchronize both by NTP.")
    return Check("clock", "ok", f"{difference}.")


def _explain_fetch_error(error: Exception) -> str:
    if isinstance(error, TimeoutError) or type(error).__name__.endswith("Timeout"):
        return "it does not respond in time"
    if isinstance(error, json.JSONDecodeError):
        return "its response is not JSON"
    if isinstance(error, LookupError | TypeError):
        return f"its response lacks {error}"
    message = str(error) or type(error).__name__
    return re.sub(r"^\[Errno -?\d+\] ", "", message)  # such as "Connection refused", in httpx's errors


async def check_identity_provider(settings: Settings) -> Check:
    """Check that the identity provider of the settings, if there is one, responds and has signing keys."""
    name = "identity provider"
    if settings.oidc_issuer is None:
        return Check(name, "not used", "PATIENTS_OIDC_ISSUER is not set.")
    from app.auth.oidc import FETCH_ERRORS, IdentityProvider  # noqa: PLC0415  # imported only if there is a provider

    provider = IdentityProvider.from_settings(settings)
    try:
        signing_keys = await provider.fetch_signing_keys()
    except FETCH_ERRORS as error:
        reason = _explain_fetch_error(error)
        explanation = (
            f"The keys of {provider.issuer} cannot be fetched ({reason}): check PATIENTS_OIDC_ISSUER and the network."
        )
        return Check(name, "failed", explanation)
    finally:
        await provider.close()
    if not signing_keys:
        return Check(name, "failed", f"{provider.issuer} has no usable signing key: see the settings of the provider.")
    return Check(name, "ok", f"{provider.issuer} responds; usable signing keys: {len(signing_keys)}.")
