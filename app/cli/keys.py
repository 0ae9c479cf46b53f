"""`patients-api keys`: create, list and revoke API keys."""

import argparse
import json
from collections.abc import Collection
from datetime import UTC, date, datetime, time

from sqlalchemy import select

from app.auth import keys
from app.auth.scopes import Scope
from app.cli.database import DATABASE_ERRORS, run_in_transaction
from app.db.connection import Connection
from app.identifiers import is_identifier
from app.models import Hospital
from app.suggestions import suggestion


class UnknownHospitalError(Exception):
    """A key cannot be restricted to a hospital that does not exist. The message names the hospital."""


USER_ERRORS = (*DATABASE_ERRORS, keys.KeyNameTakenError, UnknownHospitalError)
ROW_FORMAT = "{:<24}{:<12}{:<12}{:<12}{}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command to its parser."""
    actions = parser.add_subparsers(dest="action", required=True)
    create = actions.add_parser("create", help="create a key, and print it once")
    create.add_argument(
        "--name",
        type=_key_name,
        required=True,
        help="name of the user of the key; the journal records changes under it",
    )
    names = [scope.value for scope in Scope]
    create.add_argument(
        "--scope", action="append", required=True, choices=names, metavar="SCOPE", help=", ".join(names)
    )
    create.add_argument(
        "--hospital",
        action="append",
        type=_hospital_id,
        metavar="ID",
        help="hospital that the key is restricted to; may be repeated",
    )
    create.add_argument("--expires", type=_last_day, metavar="YYYY-MM-DD", help="last day of the key, in UTC")
    list_keys = actions.add_parser("list", help="list all keys, without the secrets themselves")
    list_keys.add_argument("--json", action="store_true", help="print a JSON array, with times instead of days")
    revoke = actions.add_parser("revoke", help="revoke a key; it stops working within five seconds")
    revoke.add_argument("name")


def _key_name(text: str) -> str:
    if keys.NAME_PATTERN.fullmatch(text) is None:
        raise argparse.ArgumentTypeError(
            "must be 1 to 64 letters, digits, single spaces or . _ @ -; must begin with a letter or digit, "
            "and must not end with a space"
        )
    return text


def _last_day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError("must be a date as YYYY-MM-DD, such as 2030-12-31") from None


def _hospital_id(text: str) -> str:
    if not is_identifier(text):
        raise argparse.ArgumentTypeError("must be the unique_id of a hospital; for several hospitals repeat --hospital")
    return text


def run(arguments: argparse.Namespace) -> int:
    """Create, list or revoke keys. Return 0, or 1 if there is no key to revoke."""
    status: int = {"create": _create, "list": _list, "revoke": _revoke}[arguments.action](arguments)
    return status


def _create(arguments: argparse.Namespace) -> int:
    expires = arguments.expires and datetime.combine(arguments.expires, time.max, UTC)
    scopes = [Scope(scope) for scope in arguments.scope]

    async def work(connection: Connection) -> str:
        await _check_hospitals(connection, arguments.hospital or ())
        return await keys.create(connection, arguments.name, scopes, arguments.hospital, expires)

    print(run_in_transaction(work))
    return 0


async def _check_hospitals(connection: Connection, unique_ids: Collection[str]) -> None:
    """Check that all hospitals exist.

    Raises:
        UnknownHospitalError: a hospital does not exist.
    """
    if not unique_ids:
        return
    known_ids = (await connection.execute(select(Hospital.unique_id).order_by(Hospital.unique_id))).scalars().all()
    for unique_id in unique_ids:
        if unique_id not in known_ids:
            hint = suggestion(unique_id, known_ids, "`patients-api export --resource hospitals` lists all")
            raise UnknownHospitalError(f"There is no hospital {unique_id}, so no key was created; {hint}")


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
