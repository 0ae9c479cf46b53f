"""What all request and response schemas share."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from app.fields.types import Identifier

ReadOnly = Annotated[
    Any,
    Field(
        exclude=True,
        description="Ignored; a request may carry it so that what was read can be put back.",
    ),
]
"""A key of an answer that a request may carry too and that is ignored, so that what was read can be put back."""


def tidy_json_schema(schema: dict[str, Any]) -> None:
    """Leave out what says nothing or misleads: titles made from names, defaults (absent is not null)."""
    strip_titles(schema)
    for field in schema.get("properties", {}).values():
        field.pop("default", None)
        _collapse_null(field)


def _collapse_null(field: dict[str, Any]) -> None:
    """Say `type: [string, null]` for what is a string or null: one line where people read it, not three."""
    match field.get("anyOf"):
        case [{"type": str() as kind} as branch, {"type": "null"}] if "enum" not in branch:
            del field["anyOf"]
            field |= {**branch, "type": [kind, "null"]}


def strip_titles(schema: dict[str, Any]) -> None:
    """Leave out titles made from names."""
    schema.pop("title", None)
    for field in schema.get("properties", {}).values():
        field.pop("title", None)


class Schema(BaseModel):
    """A body, in or out."""

    example: ClassVar[Mapping[str, Any] | None] = None
    """Shown in the OpenAPI document (`app.api.openapi`)."""


class Representation(Schema):
    """An answer's body. PostgreSQL builds it from these fields (see document.py); tests validate it against them."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, json_schema_extra=tidy_json_schema)


class RequestBody(Schema):
    """A request's body. An unknown key is refused: a mistyped field would be lost without a word.

    Defaults in it are never used: `given()` tells what was sent.
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
        use_attribute_docstrings=True,
        json_schema_extra=tidy_json_schema,
    )

    def sent_fields(self) -> dict[str, Any]:
        """The fields that the client sent, cleaned. An absent one is to be left as it is."""
        return self.model_dump(exclude_unset=True)


class CreateBody(RequestBody):
    """A new record. The client may choose its `unique_id`, so that imported records keep theirs."""

    unique_id: Identifier = ""
    """The client's own id, if it keeps ids; else one is made. One that was ever used is refused."""
    date_created: ReadOnly = None
    last_updated: ReadOnly = None


class UpdateBody(RequestBody):
    """What to change of a record; an absent field stays as it is. `unique_id` may be repeated, not changed."""

    unique_id: Annotated[Any, Field(exclude=True, json_schema_extra={"type": "string"})] = None
    """That of the path, or left out: it never changes."""
    date_created: ReadOnly = None
    last_updated: ReadOnly = None
