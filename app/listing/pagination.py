"""Parameters that every list accepts."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import InitErrorDetails

from app.fields.types import ACCEPT_INTEGRAL_FLOAT, BooleanParameter, IdentifierFilter, validation_error
from app.listing.query import GoneBy, ListQuery
from app.locality import Locality

DEFAULT_LIMIT = 100
MAX_LIMIT = 1000
EXAMPLE_LIMIT = 20
"""The limit with which the documentation page is filled in. Without it, a browser would show the whole list."""
MAX_CURSOR_LENGTH = 4000
"""Maximum number of characters in a cursor. Servers and proxies would reject the URLs of longer cursors."""
CURSOR_PATTERN = "^[A-Za-z0-9_-]+$"
"""Pattern of cursors in the OpenAPI document.

The pattern is not enforced, because a value with other characters cannot be decrypted anyway.
"""


class RecordParameters(BaseModel):
    """Parameters of a request that reads a single record."""

    model_config = ConfigDict(extra="forbid")

    fields: list[str] | None = None
    """The fields to return. Subclasses say of which record (`FieldsOf`)."""


class PageParameters(BaseModel):
    """Parameters that select a page of a list.

    Without them, the response is the whole list, unless the list is paged by default or the setting `list_cap` limits
    its length.
    """

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    limit: Annotated[
        int | None, Field(ge=1, le=MAX_LIMIT, json_schema_extra={"example": EXAMPLE_LIMIT}), ACCEPT_INTEGRAL_FLOAT
    ] = None
    """The maximum number of items on the page."""
    cursor: Annotated[
        str | None, Field(min_length=1, max_length=MAX_CURSOR_LENGTH, json_schema_extra={"pattern": CURSOR_PATTERN})
    ] = None
    """The cursor from the `Next-Cursor` header of the previous page. It says where the page begins. It also contains
    the filters and the ordering of the list, so you can omit them."""

    @property
    def is_paged_by_default(self) -> bool:
        """Whether a request without `limit` returns one page of the list instead of the whole list.

        False unless a subclass overrides it. A search is paged by default, because its client asks for the best
        matches.
        """
        return False


NON_FILTER_PARAMETERS = frozenset(
    {"limit", "cursor", "count", "ordering", "search", "deleted", "merged", "fields", "include"}
)
"""Names of the parameters of record lists that are not filters."""


class ListParameters(PageParameters):
    """Parameters of a list of records: which page to return, and whether to count the records.

    Subclasses add filters, an ordering and a search. Each filter is a list of values, named after a column. As in
    Django, a suffix such as `__gte` selects a comparison other than equality (see `app.listing.keyset`).
    """

    count: Literal["exact"] | None = None
    """Set this to `exact` to get the number of records in the list in the `X-Total-Count` header. For a filtered or
    searched list, a number up to 1,000 is exact, and a larger number is an estimate with two significant digits. The
    records that such a number depends on appear in the audit as counted. HEAD requests cannot use this parameter."""

    ordering: Annotated[str | None, Field(pattern="^-?unique_id$")] = None
    """The field to sort the list by. Records with equal values are sorted by `unique_id`. A leading `-` means
    descending order. Records without a value come last in either order."""

    unique_id: IdentifierFilter | None = None
    """Records with one of these ids, at most 100. Ids of records that do not exist are ignored."""

    fields: list[str] | None = None
    """The fields to return. Subclasses say of which record (`FieldsOf`)."""
    deleted: BooleanParameter | None = None
    """`true` lists the deleted records instead, newest deletion first, each with its last state and the `version` to
    send to `restore/`. Needs the scope that restoring needs. It cannot be combined with filters, `search` or
    `ordering`."""

    @model_validator(mode="after")
    def _check_deleted(self) -> Self:
        gone = self.gone
        others = self.model_fields_set - {"limit", "cursor", "count", "fields", "include", gone}
        sent = (getattr(self, name) for name in others if name is not None)
        if gone is not None and any(value is not None and value is not False for value in sent):
            message = "Cannot be combined with filters, search or ordering"
            error = InitErrorDetails(type=validation_error("deleted_alone", message), loc=(gone,), input=None)
            raise ValidationError.from_exception_data(type(self).__name__, [error])
        return self

    @property
    def gone(self) -> GoneBy | None:
        """The action by which the listed records have gone, or None if the list contains existing records."""
        return "deleted" if self.deleted else None

    def to_query(self, locality: Locality) -> ListQuery:  # noqa: ARG002  # used by the list of patients
        """Return the list query that these parameters ask for."""
        sent = {name: getattr(self, name) for name in sorted(self.model_fields_set - NON_FILTER_PARAMETERS)}
        filters = {name: value for name, value in sent.items() if value is not None}
        return ListQuery(filters, self.ordering, gone=self.gone)


class MergeableListParameters(ListParameters):
    """Parameters of a list of records that can be merged."""

    merged: BooleanParameter | None = None
    """`true` lists the merged records instead, newest merge first, each with its last state and `merged_into`. Needs
    the scope `patients:merge`. It cannot be combined with filters, `search` or `ordering`."""

    @property
    def gone(self) -> GoneBy | None:
        """The action by which the listed records have gone, or None if the list contains existing records."""
        return "merged" if self.merged else super().gone
