"""What is known of an id that no record has: it was never used, or its record was deleted or merged into another."""

from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import ColumnElement, Select, and_, bindparam, exists, func, literal_column, not_, or_, select, true

from app.db.base import ID_TEXT
from app.errors import IdentifierRetiredError, MergedError, NotFoundError
from app.models import journal
from app.statements import hospital_scope

if TYPE_CHECKING:  # repositories import this module
    from app.records.repository import Repository

MAX_FOLLOWED_MERGES = 20
"""Maximum number of merges that are followed to find the record that now stands for a merged one.

A client that gets the id of a record which was merged itself can ask for that record.
"""

IS_OF_RECORD = and_(
    journal.c.resource == bindparam("resource", type_=ID_TEXT), journal.c.unique_id == bindparam("id", type_=ID_TEXT)
)
SELECT_LATEST_SNAPSHOT = (
    select(journal.c.record)
    .where(IS_OF_RECORD, journal.c.record.is_not(None))
    .order_by(journal.c.version.desc())
    .limit(literal_column("1"))
)


def may_know(repository_class: "type[Repository]", *, restricted: bool) -> ColumnElement[bool]:
    """Return the condition that the principal may see the history of the record `:id`.

    A restricted principal may see the history of a record that is visible to it. It may also see the history of a
    deleted or merged record if the last state of the record was visible to it. The condition does not refer to the rows
    that the statement selects, so PostgreSQL evaluates the condition once per statement.
    """
    if not restricted:
        return true()
    unique_id = repository_class.table.c.unique_id
    current_record = select(unique_id).where(unique_id == bindparam("id", type_=ID_TEXT))
    latest = SELECT_LATEST_SNAPSHOT.subquery("last")
    return or_(
        exists(current_record.where(repository_class.visibility_condition(restricted=True))),
        and_(not_(exists(current_record)), exists(select(latest).where(repository_class.was_visible(latest.c.record)))),
    )


class NewestEntry(NamedTuple):
    """The newest journal entry of a record."""

    version: int
    action: str
    merge: dict[str, str] | None

    @property
    def merged_into(self) -> str | None:
        """The id of the record that this one is merged into, or None if it is not merged."""
        return self.merge["merged_into"] if self.action == "merged" and self.merge is not None else None


@cache
def _newest_entry_statement(repository_class: "type[Repository]", *, restricted: bool) -> Select[Any]:
    return (
        select(journal.c.version, journal.c.action, journal.c.merge)
        .where(IS_OF_RECORD, may_know(repository_class, restricted=restricted))
        .order_by(journal.c.version.desc())
        .limit(literal_column("1"))
    )


async def newest_entry(repository: "Repository", unique_id: str) -> NewestEntry | None:
    """Return the newest journal entry of a record, or None if the principal may not see the history of the record."""
    repository_class: Any = type(repository)
    statement = _newest_entry_statement(repository_class, restricted=repository.restricted)
    parameters = {"resource": repository.table.name, "id": unique_id}
    scope = hospital_scope.scope_parameters(repository.principal)
    row = (await repository.connection.execute(statement, {**parameters, **scope})).one_or_none()
    return None if row is None else NewestEntry._make(row)


async def missing_error(repository: "Repository", unique_id: str) -> NotFoundError:
    """Return the error for a record that does not exist or is not visible to the principal.

    If it was merged, the error names the record that now stands for it, as far as the principal may know.
    """
    merged_into: str | None = None
    if repository.mergeable:
        following = unique_id
        for _ in range(MAX_FOLLOWED_MERGES):
            entry = await newest_entry(repository, following)
            if entry is None or entry.merged_into is None:
                break
            merged_into = following = entry.merged_into
    return NotFoundError(repository.name) if merged_into is None else MergedError(repository.name, merged_into)


@cache
def _last_version_statement(repository_class: "type[Repository]") -> Select[int | None]:
    of_resource = journal.c.resource == literal_column(f"'{repository_class.table.name}'")
    is_of_record = and_(of_resource, journal.c.unique_id == bindparam("id", type_=ID_TEXT))
    return select(func.max(journal.c.version)).where(is_of_record, journal.c.record.is_not(None))


async def retired_error(repository: "Repository", unique_id: str) -> IdentifierRetiredError:
    """Return the error for creating a record with the id of a deleted or merged record.

    The error says how to restore a deleted record.
    """
    entry = await newest_entry(repository.unrestricted, unique_id)
    if entry is not None and entry.merged_into is not None:
        return IdentifierRetiredError(repository.name, None, state="merged")
    repository_class: Any = type(repository)
    statement = _last_version_statement(repository_class)
    last_version = (await repository.connection.execute(statement, {"id": unique_id})).scalar_one()
    return IdentifierRetiredError(repository.name, last_version)
