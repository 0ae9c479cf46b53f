"""`patients-api keys`: create, list and revoke API keys."""

import argparse
from datetime import UTC, date, datetime, time

from sqlalchemy.ext.asyncio import AsyncConnection

from app.auth import keys
from app.auth.scopes import Scope
from app.cli.database import DATABASE_ERRORS, run_in_transaction
from app.identifiers import is_identifier

USER_ERRORS = (*DATABASE_ERRORS, keys.KeyNameTakenError)
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
    create.add_argument("--expires", type=date.fromisoformat, metavar="YYYY-MM-DD", help="last day of the key, in UTC")
    actions.add_parser("list", help="list all keys, without the secrets themselves")
    revoke = actions.add_parser("revoke", help="revoke a key; it stops working within five seconds")
    revoke.add_argument("name")


def _key_name(text: str) -> str:
    if keys.NAME_PATTERN.fullmatch(text) is None:
        raise argparse.ArgumentTypeError(
            "must be 1 to 64 letters, digits, single spaces or . _ @ -; must begin with a letter or digit, "
            "and must not end with a space"
        )
    return text


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

    async def work(connection: AsyncConnection) -> str:
        return await keys.create(connection, arguments.name, scopes, arguments.hospital, expires)

    print(run_in_transaction(work))
    return 0


def _list(_: argparse.Namespace) -> int:
    api_keys = run_in_transaction(keys.list_keys)
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
