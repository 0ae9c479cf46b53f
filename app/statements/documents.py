"""Builds the JSON documents of records in PostgreSQL, in one statement, from the fields of the response schema.

A field of the schema is filled from the column of the same name, or from a relation (`ToOne`, `ToMany`, `Elements`).
PostgreSQL joins the text of a document with `concat`. `row_to_json` and `json_build_object` would look up in the
catalog how to write each value of each row, which takes PostgreSQL a fifth longer for a page of 50 records. Clients
receive the bytes unchanged. Each relation of a record is a subquery of its own, for which indexes yield the rows in the
order of the result. Relations aggregated for the whole page would have to be sorted and merged, which takes PostgreSQL
an eighth longer for a page of 50 records, and a third longer for one record.
"""

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass
from typing import Any, Self

from pydantic import BaseModel
from sqlalchemy import (
    CTE,
    Column,
    ColumnElement,
    DateTime,
    FromClause,
    Numeric,
    Select,
    Table,
    Text,
    case,
    cast,
    column,
    func,
    literal_column,
    select,
)
from sqlalchemy.dialects.postgresql import JSON, aggregate_order_by

from app.db.base import non_generated_columns

_NULL: ColumnElement[Any] = literal_column("'null'")
_SECONDS_FORMAT = 'YYYY-MM-DD"T"HH24:MI:SS"Z"'
_MICROSECONDS_FORMAT = 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'


def as_contract_json(value: ColumnElement[Any]) -> ColumnElement[Any]:
    """Return the SQL expression for a value in the format of the API contract.

    Timestamps are in UTC, with six decimals, or with none if they are whole seconds. Decimal numbers become strings.
    """
    if isinstance(value.type, DateTime):
        is_whole_second = value == func.date_trunc(literal_column("'second'"), value)
        text_format = case(
            (is_whole_second, literal_column(f"'{_SECONDS_FORMAT}'")), else_=literal_column(f"'{_MICROSECONDS_FORMAT}'")
        )
        return func.to_char(func.timezone(literal_column("'UTC'"), value), text_format)
    if isinstance(value.type, Numeric):
        return cast(value, Text)
    return value


def _json_text(value: ColumnElement[Any]) -> ColumnElement[Any]:
    """Return the SQL expression for the JSON of a value that is not null, which `concat` takes as text."""
    return func.json_scalar(as_contract_json(value), type_=JSON)


def _object_text(values: Mapping[str, ColumnElement[Any]], colon: str, comma: str) -> ColumnElement[str]:
    """Return the SQL expression for the text of a JSON object, which consists of values in JSON, by key.

    There may be up to 49 values, because a function of PostgreSQL takes 100 arguments.
    """
    parts: list[ColumnElement[Any]] = []
    for name, value in values.items():
        parts += [literal_column(f"""'{comma if parts else "{"}"{name}"{colon}'"""), func.coalesce(value, _NULL)]
    return func.concat(*parts, literal_column("'}'"), type_=Text)


def _nested_object(schema: type[BaseModel], source: FromClause) -> ColumnElement[str]:
    # with spaces, as `json_build_object` wrote it in earlier versions, because otherwise all entity tags would change
    return _object_text({name: _json_text(source.c[name]) for name in schema.model_fields}, " : ", ", ")


def _nested_array(schema: type[BaseModel], source: FromClause, *ordering: ColumnElement[Any]) -> ColumnElement[str]:
    separator: Any = literal_column("', '")
    items = func.string_agg(
        _nested_object(schema, source), aggregate_order_by(separator, *ordering) if ordering else separator
    )
    return func.concat(literal_column("'['"), items, literal_column("']'"), type_=Text)


@dataclass(frozen=True)
class ToOne:
    """A nested object in a document: the row of `target` that the column `foreign_key_name` refers to, or `null`."""

    schema: type[BaseModel]
    target: Table
    foreign_key_name: str
    changed_rows: FromClause | None = None
    """The rows of `target` that the statement itself changes, as they are afterwards. The statement cannot read them
    from `target`, because it sees the table as it was before the change."""

    def value(self, page: FromClause) -> ColumnElement[Any]:
        """Return the SQL expression for the text of the nested object of a record in `page`, or null without one."""
        sources = [self.target.alias()] if self.changed_rows is None else [self.changed_rows, self.target.alias()]
        values = [
            select(_nested_object(self.schema, source))
            .where(source.c.unique_id == page.c[self.foreign_key_name])
            .correlate(page)
            .scalar_subquery()
            for source in sources
        ]
        return func.coalesce(*values, type_=Text) if len(values) > 1 else values[0]


@dataclass(frozen=True)
class ToMany:
    """A nested array in a document: the rows of `target` that `link_table` links to the record, sorted by id."""

    schema: type[BaseModel]
    target: Table
    link_table: Table
    scoped: bool = False
    """Whether the targets are hospitals. If they are, a restricted principal can change only the links to hospitals in
    its scope."""
    pending_links: FromClause | None = None
    """The links as they are after the statement that changes them, or None to read the links from `link_table`. The
    statement itself cannot read the changed links from `link_table`, because it sees the table as it was before the
    change."""

    @property
    def owner_column(self) -> Column[Any]:
        """The column of `link_table` with the id of the record that has the links, for example `patient_id`."""
        return self.link_table.primary_key.columns[0]

    @property
    def target_column(self) -> Column[Any]:
        """The column of `link_table` with the id of the linked record, for example `hospital_id`."""
        return self.link_table.primary_key.columns[1]

    @property
    def link_columns(self) -> tuple[FromClause, ColumnElement[Any], ColumnElement[Any]]:
        """A tuple: the links to read (`pending_links` or `link_table`), their owner column and their target column."""
        links = self.link_table if self.pending_links is None else self.pending_links
        return links, links.c[self.owner_column.name], links.c[self.target_column.name]

    def select_linked(self, page: FromClause, aggregate: ColumnElement[Any]) -> Select[Any]:
        """Return a subquery with one aggregate over the rows of `target` that a record in `page` is linked to."""
        links, owner, key = self.link_columns
        linked = links.join(self.target, self.target.c.unique_id == key)
        return select(aggregate).select_from(linked).where(owner == page.c.unique_id).correlate(page)

    def value(self, page: FromClause) -> ColumnElement[Any]:
        """Return the SQL expression for the text of the nested array of a record in `page`."""
        items = _nested_array(self.schema, self.target, self.target.c.unique_id)
        return self.select_linked(page, items).scalar_subquery()


@dataclass(frozen=True)
class Elements:
    """A nested array in a document: the objects in the `jsonb` column of the same name, with the keys of `schema`."""

    schema: type[BaseModel]
    column_name: str

    def value(self, page: FromClause) -> ColumnElement[Any]:
        """Return the SQL expression for the text of the nested array of a record in `page`, which is empty for null."""
        values = func.jsonb_to_recordset(page.c[self.column_name]).table_valued(
            *(column(name, Text) for name in self.schema.model_fields), name=f"elements_of_{self.column_name}"
        )
        items = values.render_derived(with_types=True)
        nested = select(_nested_array(self.schema, items)).select_from(items).correlate(page)
        return nested.scalar_subquery()


class Document:
    """Builds the documents of one resource.

    Each field of `schema` is filled from the relation with the same name. If there is no such relation, the field is
    filled from the column of `table` with the same name.
    """

    def __init__(self, schema: type[BaseModel], table: Table, **relations: ToOne | ToMany | Elements) -> None:
        self.schema = schema
        self.table = table
        self.relations = relations

    def replace_relations(self, replacements: Mapping[Any, Any]) -> Self:
        """Return a copy of this document in which some relations are replaced.

        Each relation that is a key of `replacements` is replaced by the corresponding value.
        """
        replaced = copy(self)
        replaced.relations = {name: replacements.get(relation, relation) for name, relation in self.relations.items()}
        return replaced

    def select_rows(self) -> Select[Any]:
        """Return a statement that selects all rows of the table, with every column that is not generated."""
        return select(*non_generated_columns(self.table))

    def select_documents(self, rows: Select[Any]) -> Select[str, str]:
        """Return a statement that builds the documents of `rows`, a selection from the table.

        The statement returns `(unique_id, document)` for each row, both as text.
        """
        return self.select_page(rows.cte("page"))

    def select_page(self, page: CTE) -> Select[str, str]:
        """Return the same statement as `select_documents`, but for the rows in `page`, a CTE of a larger statement."""
        values = {
            name: self.relations[name].value(page) if name in self.relations else _json_text(page.c[name])
            for name in self.schema.model_fields
        }
        return select(page.c.unique_id, _object_text(values, ":", ",").label("document")).select_from(page)
