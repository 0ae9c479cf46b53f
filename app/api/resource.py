"""The declaration of a resource, from which its routes are built."""

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Annotated, Any, Generic, Self, TypeVar, Union, cast

from fastapi import Path, Request
from pydantic import BaseModel, create_model

from app.api.documentation import JsonObject, problem_responses
from app.auth.principal import Principal
from app.auth.scopes import Scope
from app.db.connection import Connection
from app.errors import MergedError
from app.fields.schemas import CreateBody, Representation, UpdateBody, gone_representation
from app.fields.selection import FieldSelection, FieldsOf, include_type
from app.identifiers import IDENTIFIER_PATTERN
from app.listing.listing import Listing
from app.listing.pagination import ListParameters, RecordParameters
from app.listing.query import GoneBy
from app.records.repository import Repository
from app.records.service import Service

C = TypeVar("C", bound=CreateBody)
U = TypeVar("U", bound=UpdateBody)
CreationCheck = Callable[[Connection], Awaitable[None]]
"""A check before a record is created. It raises an error if the record must not be created."""


@dataclass(frozen=True, slots=True)
class ResourceApi(Generic[C, U]):
    """The declaration of a resource, from which `app.api.crud` and `app.api.history` build its routes.

    The texts and examples appear in the OpenAPI document.
    """

    service_class: type[Service[C, U]]
    representation: type[Representation]
    create_body: type[C]
    update_body: type[U]
    read_scope: Scope
    write_scope: Scope
    delete_scope: Scope
    list_parameters: type[ListParameters]
    example_id: str
    """The `unique_id` of a record in the demo data, so that "Try it out" in the documentation finds a record."""
    body_errors: Sequence[JsonObject]
    """Example of the `errors` in the 422 problem of a create or update request."""
    search_body: type[ListParameters] | None = None
    """The model of the list's parameters in a body, if the list has a search endpoint, which keeps them out of URLs."""
    search_errors: Sequence[JsonObject] = ()
    """Example of the `errors` in the 422 problem of a search."""
    listing_class: type[Listing] = Listing
    list_headers: JsonObject = field(default_factory=dict)
    """OpenAPI descriptions of the headers that only lists of this resource have."""
    reading_principal: Callable[[Request], Principal] = Principal.from_request
    """Function that returns the principal on whose behalf a request reads a single record."""
    get_headers: Sequence[JsonObject] = ()
    """OpenAPI parameters for the request headers that reading a single record accepts besides `If-None-Match`."""
    get_errors: Sequence[JsonObject] = ()
    """Further examples of the `errors` in the 422 problem of a request that reads a single record."""
    patients_link_to_it: bool = True
    """Whether deleting a record can fail because patients are linked to it."""
    updates_can_conflict: bool = False
    """Whether an update can fail with 409 because its body contains the id of a deleted profile."""
    name_field: str | None = None
    """The field with the name of a record, if the response to a write should warn of other records with that name."""
    creation_check: Callable[[Request, C], CreationCheck | None] | None = None
    """Function that returns the check that a request asks for before it creates a record, or None if there is none."""
    creation_headers: Sequence[JsonObject] = ()
    """OpenAPI parameters for the request headers that creating a record accepts besides those of all resources."""
    variants: Mapping[str, type[Service[C, U]]] = field(default_factory=dict)
    """The services whose documents have more fields, by the value of the parameter `include` that asks for them."""
    snapshot_types: Mapping[str, Any] = field(default_factory=dict)
    """The types of the fields in histories that responses do not have, or not in the same form."""
    descriptions: Mapping[str, str] = field(default_factory=dict)
    """The resource's own descriptions of operations, by verb, such as `create`.

    They replace the descriptions that all resources share.
    """
    write_scopes_sentence: str = ""
    """Sentence about further required scopes, which is appended to the descriptions of create, update and restore."""

    @property
    def repository_class(self) -> type[Repository]:
        """The repository class of the resource."""
        return self.service_class.repository_class

    @property
    def gone_problem(self) -> dict[int | str, JsonObject]:
        """The 410 `responses` of operations on one record, if records of the resource can be merged."""
        if not self.repository_class.mergeable:
            return {}
        return {410: problem_responses(410, gone=MergedError(self.noun, "pat123"))[410]}

    @property
    def representations(self) -> tuple[type[Representation], ...]:
        """The models of a record in responses: the default one, and those of the variants."""
        schemas = (each.repository_class.document.schema for each in self.variants.values())
        return self.representation, *cast("Iterator[type[Representation]]", schemas)

    @property
    def record_model(self) -> Any:
        """The response model of a single record."""
        return Union[*self.representations]

    @property
    def list_model(self) -> Any:
        """The response model of the resource's lists."""
        gone = [gone_representation(each, action) for action in self.gone_by for each in self.representations]
        models: Any = Union[*self.representations, *gone]
        return list[models]

    @property
    def gone_by(self) -> Sequence[GoneBy]:
        """The actions by which records go and can come back."""
        return ("deleted", "merged") if self.repository_class.mergeable else ("deleted",)

    @property
    def record_parameters(self) -> type[RecordParameters]:
        """The query parameters of a request that reads a single record."""
        fields = Annotated[list[str] | None, FieldsOf(self.representation)]
        return create_model("RecordParameters", __base__=RecordParameters, fields=(fields, None), **self._include)

    @property
    def write_parameters(self) -> type[BaseModel] | None:
        """The query parameters of a request with a body, or None if there are none."""
        return _write_parameters(tuple(self.variants)) if self.variants else None

    @property
    def warning_headers(self) -> Sequence[str]:
        """The headers with which the response to a write may warn."""
        return (*(["Same-Name-As"] if self.name_field else []), *(["Identifier-Warning"] if self.variants else []))

    @property
    def _include(self) -> dict[str, Any]:
        return {"include": (include_type(self.variants), None)} if self.variants else {}

    def including(self, parameters: BaseModel) -> Self:
        """Return the resource with the documents that the parameter `include` asks for."""
        name = getattr(parameters, "include", None)
        return self if name is None else replace(self, service_class=self.variants[name])

    def selection(self, parameters: RecordParameters | ListParameters) -> FieldSelection | None:
        """Return the selection of fields that the parameters ask for, or None if they ask for all fields."""
        return None if parameters.fields is None else FieldSelection(self.representation, parameters.fields)

    @property
    def noun(self) -> str:
        """The singular name of the resource, such as `hospital`."""
        return self.repository_class.name

    @property
    def path_id(self) -> Any:
        """The type annotation of the path parameter `unique_id`.

        The pattern is documented but not enforced: a malformed id results in 404, like any id that does not exist.
        """
        schema = {"maxLength": 64, "pattern": IDENTIFIER_PATTERN, "example": self.example_id}
        return Annotated[str, Path(description=f"The `unique_id` of the {self.noun}.", json_schema_extra=schema)]

    def description(self, verb: str, general: str) -> str:
        """Return the resource's own description of the operation `verb`, such as `create`, or else `general`.

        `general` is the description that all resources share.
        """
        return self.descriptions.get(verb, general)


@cache
def _write_parameters(names: tuple[str, ...]) -> type[BaseModel]:
    return create_model("WriteParameters", include=(include_type(names), None))


def annotate(endpoint: Callable[..., Any], **annotations: Any) -> None:
    """Set annotations of an endpoint's parameters, from which FastAPI derives how to parse and document them.

    The annotations depend on the resource, so they cannot be written in the signature.
    """
    endpoint.__annotations__.update(annotations)
