"""The search parameters of each resource type, from which searches and the capability statement are made."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pydantic import ValidationError

from app.fhir_resources.ids import unique_id_of
from app.fhir_resources.systems import IDENTIFIER_SYSTEM_PREFIX, UNIQUE_ID_SYSTEM
from app.fhir_search.criteria import Alternative, Criterion, Test
from app.fhir_search.values import InvalidValueError, parse_period, parse_token, split_values, unescape
from app.fields.phones import ascii_digits, equivalent_numbers
from app.patient_identifiers.finding import IdentifierFilter, filter_value

NOTHING = Test("none", "")
EVERYTHING = Test("all", "")


class SearchContext(NamedTuple):
    """What the meaning of values depends on, besides the values."""

    base_url: str
    """The address of the FHIR interface, to which absolute references may refer."""
    phone_region: str


Parse = Callable[[str, str, SearchContext], list[Alternative]]
"""Returns the alternatives that a value stands for. It takes the modifier, the value and the context."""


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
        return tuple(
            alternative for value in split_values(text) for alternative in self.parse(modifier, value, context)
        )

    def _missing(self, text: str) -> Criterion:
        if text == "true":
            return (tuple(Test("missing", target) for target in self.presence),)
        if text == "false":
            return tuple((Test("present", target),) for target in self.presence)
        raise InvalidValueError("Must be true or false")


def _string(*columns: str) -> Parse:
    """Return the parser of a text with which one of the columns begins, or that it equals or contains."""

    def parse(modifier: str, value: str, _: SearchContext) -> list[Alternative]:
        return [(Test(modifier or "starts", column, {"value": unescape(value)}),) for column in columns]

    return parse


def _word_tests(vector: str, value: str) -> list[Test]:
    return [Test("words", vector, {f"word{number}": word for number, word in enumerate(value.split()[:MAX_WORDS])})]


MAX_WORDS = 8
"""Maximum number of words of a name that are searched for."""


def _name(vector: str, *columns: str) -> Parse:
    """Return the parser of a text of which each word begins a word of the name. With a modifier, see `_string`."""
    of_columns = _string(*columns)

    def parse(modifier: str, value: str, context: SearchContext) -> list[Alternative]:
        return of_columns(modifier, value, context) if modifier else [tuple(_word_tests(vector, unescape(value)))]

    return parse


def _given(vector: str, column: str) -> Parse:
    """Return the parser of a text with which one of the given names in a column begins."""
    of_column = _string(column)

    def parse(modifier: str, value: str, context: SearchContext) -> list[Alternative]:
        if modifier:
            return of_column(modifier, value, context)
        text = unescape(value)
        return [(*_word_tests(vector, text), Test("word_within", column, {"value": text.strip()}))]

    return parse


def _sounds_like(_: str, value: str, __: SearchContext) -> list[Alternative]:
    # the words of the register that sound like the value are read when the search is run
    return [(Test("sounds_like", "patient_search", {"word": unescape(value)}),)]


def _period(column: str, *, as_dates: bool) -> Parse:
    def parse(_: str, value: str, __: SearchContext) -> list[Alternative]:
        period = parse_period(value)
        if as_dates and period.has_time:
            raise InvalidValueError("Must be a date without a time")
        kind, values = period.bounds(as_dates=as_dates)
        return [(Test(kind, column, values),)]

    return parse


def _id(_: str, value: str, __: SearchContext) -> list[Alternative]:
    unique_id = unique_id_of(value)
    return [(NOTHING if unique_id is None else Test("equals", "unique_id", {"value": unique_id}),)]


def _identifier(_: str, value: str, __: SearchContext) -> list[Alternative]:
    token = parse_token(value)
    if token.system not in {None, UNIQUE_ID_SYSTEM}:
        return [(NOTHING,)]
    return [(Test("equals", "unique_id", {"value": token.code}) if token.code else EVERYTHING,)]


def _patient_identifier(_: str, value: str, context: SearchContext) -> list[Alternative]:
    token = parse_token(value)
    type_name = (token.system or "").removeprefix(IDENTIFIER_SYSTEM_PREFIX)
    alternatives = _identifier(_, value, context)
    if token.system is not None and token.system != f"{IDENTIFIER_SYSTEM_PREFIX}{type_name}":
        return alternatives
    try:
        parameter = filter_value(IdentifierFilter(value=token.code, type=type_name or None))
    except ValidationError:
        raise InvalidValueError(
            "Must be the value of an identifier, or its system and its value with | between them"
        ) from None
    return [*alternatives, (Test("identifier", "unique_id", {"value": parameter}),)]


def _gender(_: str, value: str, __: SearchContext) -> list[Alternative]:
    token = parse_token(value)
    genders = ("male", "female", "other", "unknown")
    if token.code not in genders or token.system not in {None, "http://hl7.org/fhir/administrative-gender"}:
        raise InvalidValueError(f"Must be one of {', '.join(genders)}")
    return [(Test("equals", "patient_gender", {"value": token.code.capitalize()}),)]


def _constant(*, always: bool) -> Parse:
    """Return the parser of `true` and `false`, one of which all records are: `always`."""

    def parse(_: str, value: str, __: SearchContext) -> list[Alternative]:
        code = parse_token(value).code
        if code not in {"true", "false"}:
            raise InvalidValueError("Must be true or false")
        return [(EVERYTHING if (code == "true") is always else NOTHING,)]

    return parse


def _phone(number: str, context: SearchContext) -> Alternative:
    digits = equivalent_numbers(number, context.phone_region) if ascii_digits(number) else []
    return (Test("any_of", "patient_mobile_digits", {"values": digits}) if digits else NOTHING,)


def _telecom(*systems: str) -> Parse:
    def parse(_: str, value: str, context: SearchContext) -> list[Alternative]:
        token = parse_token(value)
        asked = [system for system in systems if token.system in {None, system}]
        found: list[Alternative] = [(NOTHING,)]
        if "phone" in asked:
            found.append(_phone(token.code, context))
        if "email" in asked:
            found.append((Test("folded_equals", "patient_email_address", {"value": token.code}),))
        return found

    return parse


def _reference(field: str, resource_type: str) -> Parse:
    def parse(_: str, value: str, context: SearchContext) -> list[Alternative]:
        kind, _, resource_id = unescape(value).removeprefix(f"{context.base_url}/").rpartition("/")
        if kind not in {"", resource_type}:
            raise InvalidValueError(
                f"Must be the id of a resource of the type {resource_type}, or {resource_type}/ and it"
            )
        unique_id = unique_id_of(resource_id)
        return [(NOTHING if unique_id is None else Test("linked", field, {"id": unique_id}),)]

    return parse


_NAME_MODIFIERS = ("exact",)
_FOLDED = "Upper and lower case, and accents, make no difference."
_SHARED = (
    SearchParameter("_id", "token", "The id of the resource.", _id),
    SearchParameter(
        "_lastUpdated", "date", "When the resource was last changed.", _period("last_updated", as_dates=False)
    ),
    SearchParameter("active", "token", "Whether the resource is in use. All resources are.", _constant(always=True)),
)
_ADDRESS_PARAMETERS = {
    "address-city": "patient_town",
    "address-state": "patient_province",
    "address-country": "patient_country",
    "address-postalcode": "patient_postal_code",
}
_FAMILY, _GIVEN = "patient_last_name", "patient_first_name"
_IDENTIFIER = SearchParameter("identifier", "token", f"`{UNIQUE_ID_SYSTEM}|` and the unique_id.", _identifier)
_PATIENT_PARAMETERS = (
    SearchParameter(
        "identifier",
        "token",
        f"An identifier: its value, or `{UNIQUE_ID_SYSTEM}` or `{IDENTIFIER_SYSTEM_PREFIX}` with a type, `|` and its "
        "value. Case, spaces and punctuation make no difference.",
        _patient_identifier,
    ),
    SearchParameter(
        "name",
        "string",
        f"Words with which words of the name begin: family name, given names, initials or title. {_FOLDED}",
        _name("patient_search", _FAMILY, _GIVEN),
        _NAME_MODIFIERS,
    ),
    SearchParameter(
        "family", "string", f"How the family name begins. {_FOLDED}", _string(_FAMILY), _NAME_MODIFIERS, (_FAMILY,)
    ),
    SearchParameter(
        "given",
        "string",
        f"How one of the given names begins. {_FOLDED}",
        _given("patient_search", _GIVEN),
        _NAME_MODIFIERS,
        (_GIVEN,),
    ),
    SearchParameter("phonetic", "string", "A word that sounds like a word of the name.", _sounds_like),
    SearchParameter(
        "birthdate",
        "date",
        "The date of birth.",
        _period("patient_date_of_birth", as_dates=True),
        presence=("patient_date_of_birth",),
    ),
    SearchParameter("gender", "token", "The administrative gender.", _gender, presence=("patient_gender",)),
    SearchParameter(
        "telecom",
        "token",
        "A phone number in any of its spellings, or an e-mail address.",
        _telecom("phone", "email"),
        presence=("patient_mobile_number", "patient_email_address"),
    ),
    SearchParameter(
        "phone",
        "token",
        "A phone number in any of its spellings.",
        _telecom("phone"),
        presence=("patient_mobile_number",),
    ),
    SearchParameter("email", "token", "An e-mail address.", _telecom("email"), presence=("patient_email_address",)),
    SearchParameter(
        "address",
        "string",
        f"How the city, district, state, country or postal code begins. {_FOLDED}",
        _string(*_ADDRESS_PARAMETERS.values(), "patient_region"),
        ("exact",),
    ),
    *(
        SearchParameter(
            name, "string", f"How this part of the address begins. {_FOLDED}", _string(column), ("exact",), (column,)
        )
        for name, column in _ADDRESS_PARAMETERS.items()
    ),
    SearchParameter(
        "organization",
        "reference",
        "One of the patient's hospitals, whether in `managingOrganization` or in an extension.",
        _reference("hospital_ids", "Organization"),
        presence=("hospital_ids",),
    ),
    SearchParameter(
        "general-practitioner",
        "reference",
        "One of the patient's doctors.",
        _reference("doctor_ids", "Practitioner"),
        presence=("doctor_ids",),
    ),
    SearchParameter(
        "deceased",
        "token",
        "Whether the patient is recorded as deceased. The register records this of nobody.",
        _constant(always=False),
    ),
)
_DOCTOR_NAMES = ("doctor_last_name", "doctor_first_name")
_PRACTITIONER_PARAMETERS = (
    _IDENTIFIER,
    SearchParameter(
        "name",
        "string",
        f"Words with which words of the name begin. {_FOLDED}",
        _name("doctor_search", *_DOCTOR_NAMES),
        ("exact", "contains"),
    ),
    SearchParameter(
        "family",
        "string",
        f"How the family name begins. {_FOLDED}",
        _string("doctor_last_name"),
        ("exact", "contains"),
        ("doctor_last_name",),
    ),
    SearchParameter(
        "given",
        "string",
        f"How one of the given names begins. {_FOLDED}",
        _given("doctor_search", "doctor_first_name"),
        ("exact", "contains"),
    ),
)
_ORGANIZATION_PARAMETERS = (
    _IDENTIFIER,
    SearchParameter(
        "name",
        "string",
        f"How the name begins. {_FOLDED}",
        _string("hospital_name"),
        ("exact", "contains"),
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
RESULT_PARAMETERS: Mapping[str, str] = {
    "_count": "The maximum number of resources on a page.",
    "_sort": "The parameter to sort by, with a leading - for descending order.",
    "_total": "`accurate` for the number of matches, if it is at most 1,000 or the search has no criteria.",
    "_summary": "`count` for the number of matches alone.",
    "_elements": "The elements to return, separated by commas.",
    "_format": "The format of the response: json.",
}
"""The parameters that select pages and parts of resources, and are the same for all types."""


def parse_criteria(
    resource_type: str, sent: Sequence[tuple[str, str]], context: SearchContext
) -> tuple[list[Criterion], list[tuple[str, str]]]:
    """Return the criteria for the parameters that were sent, and an error message for each that is not valid."""
    known, criteria, errors = SEARCH_PARAMETERS[resource_type], [], []
    for full_name, text in sent:
        name, _, modifier = full_name.partition(":")
        try:
            criteria.append(known[name].criterion(modifier, text, context))
        except InvalidValueError as error:
            errors.append((full_name, str(error)))
    return criteria, errors
