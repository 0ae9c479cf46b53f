"""The bodies of requests that merge two records or undo this, and of their responses."""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from app.fields.schemas import Representation, RequestBody, derived_schema
from app.fields.types import Identifier

Side = Literal["survivor", "loser"]


class Choices(RequestBody):
    """For each field, the record whose value the survivor takes."""

    def side(self, field: str) -> Side | None:
        """Return the record from which to take the field, or None if the client leaves the choice to the service."""
        side: Side | None = getattr(self, field)
        return side


class MergeRequest(RequestBody):
    """The record to merge into the one in the path, which survives."""

    loser_id: Annotated[Identifier, Field(alias="from")]
    """The `unique_id` of the record that is merged into the one in the path."""
    choose: Choices = Field(default_factory=Choices)
    """For each field, whether the survivor takes the value of `survivor` or of `loser`, even if it is `null`. If a
    field is absent, the survivor keeps its value or, if it has none, gets that of the loser. Links are always
    united."""
    from_etag: Annotated[str | None, Field(min_length=1, max_length=200)] = None
    """The `ETag` of the record in `from` as you read it. (`If-Match` contains the `ETag` of the record in the path.)"""
    dry_run: bool = Field(default=False, strict=True)
    """Whether to store nothing, and to return the survivor as it would be."""


class UnmergeRequest(RequestBody):
    """A request to undo a merge."""

    example: ClassVar = {"skip_missing": False}

    skip_missing: bool = Field(default=False, strict=True)
    """Whether to leave out links to records that no longer exist. If `false`, such links are an error, and nothing is
    stored."""


class Unmerged(Representation):
    """The result of undoing a merge."""

    survivor: Identifier
    """The `unique_id` of the record that the other one had been merged into."""
    kept: list[str]
    """The names of the survivor's fields that the merge had changed and that somebody has changed since. They stay as
    they are now."""


def merge_request(noun: str, fields: Iterable[str], example: Mapping[str, Any]) -> type[MergeRequest]:
    """Return the schema of the request that merges two records of a resource. A client can choose these `fields`."""
    choices = _choices(noun, fields)
    choose = Field(default_factory=choices, description=MergeRequest.model_fields["choose"].description)
    request = derived_schema(f"{noun}Merge", MergeRequest, MergeRequest.__doc__, {"choose": (choices, choose)})
    request.example = example
    return request


def _choices(noun: str, fields: Iterable[str]) -> type[Choices]:
    definitions = dict.fromkeys(fields, (Side | None, None))
    return derived_schema(f"{noun}MergeChoices", Choices, Choices.__doc__, definitions)


def unmerged_schema(noun: str, representation: type[Representation], example: Mapping[str, Any]) -> type[Unmerged]:
    """Return the schema of the response of a request that undoes a merge of two records of a resource."""
    field = (representation, Field(description=f"The {noun.lower()} that is back."))
    schema = derived_schema(f"Unmerged{noun}", Unmerged, Unmerged.__doc__, {noun.lower(): field})
    schema.example = example
    return schema
