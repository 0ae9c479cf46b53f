"""The documents of FHIR resources: what PostgreSQL builds instead of the documents of the contract."""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from sqlalchemy import (
    ARRAY,
    CTE,
    ColumnElement,
    FromClause,
    Select,
    Table,
    Text,
    func,
    select,
    true,
)
from sqlalchemy.dialects.postgresql import aggregate_order_by

from app.fhir_resources.ids import logical_id_sql
from app.fhir_resources.json_text import SqlText, json_object, json_value, literal, member, quoted
from app.fhir_resources.systems import UNIQUE_ID_SYSTEM
from app.statements.documents import Document, ToMany, ToOne, as_contract_json

Columns = Mapping[str, ColumnElement[Any]]
Build = Callable[[Columns, Mapping[str, ColumnElement[Any]]], SqlText]
"""Returns the text of a resource. It takes the columns of the record and of what is linked to it.

The linked columns have names such as `patient_profile.email` for a single record. Names such as `patient_hospital`
stand for an array of references, sorted by id.
"""

_META_PATTERN = re.compile(r'"versionId":"([0-9]+)","lastUpdated":"([^"]+)"')
"""Matches the beginning of `meta`, which precedes everything that clients can set."""


class Meta(NamedTuple):
    """The version of a resource and the time of its last change, in ISO 8601."""

    version_id: str
    last_updated: str


def meta_of(document: str) -> Meta:
    """Return the metadata of a resource that PostgreSQL has built."""
    match = _META_PATTERN.search(document)
    assert match is not None, "every resource has them"  # noqa: S101
    return Meta(*match.groups())


def version_tag(document: str) -> str:
    """Return the weak entity tag of a resource, which contains its version (FHIR R4, http.html#versioning)."""
    return f'W/"{meta_of(document).version_id}"'


def resource_members(resource_type: str, columns: Columns) -> tuple[str, SqlText, SqlText]:
    """Return the beginning of a resource with its type, and its members `id` and `meta`."""
    updated = quoted(as_contract_json(columns["last_updated"]))
    meta = literal(',"meta":{"versionId":"').concat(columns["version"].cast(Text)).concat(literal('"'))
    return (
        f'{{"resourceType":"{resource_type}"',
        member("id", quoted(logical_id_sql(columns["unique_id"]))),
        meta.concat(member("lastUpdated", updated)).concat(literal("}")),
    )


def unique_id_identifier(columns: Columns) -> SqlText:
    """Return the identifier that contains the `unique_id` of a record. Its characters need no escapes."""
    return json_object(f'{{"system":"{UNIQUE_ID_SYSTEM}"', member("value", quoted(columns["unique_id"])))


def reference(resource_type: str, unique_id: ColumnElement[str], *names: ColumnElement[Any]) -> SqlText:
    """Return a reference to a resource. Its display consists of the `names` that are not null."""
    opening = f'{{"reference":"{resource_type}/'
    members = [literal('"')]
    if names:
        members.append(member("display", json_value(func.concat_ws(literal(" "), *names))))
    return json_object(opening, logical_id_sql(unique_id), *members)


class ResourceDocument(Document):
    """Builds the resources of one type.

    `references` has, for each relation to a set of records, the type of their resources and the columns with their
    names. `others` has further parts of the resources, each with a function that returns the part of the records in a
    page.
    """

    def __init__(
        self,
        table: Table,
        build: Build,
        relations: Mapping[str, ToOne | ToMany],
        references: Mapping[str, tuple[str, tuple[str, ...]]],
        others: Mapping[str, Callable[[CTE], SqlText]],
    ) -> None:
        self.table = table
        self.relations = dict(relations)
        self.build = build
        self.references = references
        self.others = others

    def select_page(self, page: CTE) -> Select[str, str]:
        """Return the statement that builds the resources of the rows in `page`, as `Document.select_page` describes."""
        source: FromClause = page
        linked: dict[str, ColumnElement[Any]] = {}
        for name, relation in self.relations.items():
            if isinstance(relation, ToOne):
                target = relation.target.alias()
                source = source.outerjoin(target, target.c.unique_id == page.c[relation.foreign_key_name])
                linked |= {f"{name}.{column.name}": column for column in target.c}
            elif isinstance(relation, ToMany):
                # joined, because resources contain the first and the other references in different places
                references = self._select_references(name, relation, page).lateral(f"of_{name}")
                source, linked[name] = source.join(references, true()), references.c.linked
        linked |= {name: part_of(page) for name, part_of in self.others.items()}
        document = self.build(dict(page.c.items()), linked).label("document")
        return select(page.c.unique_id, document).select_from(source)

    def _select_references(self, name: str, relation: ToMany, page: CTE) -> Select[Any]:
        resource_type, name_columns = self.references[name]
        target = relation.target
        item = reference(resource_type, target.c.unique_id, *(target.c[column] for column in name_columns))
        references = func.array_agg(aggregate_order_by(item, target.c.unique_id), type_=ARRAY(Text))
        return relation.select_linked(page, references.label("linked"))
