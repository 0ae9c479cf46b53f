"""The parameters that every list takes."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.listing.query import ListQuery

DEFAULT_LIMIT = 100
MAX_LIMIT = 1000
MAX_CURSOR_LENGTH = 4000
"""Characters; longer URLs would be rejected by servers and proxies on their way."""
CURSOR_PATTERN = "^[A-Za-z0-9_-]+$"
"""Pattern for the OpenAPI document. Not enforced: a value with other characters fails to decrypt anyway."""


class PageParameters(BaseModel):
    """Which part of a list to return. Without parameters, the whole list."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    limit: Annotated[int | None, Field(ge=1, le=MAX_LIMIT)] = None
    """The maximum number of records on a page."""
    cursor: Annotated[
        str | None, Field(min_length=1, max_length=MAX_CURSOR_LENGTH, json_schema_extra={"pattern": CURSOR_PATTERN})
    ] = None
    """Where the page begins: copied from the `Link` or `Next-Cursor` header of the previous page. It repeats the
    other parameters."""

    @property
    def is_paged_by_default(self) -> bool:
        """Whether the list is a page even without a limit, as a search is: it asks for the best matches."""
        return False


class ListParameters(PageParameters):
    """Which records of a list to return, and whether to count them."""

    count: Literal["exact"] | None = None
    """`exact`: return the number of records of the list in `X-Total-Count`. For filters and searches it is exact up to
    1,000, and these records are audited as counted; above, it is an estimate with two digits. Not with HEAD."""

    def to_query(self, phone_region: str) -> ListQuery:  # noqa: ARG002  # used by lists that have telephone numbers
        """Return the query of the list; telephone numbers without a country code belong to `phone_region`."""
        return ListQuery()
