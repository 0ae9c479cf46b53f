"""Converts the identifiers in a request or an import to those that are stored, or to the errors in them."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from app.errors import FieldError
from app.patient_identifiers.checkers import InvalidIdentifierError, WrongCheckDigitError, check_value
from app.patient_identifiers.types import IdentifierType
from app.suggestions import suggestion

IDENTIFIERS = "patient_identifiers"
"""The field of a patient with the identifiers."""
Identifiers = list[dict[str, Any]]
"""Identifiers in the form in which they are stored: objects with `type`, `value`, `normalized` and, if they are known,
`country`, `use` and `hospital_id`. They are sorted by `identifier_key`, and no two of them have the same key."""


class IdentifierKey(NamedTuple):
    """What identifies an identifier. Two identifiers with the same key are the same."""

    type: str
    country: str
    normalized: str
    hospital_id: str


class Resolved(NamedTuple):
    """The identifiers of a request as they are stored, and the errors in others, which are left out."""

    identifiers: Identifiers
    indexes: Mapping[IdentifierKey, int]
    """The index of each identifier in the request."""
    errors: list[FieldError]


def identifier_key(identifier: Mapping[str, Any]) -> IdentifierKey:
    """Return the key of a stored identifier."""
    return IdentifierKey(
        identifier["type"],
        identifier.get("country") or "",
        identifier["normalized"],
        identifier.get("hospital_id") or "",
    )


def union(*lists: Iterable[Mapping[str, Any]] | None) -> Identifiers | None:
    """Return the stored identifiers that are in any of the lists, or None if there are none.

    Of identifiers with the same key, the first is kept.
    """
    by_key: dict[IdentifierKey, dict[str, Any]] = {}
    for identifiers in lists:
        for identifier in identifiers or ():
            by_key.setdefault(identifier_key(identifier), dict(identifier))
    return [by_key[each] for each in sorted(by_key)] or None


def difference(
    identifiers: Iterable[Mapping[str, Any]] | None, others: Iterable[Mapping[str, Any]] | None
) -> Identifiers | None:
    """Return the stored identifiers whose keys none of the `others` has, or None if there are none."""
    other_keys = {identifier_key(each) for each in others or ()}
    return union(each for each in identifiers or () if identifier_key(each) not in other_keys)


def resolve(
    inputs: Sequence[Mapping[str, Any]] | None, types: Mapping[str, IdentifierType], hospital_ids: Collection[str]
) -> Resolved:
    """Check identifiers, given as fields of `PatientIdentifierInput`, and return them as they are stored.

    `hospital_ids` are the patient's hospitals. If there is only one, it is the hospital of each identifier that needs
    one and has none.
    """
    found: dict[IdentifierKey, dict[str, Any]] = {}
    indexes: dict[IdentifierKey, int] = {}
    errors: list[FieldError] = []
    for index, sent in enumerate(inputs or ()):
        identifier, identifier_errors = _resolve_one(sent, types, hospital_ids)
        errors += [error._replace(loc=(IDENTIFIERS, index, *error.loc)) for error in identifier_errors]
        if not identifier_errors:
            found.setdefault(identifier_key(identifier), identifier)
            indexes.setdefault(identifier_key(identifier), index)
    return Resolved([found[each] for each in sorted(found)], indexes, errors)


def _resolve_one(
    sent: Mapping[str, Any], types: Mapping[str, IdentifierType], hospital_ids: Collection[str]
) -> tuple[dict[str, Any], list[FieldError]]:
    """Return an identifier as it is stored, and the errors in its fields."""
    identifier = {name: value for name, value in sent.items() if value is not None}
    identifier_type = types.get(identifier["type"])
    if identifier_type is None:
        hint = suggestion(identifier["type"], types, f"the types are {', '.join(types)}")
        message = f"Must be a known type of identifiers; {hint}"
        return identifier, [FieldError(("type",), message, "identifier_type")]
    errors = []
    try:
        identifier["normalized"] = check_value(identifier_type.checker, identifier["value"])
    except WrongCheckDigitError:
        message = f"Must be a valid {identifier_type.name}: its check digit does not fit, so a digit is probably wrong"
        errors.append(FieldError(("value",), message, "identifier_check_digit"))
    except InvalidIdentifierError:
        errors.append(FieldError(("value",), f"Must have the form of a {identifier_type.name}", "identifier_form"))
    country = identifier_type.country
    if country is not None and identifier.setdefault("country", country) != country:
        message = f"Must be {country} or omitted: this country issues every {identifier_type.name}"
        errors.append(FieldError(("country",), message, "identifier_country"))
    if identifier_type.uniqueness == "hospital":
        if "hospital_id" not in identifier and len(hospital_ids) == 1:
            (identifier["hospital_id"],) = hospital_ids
        if "hospital_id" not in identifier:
            message = f"Must be given: each hospital gives every {identifier_type.name} of its own"
            errors.append(FieldError(("hospital_id",), message, "identifier_hospital"))
    elif "hospital_id" in identifier:
        message = f"Must be omitted: no hospital gives a {identifier_type.name}"
        errors.append(FieldError(("hospital_id",), message, "identifier_hospital"))
    return identifier, errors
