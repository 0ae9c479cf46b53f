"""The base classes and common fields of all request and response bodies."""

import re
from collections.abc import Mapping
from datetime import datetime
from functools import cache
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, create_model

from app.fields.types import Identifier, Timestamp, timestamp_or_none

ReadOnly = Annotated[
    Any,
    Field(
        exclude=True,
        description="Ignored; accepted so that a record can be sent back as it was read.",
    ),
]
"""A response field that requests may also contain, so that a client can send a record back as it read it. The value in
a request is ignored."""

ReadOnlyTimestamp = Annotated[datetime | None, BeforeValidator(timestamp_or_none), ReadOnly]
"""The timestamp in a response field that requests may also contain, or None if a request contains anything else."""


def tidy_json_schema(schema: dict[str, Any]) -> None:
    """Remove redundant titles and misleading defaults from a JSON schema, and shorten its nullable types, in place.

    The titles repeat the field names. The default `null` is misleading, because an absent field is not set to `null`.
    """
    strip_titles(schema)
    for field in schema.get("properties", {}).values():
        field.pop("default", None)
        _collapse_null(field)


def _collapse_null(field: dict[str, Any]) -> None:
    """Shorten a nullable type to `type: [string, null]`, in place, so that people read one line instead of three."""
    match field.get("anyOf"):
        case [{"type": str() as kind} as branch, {"type": "null"}] if "enum" not in branch:
            del field["anyOf"]
            field |= {**branch, "type": [kind, "null"]}


def strip_titles(schema: dict[str, Any]) -> None:
    """Remove the titles that Pydantic derives from the names of a model and its fields, in place."""
    schema.pop("title", None)
    for field in schema.get("properties", {}).values():
        field.pop("title", None)


class Schema(BaseModel):
    """The base class of all request and response bodies."""

    example: ClassVar[Mapping[str, Any] | None] = None
    """The example that `app.about.openapi` adds to the OpenAPI document, or None if there is no example."""


S = TypeVar("S", bound=Schema)


def derived_schema(name: str, base: type[S], description: str | None, fields: Mapping[str, Any]) -> type[S]:
    """Return a schema with the fields of `base` and those in `fields`, which are defined as for `create_model`.

    Pydantic does not look for docstrings of these fields: it would search all modules for a class statement.
    """
    without_docstrings = {"use_attribute_docstrings": False}
    return create_model(name, __base__=base, __doc__=description, __cls_kwargs__=without_docstrings, **fields)


def _tidy_search_json_schema(schema: dict[str, Any]) -> None:
    """Tidy the JSON schema of a search body, in place, and publish that a filter accepts a value without a list."""
    for field in schema["properties"].values():
        for branch in list(field.get("anyOf", ())):
            if branch.get("type") == "array":
                field["anyOf"].insert(0, branch["items"])
    tidy_json_schema(schema)


class SearchBody(Schema):
    """The base class of bodies that contain the parameters of a list."""

    model_config = ConfigDict(strict=True, hide_input_in_errors=True, json_schema_extra=_tidy_search_json_schema)


class Representation(Schema):
    """The base class of response bodies.

    PostgreSQL builds the response from the fields of the class (see `app.statements.documents`). Only tests validate
    responses.
    """

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, json_schema_extra=tidy_json_schema)


@cache
def gone_representation(representation: type[Representation], action: str) -> type[Representation]:
    """Return the schema of a record that is gone because of `action`, which is `deleted` or `merged`.

    It has the fields of `representation`, with the last state of the record, and what bringing the record back needs.
    """
    noun = re.findall("[A-Z][a-z]*", representation.__name__)[0].lower()  # without `WithIdentifiers`
    restoring = f" Send it to `restore/` to restore the {noun}." if action == "deleted" else ""
    fields: dict[str, Any] = {
        "version": (int, Field(description=f"The number of the last version.{restoring}")),
        f"date_{action}": (Timestamp, Field(description=f"When the {noun} was {action}. In UTC.")),
    }
    example: dict[str, Any] = {"version": 2, f"date_{action}": "2026-11-30T12:00:00Z"}
    if action == "merged":
        fields["merged_into"] = (Identifier, Field(description=f"The id of the {noun} that it was merged into."))
        example["merged_into"] = "pat456"
    schema = derived_schema(
        f"{action.capitalize()}{representation.__name__}",
        representation,
        f"A {action} {noun}, in its last state before it was {action}.",
        fields,
    )
    schema.example = representation.example and {**representation.example, **example}
    return schema


class RequestBody(Schema):
    """The base class of request bodies. Unknown keys are rejected; otherwise a misspelled field would be lost silently.

    The defaults of fields are never used, because `sent_fields()` returns only the fields that the client sent.
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
        use_attribute_docstrings=True,
        json_schema_extra=tidy_json_schema,
    )

    def sent_fields(self) -> dict[str, Any]:
        """Return the validated fields that the client sent.

        Absent fields are omitted, because they must stay unchanged.
        """
        return self.model_dump(exclude_unset=True)


class LinkedRecord(RequestBody):
    """A linked record in a record that a client sends back as it read it. Only the `unique_id` matters."""

    model_config = ConfigDict(extra="ignore")

    unique_id: Identifier


ReadOnlyLinks = Annotated[Annotated[list[LinkedRecord], Field(fail_fast=True)] | None, Field(exclude=True)]
"""The linked records in a response. A request may contain them too, but cannot change them."""


class CreateBody(RequestBody):
    """The base class of bodies that create a record.

    A client may choose the `unique_id`, so that imports keep their ids.
    """

    unique_id: Identifier = ""
    """Your own id for the record, if you assign ids. If you omit it, an id is generated. An id that has ever been used
    is rejected."""
    date_created: ReadOnly = None
    last_updated: ReadOnly = None


class UpdateBody(RequestBody):
    """The base class of bodies that update a record. Absent fields are left unchanged."""

    unique_id: Annotated[Any, Field(exclude=True, json_schema_extra={"type": "string"})] = None
    """Optional. If present, it must equal the `unique_id` in the path, because a `unique_id` never changes."""
    date_created: ReadOnly = None
    last_updated: ReadOnly = None
