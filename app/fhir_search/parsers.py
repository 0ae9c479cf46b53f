"""The parsers of search values: what a value of each kind of parameter stands for, as predicates of columns."""

from collections.abc import Callable
from typing import NamedTuple

from pydantic import ValidationError

from app.fhir_resources.ids import unique_id_of
from app.fhir_resources.systems import IDENTIFIER_SYSTEM_PREFIX, UNIQUE_ID_SYSTEM
from app.fhir_search.criteria import Alternative, Predicate
from app.fhir_search.values import InvalidValueError, parse_period, parse_token, unescape
from app.fields.phones import ascii_digits, equivalent_numbers
from app.patient_identifiers.finding import IdentifierFilter, filter_value

NOTHING = Predicate("none", "")
EVERYTHING = Predicate("all", "")


class SearchContext(NamedTuple):
    """The settings and the request on which the meaning of a parameter depends."""

    base_url: str
    """The address of the FHIR interface, to which absolute references may refer."""
    phone_region: str
    parameter: str = ""
    """The name of the parameter, with its modifier."""


Parse = Callable[[str, str, SearchContext], list[Alternative]]
"""Returns the alternatives that a value stands for. It takes the modifier, the value and the context."""


def string(*columns: str, vocabulary: str = "") -> Parse:
    """Return the parser of a text that one of the columns begins with or, with a modifier, equals or contains.

    `vocabulary` is the column with the words of a record, if the vocabulary has the words of the columns. These words
    find the records that may contain the text. Without it, all records are read, which suits small tables.
    """

    def parse(modifier: str, value: str, context: SearchContext) -> list[Alternative]:
        text = unescape(value)
        candidates = []
        if modifier == "contains" and vocabulary:
            candidates = [Predicate("has_word_containing", vocabulary, {"text": text, "parameter": context.parameter})]
        return [(*candidates, Predicate(modifier or "starts", column, {"value": text})) for column in columns]

    return parse


def place(*columns: str) -> Parse:
    """Return the parser of a text that a column of an address begins with or, with a modifier, equals or contains."""
    of_columns = string(*columns)

    def parse(modifier: str, value: str, context: SearchContext) -> list[Alternative]:
        found = of_columns(modifier, value, context)
        if modifier != "contains":
            return found
        values = {"text": unescape(value), "parameter": context.parameter}
        return [
            (Predicate("has_place_containing", column, values), *predicates)
            for column, predicates in zip(columns, found, strict=True)
        ]

    return parse


def _word_predicates(vector: str, value: str) -> list[Predicate]:
    words = value.split()
    if len(words) > MAX_WORDS:
        raise InvalidValueError(f"Must have at most {MAX_WORDS} words")
    return [Predicate("words", vector, {f"word{number}": word for number, word in enumerate(words)})]


MAX_WORDS = 8
"""Maximum number of words of a name that are searched for."""


def name(vector: str, *columns: str, has_vocabulary: bool = False) -> Parse:
    """Return the parser of a text. Without a modifier, a word of the name must begin with each word of the text.

    With a modifier, it is the parser that `string` returns.
    """
    of_columns = string(*columns, vocabulary=vector if has_vocabulary else "")

    def parse(modifier: str, value: str, context: SearchContext) -> list[Alternative]:
        return of_columns(modifier, value, context) if modifier else [tuple(_word_predicates(vector, unescape(value)))]

    return parse


def given(vector: str, column: str, *, has_vocabulary: bool = False) -> Parse:
    """Return the parser of a text with which one of the given names in a column begins."""
    of_column = string(column, vocabulary=vector if has_vocabulary else "")

    def parse(modifier: str, value: str, context: SearchContext) -> list[Alternative]:
        if modifier:
            return of_column(modifier, value, context)
        text = unescape(value)
        return [(*_word_predicates(vector, text), Predicate("word_within", column, {"value": text.strip()}))]

    return parse


def sounds_like(_: str, value: str, context: SearchContext) -> list[Alternative]:
    # the words of the register that sound like the value are read when the search is run
    return [
        (
            Predicate(
                "has_word_sounding_like", "patient_search", {"text": unescape(value), "parameter": context.parameter}
            ),
        )
    ]


def period(column: str, *, as_dates: bool) -> Parse:
    def parse(_: str, value: str, __: SearchContext) -> list[Alternative]:
        period = parse_period(value)
        if as_dates and period.has_time:
            raise InvalidValueError("Must be a date without a time")
        kind, values = period.bounds(as_dates=as_dates)
        return [(Predicate(kind, column, values),)]

    return parse


def record_id(_: str, value: str, __: SearchContext) -> list[Alternative]:
    unique_id = unique_id_of(value)
    return [(NOTHING if unique_id is None else Predicate("any_of", "unique_id", {"values": [unique_id]}),)]


def identifier(_: str, value: str, __: SearchContext) -> list[Alternative]:
    token = parse_token(value)
    if token.system not in {None, UNIQUE_ID_SYSTEM}:
        return [(NOTHING,)]
    return [(Predicate("any_of", "unique_id", {"values": [token.code]}) if token.code else EVERYTHING,)]


def patient_identifier(_: str, value: str, context: SearchContext) -> list[Alternative]:
    token = parse_token(value)
    type_name = (token.system or "").removeprefix(IDENTIFIER_SYSTEM_PREFIX)
    alternatives = identifier(_, value, context)
    if token.system is not None and token.system != f"{IDENTIFIER_SYSTEM_PREFIX}{type_name}":
        return alternatives
    try:
        parameter = filter_value(IdentifierFilter(value=token.code, type=type_name or None))
    except ValidationError:
        raise InvalidValueError(
            "Must be the value of an identifier, or its system and its value with | between them"
        ) from None
    return [*alternatives, (Predicate("identifier", "unique_id", {"value": parameter}),)]


def gender(_: str, value: str, __: SearchContext) -> list[Alternative]:
    token = parse_token(value)
    genders = ("male", "female", "other", "unknown")
    if token.code not in genders or token.system not in {None, "http://hl7.org/fhir/administrative-gender"}:
        raise InvalidValueError(f"Must be one of {', '.join(genders)}")
    return [(Predicate("any_of", "patient_gender", {"values": [token.code.capitalize()]}),)]


def constant(*, always: bool) -> Parse:
    """Return the parser of a Boolean parameter that has the value `always` for all records."""

    def parse(_: str, value: str, __: SearchContext) -> list[Alternative]:
        code = parse_token(value).code
        if code not in {"true", "false"}:
            raise InvalidValueError("Must be true or false")
        return [(EVERYTHING if (code == "true") is always else NOTHING,)]

    return parse


def _phone(number: str, context: SearchContext) -> Alternative:
    digits = equivalent_numbers(number, context.phone_region) if ascii_digits(number) else []
    return (Predicate("any_of", "patient_mobile_digits", {"values": digits}) if digits else NOTHING,)


def telecom(*systems: str) -> Parse:
    def parse(_: str, value: str, context: SearchContext) -> list[Alternative]:
        token = parse_token(value)
        asked = [system for system in systems if token.system in {None, system}]
        found: list[Alternative] = [(NOTHING,)]
        if "phone" in asked:
            found.append(_phone(token.code, context))
        if "email" in asked:
            found.append((Predicate("folded_equals", "patient_email_address", {"value": token.code}),))
        return found

    return parse


def reference(field: str, resource_type: str) -> Parse:
    def parse(_: str, value: str, context: SearchContext) -> list[Alternative]:
        kind, _, resource_id = unescape(value).removeprefix(f"{context.base_url}/").rpartition("/")
        if kind not in {"", resource_type}:
            raise InvalidValueError(
                f"Must be the id of a resource of the type {resource_type}, or {resource_type}/ and it"
            )
        unique_id = unique_id_of(resource_id)
        return [(NOTHING if unique_id is None else Predicate("linked", field, {"id": unique_id}),)]

    return parse
