"""Builds writes that are one statement without a transaction around it, so that they take a single round trip.

Such a statement stores everything or, if anything is unusual, nothing: it ends with an error, and the caller makes the
same change in a transaction, whose statements find out what is wrong.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from sqlalchemy import (
    CTE,
    Boolean,
    ColumnClause,
    ColumnElement,
    Select,
    SmallInteger,
    Text,
    and_,
    column,
    func,
    insert,
    literal_column,
    null,
    or_,
    select,
    true,
)
from sqlalchemy.dialects.postgresql import array

from app.models import audit
from app.models.audit import WRITABLE_COLUMNS
from app.statements.documents import Document, ToMany, ToOne
from app.statements.journal_entries import AUTHOR_COLUMNS, entry_or_error, insert_all_entries, with_author
from app.statements.upserts import Upsert, upsert, upsert_action
from app.statements.write_statements import StatementParts, insert_parts, select_result, update_parts

_AUDIT_INPUTS: tuple[ColumnClause[Any], ...] = (
    column("audited", Boolean),
    column("method", Text),
    column("route", Text),
    column("status", SmallInteger),
    column("resource", Text),
)
"""Input columns of the audit row, which also contains the `AUTHOR_COLUMNS`."""


class NestedRecord(NamedTuple):
    """A record that a request creates or overwrites together with the record that refers to it.

    Its id is in the input column of the foreign key. Its other values are in input columns with the prefix `nested_`.
    """

    relation: ToOne
    fields: frozenset[str]
    """The names of the sent fields, without `unique_id`."""

    @property
    def input_columns(self) -> list[ColumnClause[Any]]:
        """The input columns with the values of the `fields`."""
        return [column(f"nested_{name}", self.relation.target.c[name].type) for name in sorted(self.fields)]


def insert_alone(
    document: Document,
    link_relations: Mapping[str, ToMany],
    nested: NestedRecord | None,
    stored_columns: frozenset[str] = frozenset(),
) -> Select[Any]:
    """Return a statement that inserts records, as `insert_parts` describes, their nested records and the audit rows.

    `stored_columns` are those of `insert_parts`. It returns `unique_id` and `document` of each record.
    """
    parts = insert_parts(document.table, link_relations, stored_columns, _other_inputs(nested), restricted=False)
    return _all_or_error(document, link_relations, "created", parts, nested)


def update_alone(
    document: Document,
    link_relations: Mapping[str, ToMany],
    replaced_links: frozenset[str],
    nested: NestedRecord | None,
    *extra_columns: ColumnElement[Any],
) -> Select[Any]:
    """Return a statement that updates records, as `update_parts` describes, with nested records and audit rows.

    It returns `unique_id` and `document` of each record, and the `extra_columns`, which may refer to the input row, in
    `given`, and to the records after the update, in `page`. It ends with an error if a record has changed between the
    beginning of the statement and the time at which the statement locked it, because the links may have changed too.
    """
    replaced = {name: link_relations[name] for name in replaced_links}
    parts = update_parts(document.table, replaced, _other_inputs(nested), restricted=False)
    return _all_or_error(document, link_relations, "updated", parts, nested).add_columns(*extra_columns)


def _other_inputs(nested: NestedRecord | None) -> list[ColumnClause[Any]]:
    return [*_AUDIT_INPUTS, *(nested.input_columns if nested else ())]


def _all_or_error(
    document: Document,
    link_relations: Mapping[str, ToMany],
    action: str,
    parts: StatementParts,
    nested: NestedRecord | None,
) -> Select[Any]:
    """Return the whole statement, which ends with an error unless everything was written."""
    inputs, replacement = parts.input_rows, parts.link_replacement
    guards: list[ColumnElement[bool]] = []
    # the input rows have sorted ids, all of which are linked after the statement
    authored = with_author(parts.written, inputs, *replacement.linkable_pairs)
    links_after = replacement.relations_after(link_relations)
    entries = [entry_or_error(document.table, authored, links_after, literal_column(f"'{action}'"))]
    if nested is not None:
        upserted = _upsert_nested(parts, nested)
        changed = upserted.authored
        # first, so that its timestamp is earlier
        entries.insert(0, entry_or_error(upserted.table, changed, {}, upsert_action(changed)))
        foreign_key = inputs.c[nested.relation.foreign_key_name]
        guards.append(or_(foreign_key.is_(None), upserted.has_requested_values(foreign_key)))
        document = document.replace_relations(
            {nested.relation: replace(nested.relation, changed_rows=upserted.changed)}
        )
    results = select_result(document, parts)
    unique_id = results.selected_columns[0]
    # OFFSET 0 makes PostgreSQL build one document for each input row, not one for each pair of rows
    result = results.where(unique_id == inputs.c.unique_id).offset(literal_column("0")).lateral("result")
    guards += [result.c.unique_id.is_not(None)]
    guards += [
        func.cardinality(result.c[name]) == func.cardinality(inputs.c[name]) for name in replacement.linkable_pairs
    ]
    return (
        select(inputs.c.unique_id, result.c.document)
        .select_from(inputs.outerjoin(result, true()))
        .where(func.require(and_(*guards)))
        .add_cte(*replacement.changes, insert_all_entries(*entries), _insert_audit_rows(parts))
    )


def _upsert_nested(parts: StatementParts, nested: NestedRecord) -> Upsert:
    inputs = parts.input_rows
    foreign_key = inputs.c[nested.relation.foreign_key_name]
    values = [inputs.c[f"nested_{name}"].label(name) for name in sorted(nested.fields)]
    authors = [inputs.c[name.name] for name in AUTHOR_COLUMNS]
    rows = select(foreign_key.label("unique_id"), *values, *authors).where(foreign_key.is_not(None))
    if parts.locked is not parts.written:  # a stored record is locked before its nested record, as in transactions
        rows = rows.join(parts.locked, parts.locked.c.unique_id == inputs.c.unique_id)
    return upsert(nested.relation.target, rows.cte("nested"), nested.fields)


def _insert_audit_rows(parts: StatementParts) -> CTE:
    inputs, written = parts.input_rows.c, parts.written.c
    version = select(written.version).where(written.unique_id == inputs.unique_id).correlate(parts.input_rows)
    values = {
        "principal": inputs.actor,
        "method": inputs.method,
        "route": inputs.route,
        "status": inputs.status,
        "resource": inputs.resource,
        "ids": array([inputs.unique_id]),
        "request_id": inputs.request_id,
        "reason": null(),
        "version": version.scalar_subquery(),
    }
    rows = select(*(values[name] for name in WRITABLE_COLUMNS)).where(inputs.audited)
    return insert(audit).from_select(WRITABLE_COLUMNS, rows).cte("audited_rows")
