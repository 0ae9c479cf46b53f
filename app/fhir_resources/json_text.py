"""Builds the text of JSON objects in SQL, without the members that have no value, because FHIR has no null.

`json_build_object` would write nulls, and removing them would take as long as building the document. Here, an
expression for an optional part is null if the part is absent, and `concat` leaves it out. Each object begins with a
member that it always has, so that commas are correct.
"""

from functools import reduce
from typing import Any

from sqlalchemy import ColumnElement, Text, case, cast, func, literal_column

SqlText = ColumnElement[str]


def literal(text: str) -> SqlText:
    """Return a constant of the program as an SQL expression."""
    quoted = text.replace("'", "''")
    return literal_column(f"'{quoted}'", Text)


def json_value(column: ColumnElement[Any]) -> SqlText:
    """Return the JSON text of a value: strings and dates in quotation marks, with escapes."""
    return cast(func.json_scalar(column), Text)


def quoted(text: ColumnElement[Any]) -> SqlText:
    """Return the JSON text of a string without characters that need escapes."""
    return literal('"').concat(text).concat(literal('"'))


def member(name: str, value: SqlText) -> SqlText:
    """Return a member of an object, with the comma before it, or null if `value` is null."""
    return literal(f',"{name}":').concat(value)


def json_object(opening: str, *members: SqlText) -> SqlText:
    """Return an object that begins with the text `opening`, such as `{"system":"phone"`, and goes on with `members`."""
    return func.concat(literal(opening), *members, literal("}"), type_=Text)


def object_of(opening: str, *members: SqlText) -> SqlText:
    """Return an object like `json_object`, or null if any of its members is null."""
    return reduce(lambda text, part: text.concat(part), (*members, literal("}")), literal(opening))


def json_array(*items: SqlText) -> SqlText:
    """Return the array of the items that are not null, or null if all of them are."""
    joined = items[0]
    if len(items) > 1:
        joined = func.nullif(func.concat_ws(literal(","), *items), literal(""), type_=Text)
    return literal("[").concat(joined).concat(literal("]"))


def if_any(columns: list[ColumnElement[Any]], value: SqlText) -> SqlText:
    """Return `value` if any of the columns has a value, and otherwise null."""
    return case((func.num_nonnulls(*columns) > literal_column("0"), value))
