"""The base classes and common fields of all request and response schemas."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from app.fields.types import Identifier

ReadOnly = Annotated[
    Any,
    Field(
        exclude=True,
        description="Ignored; accepted so that a record can be sent back as it was read.",
    ),
]
"""A response field that requests may also contain, so that a record can be sent back as it was read; it is ignored."""


def tidy_json_schema(schema: dict[str, Any]) -> None:
    """Remove what is redundant or misleading: titles made from names, and defaults (an absent field is not null)."""
    strip_titles(schema)
    for field in schema.get("properties", {}).values():
        field.pop("default", None)
        _collapse_null(field)


def _collapse_null(field: dict[str, Any]) -> None:
    """Write `type: [string, null]` for a nullable type, so that people read one line instead of three."""
    match field.get("anyOf"):
        case [{"type": str() as kind} as branch, {"type": "null"}] if "enum" not in branch:
            del field["anyOf"]
            field |= {**branch, "type": [kind, "null"]}


def strip_titles(schema: dict[str, Any]) -> None:
    """Remove titles made from names."""
    schema.pop("title", None)
    for field in schema.get("properties", {}).values():
        field.pop("title", None)


class Schema(BaseModel):
    """A request or response body."""

    example: ClassVar[Mapping[str, Any] | None] = None
    """The example in the OpenAPI document (see `app.api.openapi`)."""


class Representation(Schema):
    """A response body. PostgreSQL builds it from these fields (see `app.records.documents`); tests validate it."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, json_schema_extra=tidy_json_schema)


class RequestBody(Schema):
    """A request body. Unknown keys are rejected, because a misspelled field would be lost silently.

    Its defaults are never used: `sent_fields()` returns only what the client sent.
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
        use_attribute_docstrings=True,
        json_schema_extra=tidy_json_schema,
    )

    def sent_fields(self) -> dict[str, Any]:
        """Return the fields that the client sent, cleaned. An absent field must stay as it is."""
        return self.model_dump(exclude_unset=True)


class CreateBody(RequestBody):
    """A new record. The client may choose its `unique_id`, so that imported records keep theirs."""

    unique_id: Identifier = ""
    """The client's own id, if it assigns ids; otherwise one is generated. An id that was ever used is rejected."""
    date_created: ReadOnly = None
    last_updated: ReadOnly = None


class UpdateBody(RequestBody):
    """The changes to a record; an absent field stays as it is. `unique_id` may be repeated, but not changed."""

    unique_id: Annotated[Any, Field(exclude=True, json_schema_extra={"type": "string"})] = None
    """The `unique_id` in the path, or omitted: it never changes."""
    date_created: ReadOnly = None
    last_updated: ReadOnly = None
