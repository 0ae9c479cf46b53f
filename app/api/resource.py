"""What the routes of a resource are derived from."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Generic, TypeVar

from fastapi import Path, Request

from app.api.documentation import JsonObject
from app.auth.principal import Principal
from app.auth.scopes import Scope
from app.fields.schemas import CreateBody, Representation, UpdateBody
from app.identifiers import IDENTIFIER_PATTERN
from app.listing.listing import Listing
from app.listing.pagination import ListParameters
from app.records.repository import Repository
from app.records.service import Service

C = TypeVar("C", bound=CreateBody)
U = TypeVar("U", bound=UpdateBody)


@dataclass(frozen=True, slots=True)
class ResourceApi(Generic[C, U]):
    """A resource as its routes see it: `app.api.crud` and `app.api.history` declare the routes that all resources have.

    The texts and examples are those of the OpenAPI document.
    """

    service_class: type[Service[C, U]]
    representation: type[Representation]
    create_body: type[C]
    update_body: type[U]
    read_scope: Scope
    write_scope: Scope
    delete_scope: Scope
    example_id: str
    """The `unique_id` of a record of the demo data, so that "Try it out" finds something."""
    body_errors: Sequence[JsonObject]
    """An example of what a 422 to a create or update lists."""
    list_parameters: type[ListParameters] = ListParameters
    listing_class: type[Listing] = Listing
    reading_principal: Callable[[Request], Principal] = Principal.from_request
    """Returns the principal on whose behalf a single record is read."""
    get_headers: Sequence[JsonObject] = ()
    """Request headers that reading a single record accepts besides `If-None-Match`."""
    get_errors: Sequence[JsonObject] = ()
    """An example of what a 422 to reading a single record lists, if that can be the response."""
    patients_link_to_it: bool = True
    """Whether deleting a record can fail because patients are linked to it."""
    updates_can_conflict: bool = False
    """Whether an update can fail because it names the id of another record, which was deleted."""
    descriptions: Mapping[str, str] = field(default_factory=dict)
    """Descriptions of operations, by their verb, that say more than the general ones."""
    write_scopes_sentence: str = ""
    """What the descriptions of changes say about further scopes."""

    @property
    def repository_class(self) -> type[Repository]:
        """The repository of the resource."""
        return self.service_class.repository_class

    @property
    def noun(self) -> str:
        """The name of one record, as `hospital`."""
        return self.repository_class.name

    @property
    def path_id(self) -> Any:
        """The annotation of a `unique_id` in a path. An id that no record can have is a 404, like any unknown id."""
        schema = {"maxLength": 64, "pattern": IDENTIFIER_PATTERN, "example": self.example_id}
        return Annotated[str, Path(description=f"The `unique_id` of the {self.noun}.", json_schema_extra=schema)]

    def description(self, verb: str, general: str) -> str:
        """Return the description of the operation with this verb; `general` is the one that all resources share."""
        return self.descriptions.get(verb, general)


def annotate(endpoint: Callable[..., Any], **annotations: Any) -> None:
    """Set annotations that depend on the resource, from which FastAPI takes the parameters of an endpoint."""
    endpoint.__annotations__.update(annotations)
