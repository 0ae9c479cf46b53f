"""`patients-api keys`: create, list and revoke API keys."""

import argparse
import json
from collections.abc import Collection
from datetime import UTC, datetime, time

from sqlalchemy import select

from app.auth import keys
from app.auth.scopes import Scope
from app.cli.database import DATABASE_ERRORS, run_in_transaction
from app.db.connection import Connection
from app.models import Hospital
from app.suggestions import suggestion


class UnknownHospitalError(Exception):
    """Nothing can be restricted to a hospital that does not exist. The message names the hospital."""


USER_ERRORS = (*DATABASE_ERRORS, keys.KeyNameTakenError, UnknownHospitalError)
ROW_FORMAT = "{:<24}{:<12}{:<12}{:<12}{}"


def run(arguments: argparse.Namespace) -> int:
    """Create, list or revoke keys. Return 0, or 1 if there is no key to revoke."""
    status: int = {"create": _create, "list": _list, "revoke": _revoke}[arguments.action](arguments)
    return status


def _create(arguments: argparse.Namespace) -> int:
    expires = arguments.expires and datetime.combine(arguments.expires, time.max, UTC)
    scopes = [Scope(scope) for scope in arguments.scope]

    async def work(connection: Connection) -> str:
        await check_hospitals(connection, arguments.hospital or (), "so no key was created")
        return await keys.create(connection, arguments.name, scopes, arguments.hospital, expires)

    print(run_in_transaction(work))
    return 0


async def check_hospitals(connection: Connection, unique_ids: Collection[str], consequence: str) -> None:
    """Check that all hospitals exist. The message of the error ends with `consequence`.

    Raises:
        UnknownHospitalError: a hospital does not exist.
    """
    if not unique_ids:
        return
    known_ids = (await connection.execute(select(Hospital.unique_id).order_by(Hospital.unique_id))).scalars().all()
    for unique_id in unique_ids:
        if unique_id not in known_ids:
            hint = suggestion(unique_id, known_ids, "`patients-api export --resource hospitals` lists all")
            raise UnknownHospitalError(f"There is no hospital {unique_id}, {consequence}; {hint}")


def _list(arguments: argparse.Namespace) -> int:
    api_keys = run_in_transaction(keys.list_keys)
    if arguments.json:
        print(json.dumps([dict(key) for key in api_keys], default=datetime.isoformat, indent=2, ensure_ascii=False))
        return 0
    print(ROW_FORMAT.format("name", "created", "expires", "last used", "scopes"))
    for key in api_keys:
        dates = [key[name].date().isoformat() if key[name] else "-" for name in ("created", "expires", "last_used")]
        notes = [f"hospitals: {' '.join(key['hospitals'])}"] if key["hospitals"] is not None else []
        notes += ["REVOKED"] if key["revoked"] else []
        print(ROW_FORMAT.format(key["name"], *dates, ", ".join([" ".join(key["scopes"]), *notes])))
    return 0


def _revoke(arguments: argparse.Namespace) -> int:
    if run_in_transaction(lambda connection: keys.revoke(connection, arguments.name)):
        print("Revoked.")
        return 0
    print("There is no key with this name, or it is already revoked.")
    return 1
