"""The one statement that writes records: their rows, their links, their entries in the journal; and reads them back.

Parts of a statement do not see what its other parts write. So what comes after is made of what the parts answer: the
row that was written, and the links as they are then.
"""

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import (
    ARRAY,
    CTE,
    Boolean,
    ColumnClause,
    ColumnElement,
    FromClause,
    Select,
    Table,
    column,
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
from app.db.together import given
from app.journal.entries import AUTHOR, entry, signed
from app.resource.document import Document, ToMany
from app.resource.links import Replacement, ids_of, replacing

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


def _given(table: Table, links: Iterable[str], beside: Iterable[ColumnClause[Any]] = ()) -> CTE:
    own: list[ColumnClause[Any]] = [column(name, table.c[name].type) for name in own_values(table)]
    sets: list[ColumnClause[Any]] = [column(name, ARRAY(ID)) for name in sorted(links)]
    return given(column("unique_id", ID), *own, *beside, *sets, *AUTHOR)


def creation(
    document: Document, links: Mapping[str, ToMany], action: str, beside: frozenset[str], *, limited: bool
) -> Select[Any]:
    """A statement that inserts the rows that it is given and their links: `own_values`, and what is given `beside`.

    Of each record it answers the `unique_id` and document, the ids that are known of each set of links, and `entered`:
    whether the journal has taken what was written. Nothing where there is a row of its id.
    """
    table = document.table
    new = _given(table, links, [column(name, table.c[name].type) for name in sorted(beside)])
    names = ("unique_id", *own_values(table), *sorted(beside))
    rows = select(*(new.c[name] for name in names)).order_by(new.c.unique_id)
    written = (
        insert(table)
        .from_select(names, rows)
        .on_conflict_do_nothing(index_elements=[table.c.unique_id])
        .returning(*stored(table))
        .cte("written")
    )
    return _answer(
        document, links, action, _Parts(new, written, written, replacing(links, new, written, limited=limited))
    )


def change(
    document: Document, links: Mapping[str, ToMany], action: str, replaced: frozenset[str], *, limited: bool
) -> Select[Any]:
    """A statement that updates the rows that it is given, which are locked, where one `differs` or links `replaced` do.

    It is given all `own_values`, and always answers what a `creation` does, whether it changed anything or not.
    """
    table = document.table
    new = _given(table, replaced, [column("differs", Boolean)])
    this = table.c.unique_id == new.c.unique_id
    linked = replacing({name: links[name] for name in replaced}, new, limited=limited)
    changed = (_has(part, table.c.unique_id) for part in linked.changes)
    written = (
        update(table)
        .where(this, or_(new.c.differs, *changed))
        .values({name: new.c[name] for name in own_values(table)} | next_version(table))
        .returning(*stored(table))
        .cte("written")
    )
    before = select(*stored(table)).join(new, this).where(~_has(written, table.c.unique_id))
    page = union_all(select(written), before).cte("page")
    return _answer(document, links, action, _Parts(new, written, page, linked))


def _has(part: FromClause, record_id: ColumnElement[str]) -> ColumnElement[bool]:
    """Whether a part, whose first column is the records' ids, has something of a record."""
    return record_id.in_(select(part.c[0]))


class _Parts(NamedTuple):
    given: CTE
    written: CTE
    """The rows, as far as they were written."""
    page: CTE
    """The rows as they are then."""
    replaced: Replacement


def _answer(document: Document, links: Mapping[str, ToMany], action: str, parts: _Parts) -> Select[Any]:
    now = parts.replaced.relations
    sets = {name: now.get(relation, relation) for name, relation in links.items()}
    written = signed(parts.written, parts.given)
    entries = entry(document.table, written, sets, literal_column(f"'{action}'"))
    answer = document.with_relations(now).of_page(parts.page)
    unique_id, _ = answer.selected_columns
    entered = or_(~_has(parts.written, unique_id), _has(entries, unique_id)).label("entered")
    known = ids_of(parts.replaced.known, unique_id)
    return answer.add_columns(*known, entered).add_cte(*parts.replaced.changes)
