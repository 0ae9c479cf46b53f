"""The bodies of histories: entries, whose schema depends on the resource, and the request to restore a version."""

from collections.abc import Iterable, Mapping
from types import NoneType
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import ConfigDict, Field

from app.fields.schemas import Representation, RequestBody, derived_schema
from app.fields.types import ACCEPT_INTEGRAL_FLOAT, Identifier, Timestamp

MAX_VERSION = 2**53 - 1
"""Maximum version number in a request: every JSON parser represents integers up to this one exactly (RFC 8259, section
6)."""


class FieldChange(Representation):
    """The values of a field before and after a change. A value is `null` if the field had none."""

    before: str | None = Field(alias="from")
    after: str | None = Field(alias="to")


class LinksChange(Representation):
    """The ids of linked records before and after a change. They are `null` if the record did not exist."""

    before: list[str] | None = Field(alias="from")
    after: list[str] | None = Field(alias="to")


class MergeStep(Representation):
    """The other record of a merge, or of undoing one, in the field that says what happened to this record."""

    merged_into: Identifier | None = None
    """This record was merged into the one with this id."""
    merged_from: Identifier | None = None
    """The record with this id was merged into this one."""
    unmerged_from: Identifier | None = None
    """The merge of this record into the one with this id was undone."""
    unmerged: Identifier | None = None
    """The merge of the record with this id into this one was undone."""


class HistoryEntry(Representation):
    """One version in the history of a record: the change, its time and author, and the record after the change."""

    version: int
    """The number of the version. The creation of the record is version 1. Each later change, including a deletion,
    increases the number by 1."""
    action: Literal["created", "updated", "deleted", "restored", "erased", "merged", "unmerged"]
    time: Timestamp
    actor: str
    """The name of the principal that made the change."""
    request_id: str | None
    """The id of the request that made the change. It is the same id as in the header `X-Request-ID` and in the log."""
    changes: dict[str, FieldChange | LinksChange]
    """The fields that changed, each with its value before (`from`) and after (`to`) the change."""
    record: dict[str, Any] | None
    """The record after the change: its fields, and the ids of the records that it is linked to. Fields that are `null`
    are omitted. If the record was deleted or merged into another one, `record` is `null`."""
    merge: MergeStep | None = None
    """The other record, if two records were merged or this was undone. Other entries do not have this field."""


class _Fields(Representation):
    """The base class of objects that have some of the fields of a record."""

    model_config = ConfigDict(extra="ignore")


def history_entry_schema(
    name: str, fields: Mapping[str, Any], link_names: Iterable[str], example: Mapping[str, Any]
) -> type[HistoryEntry]:
    """Return the schema of the entries in the histories of one resource, such as `PatientHistoryEntry`.

    `name` is the capitalized name of the resource. `fields` maps the names of the fields in a snapshot to their types,
    and `link_names` are the names of its sets of links. `example` contains values of some of these fields.
    `last_updated` differs with every change, so `changes` omits it.
    """
    link_types = dict.fromkeys(link_names, list[Identifier])
    change_types: dict[str, Any] = {**dict.fromkeys(fields, FieldChange), **dict.fromkeys(link_types, LinksChange)}
    del change_types["last_updated"]
    snapshot = _optional_fields(
        f"{name}Snapshot", f"The fields of a {name.lower()} that are not `null`.", {**fields, **link_types}
    )
    changes = _optional_fields(f"{name}Changes", f"The fields of a {name.lower()} that changed.", change_types)
    definitions: Any = {
        field: (field_type, Field(description=HistoryEntry.model_fields[field].description))
        for field, field_type in {"changes": changes, "record": snapshot | None}.items()
    }
    schema = derived_schema(f"{name}HistoryEntry", HistoryEntry, HistoryEntry.__doc__, definitions)
    record = {field: value for field, value in example.items() if field in snapshot.model_fields}
    changed_field = next(iter(record))
    schema.example = {
        **_EXAMPLE,
        "changes": {changed_field: {"from": None, "to": record[changed_field]}},
        "record": record,
    }
    return schema


def _without_none(annotation: Any) -> Any:
    branches = [branch for branch in get_args(annotation) if branch is not NoneType]
    return branches[0] if NoneType in get_args(annotation) else annotation


def _optional_fields(name: str, description: str, types: Mapping[str, Any]) -> type[_Fields]:
    definitions = {field: (_without_none(field_type), None) for field, field_type in types.items()}
    return derived_schema(name, _Fields, description, definitions)


_EXAMPLE = {
    "version": 2,
    "action": "updated",
    "time": "2023-01-02T08:30:00Z",
    "actor": "key:front-desk",
    "request_id": "req_01m82ajx1ew0r14nzv08mnkrmd",
}


class RestoreRequest(RequestBody):
    """A request to restore an earlier version of a record."""

    example: ClassVar = {"version": 1}

    version: Annotated[int, Field(ge=1, le=MAX_VERSION, strict=True), ACCEPT_INTEGRAL_FLOAT]
    """The number of the version to restore, from the history of the record."""
    skip_missing: bool = Field(default=False, strict=True)
    """Whether to leave out links to records that no longer exist. If `false`, such links are an error, and nothing is
    restored."""
