"""Checks of the values of identifiers: the normalized form, and the modules of python-stdnum."""

import importlib
import unicodedata
from datetime import date
from functools import cache
from types import ModuleType
from typing import Any

_CHECKER_ERRORS = (ValueError, LookupError)
"""What modules of python-stdnum raise for a value that they do not expect. Errors of their own are `ValueError`s."""
_GENDERS = {"M": "Male", "F": "Female"}


class InvalidIdentifierError(Exception):
    """A value is not valid for its type."""


class WrongCheckDigitError(InvalidIdentifierError):
    """A value has the form of its type, but its check digit belongs to another value."""


def normalize(value: str) -> str:
    """Return the form in which values are compared: the letters and digits, in upper case.

    All decimal digits are ASCII digits. The result is empty if the value has neither letters nor digits.
    """
    if not value.isascii():
        value = unicodedata.normalize("NFKC", value)
    return "".join(
        str(unicodedata.decimal(character)) if character.isdecimal() else character
        for character in value.upper()
        if character.isalnum()
    )


@cache
def checker_module(name: str) -> ModuleType | None:
    """Return the module of python-stdnum that checks values, such as `za.idnr`, or None if there is no such module."""
    if not all(part.isidentifier() for part in name.split(".")):
        return None
    try:
        module = importlib.import_module(f"stdnum.{name}")
    except ImportError:
        return None
    return module if hasattr(module, "validate") and hasattr(module, "compact") else None


def check_value(checker: str | None, value: str) -> str:
    """Return the normalized form of a value that a checker accepts. Without a checker, every value is accepted.

    Raises:
        WrongCheckDigitError: the check digit is wrong.
        InvalidIdentifierError: the value has another form, or neither letters nor digits.
    """
    normalized = normalize(value)
    if not normalized:
        raise InvalidIdentifierError
    module = None if checker is None else checker_module(checker)
    if module is None:
        return normalized
    # most modules accept only the separators that are usual, and some need them
    compact = _validated(module, unicodedata.normalize("NFKC", value))
    return normalize(_validated(module, normalized, must_be_valid=True) if compact is None else compact)


def _validated(module: ModuleType, value: str, *, must_be_valid: bool = False) -> Any:
    try:
        return module.validate(value)
    except _CHECKER_ERRORS as error:
        if not must_be_valid:
            return None
        from stdnum.exceptions import InvalidChecksum  # noqa: PLC0415  # imported with the module; others do without it

        raise (WrongCheckDigitError if isinstance(error, InvalidChecksum) else InvalidIdentifierError) from None


def disagreements(checker: str | None, value: str, date_of_birth: date | None, gender: str | None) -> list[str]:
    """Return the fields of a patient that differ from what a valid value says about its owner.

    They are `patient_date_of_birth` and `patient_gender`. Centuries are not compared, because values have years of two
    digits, and neither are genders other than Male and Female.
    """
    module = None if checker is None else checker_module(checker)
    fields = []
    birth = _detail(module, "get_birth_date", value)
    if (
        isinstance(birth, date)
        and date_of_birth
        and (birth.year % 100, birth.month, birth.day)
        != (
            date_of_birth.year % 100,
            date_of_birth.month,
            date_of_birth.day,
        )
    ):
        fields.append("patient_date_of_birth")
    if gender in _GENDERS.values() and _GENDERS.get(_detail(module, "get_gender", value) or "", gender) != gender:
        fields.append("patient_gender")
    return fields


def _detail(module: ModuleType | None, function: str, value: str) -> Any:
    try:
        return getattr(module, function)(value)
    except (AttributeError, *_CHECKER_ERRORS):
        return None
