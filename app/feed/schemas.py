"""The parameters of the change feed, and the changes in its responses."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.fields.schemas import Representation
from app.fields.types import ACCEPT_INTEGRAL_FLOAT, Identifier, Timestamp
from app.listing.pagination import CURSOR_PATTERN, EXAMPLE_LIMIT, MAX_CURSOR_LENGTH, MAX_LIMIT

MAX_WAIT_SECONDS = 25
"""Maximum number of seconds that a request waits for a change. Proxies cut connections that are idle for longer."""
NOW_CURSOR = "now"
"""The value of `after` that skips all changes so far."""

ResourceName = Literal["patients", "profiles", "hospitals", "doctors"]


class FeedParameters(BaseModel):
    """The parameters of a request for changes."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    after: Annotated[
        str | None, Field(min_length=1, max_length=MAX_CURSOR_LENGTH, json_schema_extra={"pattern": CURSOR_PATTERN})
    ] = None
    """The cursor after which to continue, from the `Next-Cursor` header of the previous response or from the
    `Changes-Cursor` header of a list. `now` skips all changes so far. Without it, the response begins with the oldest
    change that is kept."""
    resource: list[ResourceName] | None = None
    """Return only changes of these resources."""
    limit: Annotated[
        int | None, Field(ge=1, le=MAX_LIMIT, json_schema_extra={"example": EXAMPLE_LIMIT}), ACCEPT_INTEGRAL_FLOAT
    ] = None
    """The maximum number of changes, by default 100. A stream ends after as many changes, by default never."""
    wait: Annotated[int | None, Field(ge=0, le=MAX_WAIT_SECONDS), ACCEPT_INTEGRAL_FLOAT] = None
    """The number of seconds to wait for a change if there is none yet, by default 0. Streams always wait."""
    include: Literal["record"] | None = None
    """`record` adds each record as it is now. This needs the scopes to read the records, and is audited like a list."""


class ChangeSource(Representation):
    """The changed profile, hospital or doctor, which is part of the documents of the affected patients."""

    resource: Literal["profiles", "hospitals", "doctors"]
    unique_id: Identifier
    version: int
    """The version of this record after the change."""


class Change(Representation):
    """A change to a record or, if `action` is `affected`, to a part of the documents of several patients.

    More actions may be added. If you do not know an action, read the record again.
    """

    example: ClassVar = {
        "position": 815,
        "resource": "patients",
        "unique_id": "pat123",
        "version": 2,
        "action": "updated",
        "time": "2026-11-30T08:30:00.123456Z",
    }

    position: int | None
    """The position of the change in the order of all changes. It is `null` if your credentials are restricted to
    hospitals, because it would reveal how much others change."""
    resource: ResourceName
    unique_id: Identifier | None
    """The id of the changed record. It is `null` if `action` is `affected`."""
    version: int | None
    """The version of the record after the change, as in its history. It is `null` if `action` is `affected`."""
    action: Literal[
        "created", "updated", "deleted", "restored", "erased", "merged", "unmerged", "affected", "entered", "left"
    ]
    """What happened. `merged` means that the record was merged into the one in `into`, and `unmerged` that it is back.
    `affected` means that a profile, hospital or doctor in the documents of `patients` has changed. If your credentials
    are restricted to hospitals, `entered` and `left` mean that you can now, or can no longer, see the patient."""
    time: Timestamp
    """When the change was made. Changes are not exactly in this order, because a transaction may commit late."""
    into: Identifier | None = None
    """The id of the record that this one was merged into, if `action` is `merged`. Other changes do not have this
    field."""
    because: ChangeSource | None = None
    """The changed record that the patients show, if `action` is `affected`. Other changes do not have this field."""
    patients: list[Identifier] | None = None
    """The ids of the affected patients, if `action` is `affected`. It is `null` if there are more than 250: then read
    the patients again that are linked to the record in `because`. Other changes do not have this field."""
    record: dict[str, Any] | None = None
    """The record as it is now, if you send `include=record`. It is `null` if it no longer exists or is not visible,
    and if `action` is `affected`."""
    cursor: str | None = None
    """The cursor after this change. Only streams of JSON lines have this field."""
