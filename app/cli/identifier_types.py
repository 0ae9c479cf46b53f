"""`patients-api identifier-types`: add and list types of identifiers."""

import argparse
import json
import re

from app.cli.database import DATABASE_ERRORS, run_in_transaction
from app.models.identifier import TYPE_NAME_PATTERN
from app.patient_identifiers.checkers import checker_module
from app.patient_identifiers.types import IdentifierType, TypeExistsError, add_type, read_types


class UnusableTypeError(Exception):
    """A type cannot be added. The message says what to change."""


USER_ERRORS = (*DATABASE_ERRORS, TypeExistsError, UnusableTypeError)
ROW_FORMAT = "{:<24}{:<12}{:<9}{}"


def run(arguments: argparse.Namespace) -> int:
    """Add or list types, and return 0."""
    if arguments.action == "add":
        _add(arguments)
    else:
        _list(as_json=arguments.json)
    return 0


def _add(arguments: argparse.Namespace) -> None:
    if re.fullmatch(TYPE_NAME_PATTERN, arguments.name) is None:
        raise UnusableTypeError(
            "The name must have up to 40 lower-case letters, digits and _, and begin with a letter."
        )
    if arguments.checker is not None and checker_module(arguments.checker) is None:
        raise UnusableTypeError(
            f"python-stdnum has no module {arguments.checker} that checks numbers. One that it has is za.idnr; its "
            "documentation lists all."
        )
    country = arguments.country and arguments.country.upper()
    if country is not None and re.fullmatch("[A-Z]{2}", country) is None:
        raise UnusableTypeError("The country must be a code of two letters, such as ZA.")
    added = IdentifierType(arguments.name, arguments.checker, arguments.uniqueness, country)
    run_in_transaction(lambda connection: add_type(connection, added))
    print(f"Added {added.name}. Requests can use it at once. A type is never changed or removed.")


def _list(*, as_json: bool) -> None:
    types = run_in_transaction(read_types).values()
    if as_json:
        print(json.dumps([each._asdict() for each in types], indent=2))
        return
    print(ROW_FORMAT.format("name", "unique in", "country", "checker"))
    for name, checker, uniqueness, country in types:
        unique_in = "-" if uniqueness == "none" else uniqueness
        print(ROW_FORMAT.format(name, unique_in, country or "-", checker or "-"))
