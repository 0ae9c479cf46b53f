"""Lists of deleted or merged records from the journal, newest first. Each record has its last state before that."""

from dataclasses import replace
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import (
    CTE,
    ColumnElement,
    DateTime,
    Select,
    bindparam,
    column,
    func,
    literal_column,
    select,
    true,
    tuple_,
)

from app.db.base import ID_TEXT
from app.fields.schemas import gone_representation
from app.listing.counting import RecordCount
from app.listing.keyset import LIMIT_PARAMETER
from app.listing.listing import Listing, ListShape
from app.listing.page import FIRST_SEGMENT, Page, aggregate_page
from app.listing.query import GoneBy, ListQuery, Position
from app.models import journal
from app.records.repository import Repository
from app.statements.documents import Document, ToMany
from app.statements.journal_entries import snapshot_columns


class GoneListing(Listing):
    """The records of one resource that were deleted or merged, and that the principal could see until then.

    Restored, separated and erased records are not in the list.
    """

    async def page(self, query: ListQuery, after: Position | None, limit: int) -> Page:
        """Return up to `limit` records, those that have gone last first, starting after the position `after`."""
        position = after and after._replace(key=datetime.fromisoformat(after.key))
        statement = _page_statement(self._unfiltered_shape, _action(query), is_continuation=after is not None)
        return await self.fetch_page(statement, {}, position, limit)

    async def count(self, query: ListQuery) -> RecordCount:
        """Return the number of records that the principal could see."""
        return RecordCount(await self.total(query))

    async def total(self, query: ListQuery) -> int:
        """Return the same number."""
        return await self.fetch_count(_count_statement(self._unfiltered_shape, _action(query)), {})


def _action(query: ListQuery) -> GoneBy:
    assert query.gone is not None, "the query asks for this listing"  # noqa: S101
    return query.gone


def _gone_entries(list_shape: ListShape, action: GoneBy) -> Select[Any]:
    """Return a statement that selects the newest entries of records that have gone, with the last snapshot of each.

    A partial index contains the entries with this action of each resource in the order of their times. `OFFSET` and
    `LIMIT` make PostgreSQL look up the other entries of each record. Otherwise, it would read the whole journal if
    there are many.
    """
    entry, later = journal.alias("gone"), journal.alias("later")
    has_later_entry = (
        select(literal_column("1"))
        .select_from(later)
        .where(
            later.c.resource == entry.c.resource,
            later.c.unique_id == entry.c.unique_id,
            later.c.version > entry.c.version,
        )
        .offset(literal_column("0"))
        .exists()
    )
    last = (
        select(journal.c.version, journal.c.record)
        .where(
            journal.c.resource == entry.c.resource,
            journal.c.unique_id == entry.c.unique_id,
            journal.c.version == entry.c.version - literal_column("1"),
        )
        .limit(literal_column("1"))
        .lateral("last")
    )
    conditions: list[ColumnElement[bool]] = [
        entry.c.resource == literal_column(f"'{list_shape.repository_class.table.name}'"),
        entry.c.action == literal_column(f"'{action}'"),
        ~has_later_entry,
    ]
    if list_shape.restricted:
        conditions.append(list_shape.repository_class.was_visible(last.c.record))
    columns = [entry.c.time.label(f"date_{action}"), entry.c.unique_id, last.c.version, last.c.record]
    if action == "merged":
        columns.append(entry.c.merge.op("->>", return_type=ID_TEXT)("merged_into").label("merged_into"))
    return select(*columns).select_from(entry.join(last, true())).where(*conditions)


@cache
def _count_statement(list_shape: ListShape, action: GoneBy) -> Select[Any]:
    return select(func.count()).select_from(_gone_entries(list_shape, action).subquery())


@cache
def _page_statement(list_shape: ListShape, action: GoneBy, *, is_continuation: bool) -> Select[Any]:
    rows = _gone_entries(list_shape, action)
    time, unique_id, *_ = rows.selected_columns
    if is_continuation:
        after = bindparam("after_key", type_=DateTime(timezone=True)), bindparam("after_id", type_=ID_TEXT)
        rows = rows.where(tuple_(time, unique_id) < tuple_(*after))
    found = rows.order_by(time.desc(), unique_id.desc()).limit(LIMIT_PARAMETER).cte("found")
    documents = _select_documents(list_shape.repository_class, found, action).subquery("of_page")
    document_id, json_text = documents.c
    gone_at = found.c[f"date_{action}"]
    return aggregate_page(
        select(FIRST_SEGMENT, gone_at, found.c.unique_id, json_text)
        .join(documents, document_id == found.c.unique_id)
        .order_by(gone_at.desc(), found.c.unique_id.desc())
    )


def _select_documents(repository_class: type[Repository], found: CTE, action: GoneBy) -> Select[str, str]:
    """Return a statement that builds the documents of records that have gone from their last snapshots."""
    table, document = repository_class.table, repository_class.document
    populated = func.json_populate_record(literal_column(f"NULL::{table.name}"), found.c.record)
    state = populated.table_valued(
        *(column(each, table.c[each].type) for each in snapshot_columns(table)), name="state"
    )
    columns = (each for each in found.c if each.name != "record")
    page = select(*columns, *state.c).select_from(found.join(state, true())).cte("page")
    relations = {
        relation: _last_links(relation, name, found) for name, relation in repository_class.link_relations.items()
    }
    gone = Document(gone_representation(document.schema, action), table, **document.relations)
    return gone.replace_relations(relations).select_page(page)


def _last_links(relation: ToMany, name: str, found: CTE) -> ToMany:
    """Return the relation with the links that the snapshots in `found` contain under `name`, such as `hospital_ids`."""
    target_id = func.json_array_elements_text(found.c.record.op("->")(name)).table_valued("value", name="link")
    owner, target = relation.owner_column.name, relation.target_column.name
    links = select(found.c.unique_id.label(owner), target_id.c.value.label(target))
    return replace(relation, pending_links=links.select_from(found.join(target_id, true())).cte(f"last_{name}"))
