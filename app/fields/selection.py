"""The parameter `fields`, which reduces the records in a response to some of their fields."""

from collections.abc import Iterable
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticKnownError, core_schema, from_json, to_json
from typing_extensions import TypeAliasType

from app.fields.types import as_list, validation_error
from app.suggestions import suggestion

MAX_SELECTED_FIELDS = 100
"""Maximum number of names in `fields`. No record has as many fields."""

MAX_NAME_LENGTH = 64
"""Maximum number of characters of an unknown name that are compared with known names."""


@cache
def _name_type(schema: type[BaseModel]) -> TypeAliasType:
    """Return the type of the names of a schema's fields. It has a name of its own in the OpenAPI document."""
    return TypeAliasType(f"{schema.__name__}Field", Literal[*schema.model_fields])


class FieldsOf:
    """The type of the parameter `fields`: names of fields of `schema`, in the order of the schema.

    A query separates the names by commas, or repeats the parameter. A body contains a list or a single name. Write
    `Annotated[list[str] | None, FieldsOf(Hospital)]`.
    """

    def __init__(self, schema: type[BaseModel]) -> None:
        self._names = list(schema.model_fields)
        self._name_type = _name_type(schema)

    def _check(self, name: object) -> str:
        if not isinstance(name, str):
            raise PydanticKnownError("string_type")
        if name in self._names:
            return name
        hint = suggestion(name[:MAX_NAME_LENGTH], self._names, "/docs lists all of them")
        raise validation_error("unknown_field", f"Must be a field of the record; {hint}")

    def __get_pydantic_core_schema__(self, _: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Pydantic hook: parse and check the names. Only the lax mode, in which queries are validated, splits text."""
        # the inner schema is only published, as a schema that all parameters share: its error would list all names
        name = core_schema.no_info_wrap_validator_function(
            lambda value, _: self._check(value), handler.generate_schema(self._name_type)
        )
        names = core_schema.no_info_after_validator_function(
            lambda given: [name for name in self._names if name in given],
            core_schema.list_schema(name, min_length=1, max_length=MAX_SELECTED_FIELDS),
        )
        optional = core_schema.nullable_schema(names)
        return core_schema.lax_or_strict_schema(
            core_schema.no_info_before_validator_function(_split_commas, optional),
            core_schema.no_info_before_validator_function(_as_list_unless_none, optional),
        )

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Pydantic hook: describe the names."""
        description = (
            "The fields to return, in the order of the record; all others are left out of the response. In a query, "
            "the names can also be separated by commas. A record has the same `ETag` with and without `fields`."
        )
        return handler(schema) | {"description": description}


def _as_list_unless_none(value: object) -> object:
    return None if value is None else as_list(value)


def _split_commas(value: object) -> object:
    """Return the names in the values of a query parameter, each of which may contain several."""
    if value is None:
        return None
    names: list[object] = []
    for item in as_list(value):
        names += [name.strip() for name in item.split(",")] if isinstance(item, str) else [item]
    return names


def include_type(names: Iterable[str]) -> Any:
    """Return the type of the parameter `include`, which asks for fields that documents have only on request."""
    description = "What to add to the record, after its other fields. `identifiers` adds `patient_identifiers`."
    return Annotated[Literal[*names] | None, Field(description=description)]


class FieldSelection:
    """Reduces JSON documents to some of their fields. Fields that `schema` does not have are kept.

    The documents are read from the database as a whole, so that requests for different fields share a statement, and so
    that the entity tag identifies the version of the record.
    """

    def __init__(self, schema: type[BaseModel], names: Iterable[str]) -> None:
        self._omitted = schema.model_fields.keys() - set(names)

    def apply(self, document: str | bytes) -> bytes:
        """Return a JSON document without the fields that are not selected."""
        record: dict[str, Any] = from_json(document)
        return to_json({name: value for name, value in record.items() if name not in self._omitted})
