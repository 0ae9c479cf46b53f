"""The search parameters of each resource type, from which searches and the capability statement are made."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from app.fhir_resources.systems import IDENTIFIER_SYSTEM_PREFIX, UNIQUE_ID_SYSTEM
from app.fhir_search import parsers
from app.fhir_search.criteria import (
    MAX_COMPARED_VALUES,
    Criterion,
    Predicate,
    compared_values,
    merge_alternatives,
)
from app.fhir_search.parsers import EVERYTHING, Parse, SearchContext
from app.fhir_search.values import InvalidValueError, split_values


@dataclass(frozen=True)
class SearchParameter:
    """The definition of a search parameter."""

    name: str
    type: str
    """The type of the parameter in FHIR, such as `token`."""
    documentation: str
    parse: Parse
    modifiers: tuple[str, ...] = ()
    presence: tuple[str, ...] = ()
    """The columns or sets of links that `:missing` is about. Without them, there is no such modifier."""

    @property
    def all_modifiers(self) -> tuple[str, ...]:
        """All modifiers of the parameter, with `missing` if it is possible."""
        return (*self.modifiers, *(("missing",) if self.presence else ()))

    def criterion(self, modifier: str, text: str, context: SearchContext) -> Criterion:
        """Return the criterion for the parameter with this modifier (or an empty text) and value.

        Raises:
            InvalidValueError: the modifier or the value is not valid for the parameter.
        """
        if modifier and modifier not in self.all_modifiers:
            known = ", ".join(f":{name}" for name in self.all_modifiers) or "no modifier"
            raise InvalidValueError(f"Has no such modifier; it has {known}")
        if modifier == "missing":
            return self._missing(text)
        return merge_alternatives(
            alternative for value in split_values(text) for alternative in self.parse(modifier, value, context)
        )

    def _missing(self, text: str) -> Criterion:
        if text == "true":
            return (tuple(Predicate("missing", target) for target in self.presence),)
        if text == "false":
            return tuple((Predicate("present", target),) for target in self.presence)
        raise InvalidValueError("Must be true or false")


_TEXT_MODIFIERS = ("exact", "contains")
_FOLDED = "Upper and lower case, and accents, make no difference."
_SHARED = (
    SearchParameter("_id", "token", "The id of the resource.", parsers.record_id),
    SearchParameter(
        "_lastUpdated", "date", "When the resource was last changed.", parsers.period("last_updated", as_dates=False)
    ),
    SearchParameter(
        "active", "token", "Whether the resource is in use. All resources are.", parsers.constant(always=True)
    ),
)
_ADDRESS_PARAMETERS = {
    "address-city": "patient_town",
    "address-state": "patient_province",
    "address-country": "patient_country",
    "address-postalcode": "patient_postal_code",
}
_FAMILY, _GIVEN = "patient_last_name", "patient_first_name"
_IDENTIFIER = SearchParameter("identifier", "token", f"`{UNIQUE_ID_SYSTEM}|` and the unique_id.", parsers.identifier)
_PATIENT_PARAMETERS = (
    SearchParameter(
        "identifier",
        "token",
        f"An identifier: its value, or `{UNIQUE_ID_SYSTEM}` or `{IDENTIFIER_SYSTEM_PREFIX}` with a type, `|` and its "
        "value. Case, spaces and punctuation make no difference.",
        parsers.patient_identifier,
    ),
    SearchParameter(
        "name",
        "string",
        f"Words with which words of the name begin: family name, given names, initials or title. {_FOLDED}",
        parsers.name("patient_search", _FAMILY, _GIVEN, has_vocabulary=True),
        _TEXT_MODIFIERS,
    ),
    SearchParameter(
        "family",
        "string",
        f"How the family name begins. {_FOLDED}",
        parsers.string(_FAMILY, vocabulary="patient_search"),
        _TEXT_MODIFIERS,
        (_FAMILY,),
    ),
    SearchParameter(
        "given",
        "string",
        f"How one of the given names begins. {_FOLDED}",
        parsers.given("patient_search", _GIVEN, has_vocabulary=True),
        _TEXT_MODIFIERS,
        (_GIVEN,),
    ),
    SearchParameter("phonetic", "string", "A word that sounds like a word of the name.", parsers.sounds_like),
    SearchParameter(
        "birthdate",
        "date",
        "The date of birth.",
        parsers.period("patient_date_of_birth", as_dates=True),
        presence=("patient_date_of_birth",),
    ),
    SearchParameter("gender", "token", "The administrative gender.", parsers.gender, presence=("patient_gender",)),
    SearchParameter(
        "telecom",
        "token",
        "A phone number in any of its spellings, or an e-mail address.",
        parsers.telecom("phone", "email"),
        presence=("patient_mobile_number", "patient_email_address"),
    ),
    SearchParameter(
        "phone",
        "token",
        "A phone number in any of its spellings.",
        parsers.telecom("phone"),
        presence=("patient_mobile_number",),
    ),
    SearchParameter(
        "email", "token", "An e-mail address.", parsers.telecom("email"), presence=("patient_email_address",)
    ),
    SearchParameter(
        "address",
        "string",
        f"How the city, district, state, country or postal code begins. {_FOLDED}",
        parsers.place(*_ADDRESS_PARAMETERS.values(), "patient_region"),
        _TEXT_MODIFIERS,
    ),
    *(
        SearchParameter(
            name,
            "string",
            f"How this part of the address begins. {_FOLDED}",
            parsers.place(column),
            _TEXT_MODIFIERS,
            (column,),
        )
        for name, column in _ADDRESS_PARAMETERS.items()
    ),
    SearchParameter(
        "organization",
        "reference",
        "One of the patient's hospitals, whether in `managingOrganization` or in an extension.",
        parsers.reference("hospital_ids", "Organization"),
        presence=("hospital_ids",),
    ),
    SearchParameter(
        "general-practitioner",
        "reference",
        "One of the patient's doctors.",
        parsers.reference("doctor_ids", "Practitioner"),
        presence=("doctor_ids",),
    ),
    SearchParameter(
        "deceased",
        "token",
        "Whether the patient is recorded as deceased. The register records this of nobody.",
        parsers.constant(always=False),
    ),
)
_DOCTOR_NAMES = ("doctor_last_name", "doctor_first_name")
_PRACTITIONER_PARAMETERS = (
    _IDENTIFIER,
    SearchParameter(
        "name",
        "string",
        f"Words with which words of the name begin. {_FOLDED}",
        parsers.name("doctor_search", *_DOCTOR_NAMES),
        _TEXT_MODIFIERS,
    ),
    SearchParameter(
        "family",
        "string",
        f"How the family name begins. {_FOLDED}",
        parsers.string("doctor_last_name"),
        _TEXT_MODIFIERS,
        ("doctor_last_name",),
    ),
    SearchParameter(
        "given",
        "string",
        f"How one of the given names begins. {_FOLDED}",
        parsers.given("doctor_search", "doctor_first_name"),
        _TEXT_MODIFIERS,
    ),
)
_ORGANIZATION_PARAMETERS = (
    _IDENTIFIER,
    SearchParameter(
        "name",
        "string",
        f"How the name begins. {_FOLDED}",
        parsers.string("hospital_name"),
        _TEXT_MODIFIERS,
    ),
)


def _by_name(parameters: Sequence[SearchParameter]) -> Mapping[str, SearchParameter]:
    return {parameter.name: parameter for parameter in (*_SHARED, *parameters)}


SEARCH_PARAMETERS: Mapping[str, Mapping[str, SearchParameter]] = {
    "Patient": _by_name(_PATIENT_PARAMETERS),
    "Practitioner": _by_name(_PRACTITIONER_PARAMETERS),
    "Organization": _by_name(_ORGANIZATION_PARAMETERS),
}
"""The definitions by resource type and name."""
SORT_COLUMNS: Mapping[str, Mapping[str, str]] = {
    "Patient": {
        "_id": "unique_id",
        "_lastUpdated": "last_updated",
        "family": "patient_last_name",
        "given": "patient_first_name",
        "birthdate": "patient_date_of_birth",
    },
    "Practitioner": {"_id": "unique_id", "family": "doctor_last_name", "given": "doctor_first_name"},
    "Organization": {"_id": "unique_id", "name": "hospital_name"},
}
"""The columns by which each resource type can be sorted, by the name of the parameter."""
_RESOURCE_ELEMENTS = frozenset(
    {"id", "implicitRules", "meta", "language", "text", "contained", "extension", "modifierExtension"}
)
ELEMENTS: Mapping[str, frozenset[str]] = {
    "Patient": _RESOURCE_ELEMENTS
    | {"identifier", "active", "name", "telecom", "gender", "birthDate", "deceasedBoolean", "deceasedDateTime"}
    | {"address", "maritalStatus", "multipleBirthBoolean", "multipleBirthInteger", "photo", "contact"}
    | {"communication", "generalPractitioner", "managingOrganization", "link"},
    "Practitioner": _RESOURCE_ELEMENTS
    | {"identifier", "active", "name", "telecom", "address", "gender", "birthDate", "photo", "qualification"}
    | {"communication"},
    "Organization": _RESOURCE_ELEMENTS
    | {"identifier", "active", "type", "name", "alias", "telecom", "address", "partOf", "contact", "endpoint"},
}
"""The elements that each resource type has in FHIR R4, whether the register has values for them or not."""
RESULT_PARAMETERS: Mapping[str, tuple[str, str]] = {
    "_count": ("number", "The maximum number of resources on a page."),
    "_sort": ("string", "The parameter to sort by, with a leading - for descending order."),
    "_total": (
        "token",
        "`accurate` for the number of matches, up to 10,000 or without criteria; `estimate`: rounded above 1,000.",
    ),
    "_totalMethod": ("token", "Another name of `_total`, with `count` for `accurate`, which the client fhirpy sends."),
    "_summary": ("token", "`count` for the number of matches alone."),
    "_elements": ("string", "The elements to return, separated by commas."),
    "_format": ("token", "The format of the response: json."),
}
"""The parameters that select pages and parts of resources, and are the same for all types: their types and texts."""


def parse_criteria(
    resource_type: str, sent: Sequence[tuple[str, str]], context: SearchContext
) -> tuple[list[Criterion], list[tuple[str, str]]]:
    """Return the criteria for the parameters that were sent, and an error message for each that is not valid."""
    known, criteria, errors, compared = SEARCH_PARAMETERS[resource_type], [], [], 0
    for full_name, text in sent:
        name, colon, modifier = full_name.partition(":")
        try:
            criterion = known[name].criterion(modifier or colon, text, context._replace(parameter=full_name))
        except InvalidValueError as error:
            errors.append((full_name, str(error)))
            continue
        compared += compared_values(criterion)
        if compared > MAX_COMPARED_VALUES:
            errors.append((full_name, "Send fewer values: the search compares too many of them at once"))
            break
        if (EVERYTHING,) not in criterion:  # without a criterion, a list and its number cost less
            criteria.append(criterion)
    return criteria, errors
