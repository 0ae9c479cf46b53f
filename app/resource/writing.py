"""The one statement that writes a record: its row, its links, its entry in the journal; and reads it back.

Parts of a statement do not see what its other parts write. So what comes after is made of what the parts answer: the
row that was written, and the links as they are then.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import (
    CTE,
    Boolean,
    ColumnElement,
    Exists,
    Select,
    Table,
    bindparam,
    exists,
    func,
    literal_column,
    or_,
    select,
    text,
    union_all,
    update,
)
from sqlalchemy.dialects.postgresql import insert

from app.db.base import ID, stored
from app.journal.entries import entry
from app.resource.document import Document, ToMany
from app.resource.links import Replacement, replacing

RECORD_ID = bindparam("id", type_=ID)
_KEPT_BY_THE_DATABASE = frozenset({"version", "date_created", "last_updated"})
"""The columns that have values of their own where none are given."""


@cache
def own_values(table: Table) -> tuple[str, ...]:
    """The columns that a request decides."""
    decided_otherwise = _KEPT_BY_THE_DATABASE | {"unique_id"}
    return tuple(column.name for column in stored(table) if column.name not in decided_otherwise)


def next_version(table: Table) -> dict[str, ColumnElement[Any]]:
    """What each change of a row sets beside its values. Time does not stand still between two changes."""
    tick = table.c.last_updated + text("interval '1 microsecond'")
    return {
        "version": table.c.version + literal_column("1"),
        "last_updated": func.greatest(func.clock_timestamp(), tick),
    }


def creation(
    document: Document, links: Mapping[str, ToMany], action: str, given: frozenset[str], *, limited: bool
) -> Select[Any]:
    """A statement that inserts a row and its links, given all `own_values`, and what is `given` beside these.

    It answers the `unique_id` and document of the record, the ids that are known of each set of links, and `entered`:
    whether the journal has taken what was written. Nothing where there is a row of its id.
    """
    table = document.table
    written = (
        insert(table)
        .values({name: bindparam(name) for name in ("unique_id", *own_values(table), *sorted(given))})
        .on_conflict_do_nothing(index_elements=[table.c.unique_id])
        .returning(*stored(table))
        .cte("written")
    )
    record_id: ColumnElement[str] = bindparam("unique_id", type_=ID)
    replaced = replacing(links, written, record_id, new=True, limited=limited)
    return _answer(document, links, action, _Parts(written, written, replaced))


def change(
    document: Document, links: Mapping[str, ToMany], action: str, replaced: frozenset[str], *, limited: bool
) -> Select[Any]:
    """A statement that updates the row `:id`, which is locked, where it `:differs`, or the links that are `replaced`.

    It is given all `own_values`, and always answers what that of a `creation` does, whether it changed anything or not.
    """
    table = document.table
    this = table.c.unique_id == RECORD_ID
    record = select(table.c.unique_id).where(this).cte("record_id")
    sets = {name: links[name] for name in replaced}
    linked = replacing(sets, record, RECORD_ID, new=False, limited=limited)
    written = (
        update(table)
        .where(this, or_(bindparam("differs", type_=Boolean), *map(_any, linked.changes)))
        .values({name: bindparam(name) for name in own_values(table)} | next_version(table))
        .returning(*stored(table))
        .cte("written")
    )
    before = select(*stored(table)).where(this, ~_any(written))
    page = union_all(select(written), before).cte("page")
    return _answer(document, links, action, _Parts(written, page, linked))


def _any(part: CTE) -> Exists:
    return exists(select(literal_column("1")).select_from(part))


class _Parts(NamedTuple):
    written: CTE
    """The row, if it was written."""
    page: CTE
    """The row as it is then."""
    replaced: Replacement


def _answer(document: Document, links: Mapping[str, ToMany], action: str, parts: _Parts) -> Select[Any]:
    now = parts.replaced.relations
    sets = {name: now.get(relation, relation) for name, relation in links.items()}
    entries = entry(document.table, parts.written, sets, literal_column(f"'{action}'"))
    entered = or_(~_any(parts.written), _any(entries)).label("entered")
    columns = (*parts.replaced.columns, entered)
    return document.with_relations(now).of_page(parts.page).add_columns(*columns).add_cte(*parts.replaced.changes)
