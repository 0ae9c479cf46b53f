"""The commands of `patients-api` and their arguments.

This module imports nothing that takes long, so that help, completion and mistyped options need only a few milliseconds.
"""

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from app.arguments.types import host, key_name, last_day, port_number, service_url, worker_count
from app.auth.scopes import Scope
from app.identifiers import is_identifier
from app.suggestions import suggestion

RESOURCE_NAMES = ("hospitals", "doctors", "profiles", "patients")
"""The keys of `app.transfer.resources.RESOURCES`, which has the code that imports and exports them."""
FORMAT_NAMES = ("ndjson", "csv")
"""The keys of `app.transfer.exporting.FORMATS`."""
ERASABLE_RECORDS = ("patient", "profile")
"""The keys of `app.cli.erase.ERASABLE_SERVICES`."""
FORMER_PROFILE_POLICIES = ("keep", "erase")
"""The values of `app.records.service.FormerProfilePolicy`."""
DUPLICATE_POLICIES = ("report", "refuse", "ignore")
"""The values of `app.staging.duplicates.DuplicatePolicy`."""
UNIQUENESS_LEVELS = ("none", "register", "hospital")
"""The same as in `app.models.identifier`."""
SHELLS = ("bash", "zsh", "fish")
MAX_ID_PREFIX_LENGTH = 32
"""Half of the length of an id, so that the other half remains for the numbers of a clinic."""


class CommandParser(argparse.ArgumentParser):
    """Names the option that is nearest to a mistyped one."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Return what argparse does, but end the command if it does not know an option."""
        parsed, unknown = super().parse_known_args(args, namespace)
        if unknown and unknown[0].startswith("-"):
            name = unknown[0].partition("=")[0]
            hint = suggestion(name, self._option_string_actions, f"`{self.prog} --help` lists all options")
            self.error(f"there is no option {name}; {hint}")
        return parsed, unknown


def _add_serve_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", type=host, default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=port_number, default=8000, help="port to listen on (default: %(default)s)")
    parser.add_argument("--workers", type=worker_count, default=1, help="number of processes (default: %(default)s)")
    parser.add_argument("--demo", action="store_true", help="fill an empty database with fictitious patients")


def _add_migrate_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--serving-role",
        metavar="ROLE",
        help="separate role for `serve`: grant it the rights that serving needs, and none to change the journal",
    )
    parser.add_argument(
        "--distribute-audit",
        action="store_true",
        help="with Citus: check the cluster, move the audit to its workers, and check the result (docs/scaling.md)",
    )


def _add_check_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print a JSON array of the checks")


def _add_import_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file",
        metavar="FILE",
        help="CSV, Excel workbook (.xlsx) or NDJSON, plain or gzip; - for standard input; or a directory created by "
        "`export --directory`",
    )
    parser.add_argument(
        "--resource",
        choices=RESOURCE_NAMES,
        help="content of the file (default: by the file name, such as doctors.csv, else patients)",
    )
    parser.add_argument("--dry-run", action="store_true", help="check everything, but store nothing")
    parser.add_argument("--errors", type=Path, metavar="FILE", help="write all errors to this CSV file")
    parser.add_argument(
        "--on-error",
        choices=["stop", "skip"],
        default="stop",
        help="if lines are rejected, store nothing (stop) or only the other lines (skip); default: %(default)s",
    )
    parser.add_argument(
        "--duplicates",
        choices=DUPLICATE_POLICIES,
        default="report",
        help="if new patients may be registered already, queue the pairs (report), reject the lines (refuse), or "
        "compare nobody (ignore); default: %(default)s",
    )
    parser.add_argument("--update", action="store_true", help="update existing records; a blank cell clears its field")
    parser.add_argument(
        "--allow-other-person",
        action="store_true",
        help="with --update, accept lines that change a patient's name as well as the date of birth",
    )
    parser.add_argument(
        "--drop-bad-values", action="store_true", help="store records without optional values that are wrong"
    )
    parser.add_argument("--id-prefix", type=_id_prefix, metavar="PREFIX", help="put in front of each id")
    table = parser.add_argument_group("tables of other systems")
    table.add_argument("--inspect", action="store_true", help="print what the columns are taken for; store nothing")
    table.add_argument("--save", type=Path, metavar="FILE", help="with --inspect, write a mapping file")
    table.add_argument("--map", type=Path, metavar="FILE", help="TOML file that says which field each column contains")
    table.add_argument("--ignore", action="append", default=[], metavar="COLUMN", help="leave a column out; repeatable")
    table.add_argument(
        "--date-format",
        action="append",
        default=[],
        metavar="[COLUMN=]ORDER",
        help="dmy, mdy, ymd or excel, if dates could be read in several ways; for all columns or for one",
    )
    table.add_argument("--null", action="append", default=[], metavar="WORD", help="word for no value; repeatable")
    table.add_argument("--sheet", metavar="NAME", help="worksheet of a workbook (default: the first)")
    table.add_argument("--encoding", metavar="NAME", help="encoding, such as cp1252 (default: UTF-8, or by its mark)")
    table.add_argument(
        "--hospitals-by-name", action="store_true", help="hospitals and doctors are names instead of ids"
    )
    table.add_argument(
        "--create-hospitals", action="store_true", help="likewise, and create hospitals and doctors that do not exist"
    )


def _id_prefix(text: str) -> str:
    if not is_identifier(text) or len(text) > MAX_ID_PREFIX_LENGTH:
        raise argparse.ArgumentTypeError(
            f"must be 1 to {MAX_ID_PREFIX_LENGTH} letters, digits or . _ ~ : @ -, beginning with a letter or digit"
        )
    return text


def _add_export_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--resource", choices=RESOURCE_NAMES, default="patients", help="resource to export (default: %(default)s)"
    )
    parser.add_argument(
        "--format",
        choices=FORMAT_NAMES,
        help="one document per line, or a table (default: by the file name, else ndjson)",
    )
    parser.add_argument(
        "--excel", action="store_true", help="write CSV that Excel opens without changing numbers, dates and ids"
    )
    parser.add_argument(
        "--filter",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="export only records that match a filter of the list, such as hospital_id=hos123; may be repeated",
    )
    parser.add_argument(
        "--merged",
        action="store_true",
        help="export the patients that were merged into others instead, each with merged_into",
    )
    parser.add_argument(
        "--include",
        choices=["identifiers"],
        help="export patients with their identifiers, which --directory always does",
    )
    parser.add_argument(
        "--from-standby",
        action="store_true",
        help="read from a standby among the hosts of DATABASE_URL; the audit is written to the primary",
    )
    to = parser.add_mutually_exclusive_group()
    to.add_argument(
        "--output", type=_output_path, metavar="FILE", help="file to write (- for standard output); .gz is compressed"
    )
    to.add_argument(
        "--directory", type=Path, metavar="DIRECTORY", help="write all resources, one file each, for `import DIRECTORY`"
    )


def _output_path(text: str) -> Path | None:
    return None if text == "-" else Path(text)


def _add_keys_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True)
    create = actions.add_parser("create", help="create a key, and print it once")
    create.add_argument(
        "--name",
        type=key_name,
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
    create.add_argument("--expires", type=last_day, metavar="YYYY-MM-DD", help="last day of the key, in UTC")
    list_keys = actions.add_parser("list", help="list all keys, without the secrets themselves")
    list_keys.add_argument("--json", action="store_true", help="print a JSON array, with times instead of days")
    revoke = actions.add_parser("revoke", help="revoke a key; it stops working within five seconds")
    revoke.add_argument("name")


def _hospital_id(text: str) -> str:
    if not is_identifier(text):
        raise argparse.ArgumentTypeError("must be the unique_id of a hospital; for several hospitals repeat --hospital")
    return text


def _add_identifier_types_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True)
    add = actions.add_parser("add", help="add a type, for good")
    add.add_argument("name", metavar="NAME", help="name of the type, such as namibian_id")
    add.add_argument("--checker", metavar="MODULE", help="module of python-stdnum that checks values, such as za.idnr")
    add.add_argument(
        "--uniqueness",
        choices=UNIQUENESS_LEVELS,
        default="none",
        help="whether only one patient of the register, or of a hospital, can have a value (default: %(default)s)",
    )
    add.add_argument("--country", metavar="CODE", help="country that issues all identifiers of the type, such as ZA")
    listing = actions.add_parser("list", help="list all types")
    listing.add_argument("--json", action="store_true", help="print a JSON array")


def _add_duplicates_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", choices=["scan"], help="scan: continues where an interrupted scan ended")


def _add_webhooks_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True)
    add = actions.add_parser("add", help="add an endpoint, and print its id and, once, its secret")
    add.add_argument("url", metavar="URL", help="https:// URL that receives the messages")
    add.add_argument(
        "--events", nargs="+", default=["*"], metavar="EVENT", help="types such as patient.created or patient.* (all)"
    )
    add.add_argument(
        "--hospital", action="append", metavar="ID", help="only patients of this hospital; may be repeated"
    )
    add.add_argument("--allow-http", action="store_true", help="accept an http:// URL, in a network that you trust")
    listing = actions.add_parser("list", help="list endpoints, their states and how many changes they are behind")
    listing.add_argument("--json", action="store_true", help="print a JSON array")
    for action, purpose in {
        "pause": "send nothing more, and keep the position",
        "resume": "send again, from where sending has stopped",
        "replay": "send again what follows a cursor of the change feed",
        "rotate": "print a new secret; the previous one is valid for 24 hours, too",
        "test": "send a test message from this machine, and print the outcome",
        "remove": "remove an endpoint",
    }.items():
        one = actions.add_parser(action, help=purpose)
        one.add_argument("id", metavar="ID", help="id of the endpoint, as `webhooks list` shows it")
        if action == "replay":
            one.add_argument("--after", required=True, metavar="CURSOR", help="a cursor, or now to skip all changes")
        if action == "rotate":
            one.add_argument(
                "--drop-previous", action="store_true", help="no longer sign with the secret before the one in use"
            )


def _add_journal_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "what",
        metavar="{verify,head}",
        choices=["verify", "head"],
        help="verify: prove that each record matches its newest entry, and that no entry was changed, added or "
        "removed; head: print a line that identifies the content of the journal, to keep where nobody can change it",
    )
    parser.add_argument(
        "--head", metavar="LINE", help="verify that the journal still matches this line of `journal head`"
    )


def _add_restore_check_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dump", metavar="FILE", help="file that `pg_dump --format custom` wrote; - for standard input")


def _add_audit_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "what",
        metavar="{prune}",
        choices=["prune"],
        help="prune: remove the months that are older than PATIENTS_AUDIT_DAYS",
    )


def _add_access_report_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("unique_id", help="unique_id of the patient, also of a deleted one")


def _add_erase_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "what",
        metavar="{patient,profile}",
        choices=ERASABLE_RECORDS,
        help="a patient, or a profile that no patient has",
    )
    parser.add_argument("unique_id", help="unique_id of the record to erase, also of a deleted one")
    parser.add_argument("--reason", required=True, help="reason to keep in the journal; do not include personal data")
    parser.add_argument(
        "--former-profiles",
        choices=FORMER_PROFILE_POLICIES,
        help="whether to erase or keep profiles that the patient had earlier and that no patient has now; required "
        "if there are any (the patient's history shows which)",
    )
    parser.add_argument("--yes", action="store_true", help="do not ask for confirmation")


def _add_health_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--url", type=service_url, default="http://127.0.0.1:8000", help="URL of the service (default: %(default)s)"
    )


def _add_openapi_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--rebuild", action="store_true", help="for contributors: build the document from the routes of the code"
    )


def _add_completion_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=SHELLS, help="shell that reads the script")


class Command(NamedTuple):
    """A command: a description of what it does, and the function that adds its arguments to a parser."""

    purpose: str
    add_arguments: Callable[[argparse.ArgumentParser], None]


COMMANDS: Mapping[str, Command] = {
    "serve": Command(
        "run the service on the database of DATABASE_URL or on an embedded PostgreSQL", _add_serve_arguments
    ),
    "migrate": Command("upgrade the schema of the database of DATABASE_URL to this version", _add_migrate_arguments),
    "check": Command(
        "check settings, database, role, schema, clock, identity provider and disk, and say what to do",
        _add_check_arguments,
    ),
    "import": Command("import records from CSV, Excel or NDJSON files", _add_import_arguments),
    "export": Command("export records to CSV or NDJSON files", _add_export_arguments),
    "keys": Command("create, list and revoke API keys", _add_keys_arguments),
    "webhooks": Command("manage the endpoints to which the service sends changes", _add_webhooks_arguments),
    "identifier-types": Command("add and list types of patients' identifiers", _add_identifier_types_arguments),
    "duplicates": Command("scan: find the patients that may be registered twice", _add_duplicates_arguments),
    "journal": Command(
        "verify: check the records and the journal; head: print the journal head to keep elsewhere",
        _add_journal_arguments,
    ),
    "restore-check": Command(
        "restore a dump into a temporary database, and verify it there", _add_restore_check_arguments
    ),
    "audit": Command("prune: remove the months that are older than PATIENTS_AUDIT_DAYS", _add_audit_arguments),
    "access-report": Command("print who has read or changed a patient's record", _add_access_report_arguments),
    "erase": Command("permanently remove a person's data everywhere", _add_erase_arguments),
    "health": Command("exit with 0 if a service is ready, otherwise with 1", _add_health_arguments),
    "openapi": Command("print the OpenAPI document", _add_openapi_arguments),
    "completion": Command(
        "print the script that completes commands and options in bash, zsh or fish", _add_completion_arguments
    ),
}
"""All commands by name, in the order of the help."""
