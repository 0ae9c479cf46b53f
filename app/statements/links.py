"""Sets of links, such as the hospitals of a patient. A request always replaces a whole set, however large."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, cast

from sqlalchemy import (
    ARRAY,
    CTE,
    ColumnElement,
    FromClause,
    Row,
    Select,
    all_,
    delete,
    func,
    literal_column,
    or_,
    select,
    true,
)
from sqlalchemy.dialects.postgresql import insert

from app.db.base import ID_TEXT
from app.error_types import ErrorType
from app.errors import FieldError
from app.statements.documents import ToMany
from app.statements.hospital_scope import is_in_scope


class LinkResult(NamedTuple):
    """The ids that a request asks to link, and the ids that can be linked. Both are grouped by the name of the set."""

    requested_ids: Mapping[str, list[str]]
    linkable_ids: Mapping[str, frozenset[str]]
    """The requested ids that exist and that the principal may link. No other ids are linked."""
    former_ids: Mapping[str, frozenset[str]]
    """The ids that were linked before, for the sets of links for which the caller asks for them."""

    def unlinkable_ids(self) -> Iterator[tuple[str, int, str]]:
        """Yield `(name of the set, index in the set, id)` for each requested id that cannot be linked."""
        for name, ids in self.requested_ids.items():
            for index, unique_id in enumerate(ids):
                if unique_id not in self.linkable_ids[name]:
                    yield name, index, unique_id

    @classmethod
    def from_row(
        cls, requested_ids: Mapping[str, list[str]], row: Row[Any], former_links: Iterable[str] = ()
    ) -> "LinkResult":
        """Build the result for `requested_ids` from `row`, which has a column of linkable ids for each set of links.

        For each set in `former_links`, `row` has a column of `with_former_ids`.
        """
        return cls(
            requested_ids,
            {name: frozenset(getattr(row, name)) for name in requested_ids},
            {name: frozenset(getattr(row, f"former_{name}")) for name in former_links},
        )


def unknown_link_error(name: str, index: int, unique_id: str) -> FieldError:
    """Return the error for a requested id that does not exist.

    The location of the error is the field `name`, such as `hospital_ids`, and the index of the id in its list.
    """
    target = name.removesuffix("_ids")
    message = f"There is no {target} with the unique_id {unique_id}"
    return FieldError((name, index), message, cast("ErrorType", f"unknown_{target}"))


@dataclass(frozen=True)
class _LinkSet:
    """The set of links of each input row for one relation, such as the hospitals of each patient.

    `name` is the name of the set. The column of `input_rows` with the same name contains the requested ids.
    """

    name: str
    relation: ToMany
    input_rows: CTE
    restricted: bool
    owners: CTE
    """The records that get the links, by their `unique_id`."""

    @property
    def _requested_ids(self) -> ColumnElement[Any]:
        return self.input_rows.c[self.name]

    @property
    def _is_scoped(self) -> bool:
        return self.restricted and self.relation.scoped

    def linkable_pairs(self) -> CTE:
        """Return a CTE with the requested links that can be made. Each row has the ids of a record and a target.

        The target must exist. If the link does not exist yet, the principal must also be allowed to link the target.
        `OFFSET 0` makes PostgreSQL look up each id separately. Otherwise, it would read all doctors to find a few ids.
        """
        owner, key = self.relation.owner_column, self.relation.target_column
        target = self.relation.target.c.unique_id
        requested = func.unnest(self._requested_ids).table_valued("unique_id", name="asked").render_derived()
        linkable = select(target).where(target == requested.c.unique_id)
        if self._is_scoped:
            linked = select(key).where(owner == self.input_rows.c.unique_id)
            linkable = linkable.where(or_(is_in_scope(target), target.in_(linked.correlate(self.input_rows))))
        one = linkable.correlate(requested, self.input_rows).offset(literal_column("0")).lateral("one")
        ids = select(self.input_rows.c.unique_id.label(owner.name), one.c.unique_id.label(key.name))
        rows: FromClause = self.input_rows
        if self.owners is not self.input_rows:
            rows = rows.join(self.owners, self.owners.c.unique_id == self.input_rows.c.unique_id)
        return ids.select_from(rows.join(requested, true()).join(one, true())).cte(f"known_{self.name}")

    def delete_unrequested(self) -> CTE:
        """Return a CTE that deletes the links that are not requested.

        If a restricted principal replaces links to hospitals, only links to hospitals in the principal's scope are
        deleted.
        """
        owner, key = self.relation.owner_column, self.relation.target_column
        statement = delete(self.relation.link_table).where(
            owner == self.input_rows.c.unique_id, key != all_(self._requested_ids)
        )
        if self._is_scoped:
            statement = statement.where(is_in_scope(key))
        return statement.returning(owner).cte(f"removed_{self.name}")

    def insert_missing(self, pairs: CTE, *, are_new: bool) -> CTE:
        """Return a CTE that inserts the links in `pairs` that do not exist yet. `pairs` contains linkable pairs.

        None exists if the records `are_new`. The links are inserted in the order of the target ids. PostgreSQL locks
        the target of each inserted link to check the foreign key, and the order makes every transaction lock the
        targets in the same order.
        """
        owner, key = pairs.c
        rows = select(owner, key).order_by(key, owner)
        statement = insert(self.relation.link_table).from_select(
            [self.relation.owner_column, self.relation.target_column], rows
        )
        if not are_new:
            statement = statement.on_conflict_do_nothing()
        return statement.returning(self.relation.owner_column).cte(f"added_{self.name}")

    def relation_after(self, pairs: CTE) -> ToMany:
        """Return the relation with the links as they are after the statement that replaces them.

        The links are computed from `pairs`, because the statement itself sees the table as it was before the change.
        """
        links_after: CTE = pairs
        if self._is_scoped:
            link, key = self.relation.link_table, self.relation.target_column
            out_of_scope_links = select(link).where(
                self.relation.owner_column.in_(select(self.input_rows.c.unique_id)), ~is_in_scope(key)
            )
            links_after = select(*pairs.c).union(out_of_scope_links).cte(f"now_{self.name}")
        return replace(self.relation, pending_links=links_after)


class LinkReplacement(NamedTuple):
    """The CTEs that replace sets of links of the input rows, as parts of the statement that writes the records.

    The first column of each CTE is the id of the record.
    """

    relations: Mapping[ToMany, ToMany]
    """Maps each replaced relation to the same relation with the links as they are after the statement."""
    linkable_pairs: Mapping[str, CTE]
    """The CTE of `_LinkSet.linkable_pairs` for each set of links, by the name of the set."""
    changes: list[CTE]
    """The CTEs that insert or delete links. Each CTE returns the ids of the records for which it changed a link."""

    def relations_after(self, link_relations: Mapping[str, ToMany]) -> dict[str, ToMany]:
        """Return all `link_relations` with the links as they are after the statement."""
        return {name: self.relations.get(relation, relation) for name, relation in link_relations.items()}


def linkable_ids_statement(relations: Mapping[str, ToMany], input_rows: CTE, *, restricted: bool) -> Select[Any]:
    """Return a statement that selects, for each input row, `unique_id` and the linkable ids of each set of links."""
    linkable_pairs = {
        name: _LinkSet(name, relation, input_rows, restricted, owners=input_rows).linkable_pairs()
        for name, relation in sorted(relations.items())
    }
    return select(input_rows.c.unique_id, *linkable_id_columns(linkable_pairs, input_rows.c.unique_id))


def replace_links(
    relations: Mapping[str, ToMany], input_rows: CTE, inserted: CTE | None = None, *, restricted: bool
) -> LinkReplacement:
    """Build the CTEs that replace each set of links of the input rows with the requested ids.

    If the records are new, `inserted` contains those that have been inserted, or is `input_rows` if all of them have
    been. They have no links yet. If the records already exist, `inserted` is None. If the principal is `restricted`,
    links to hospitals outside the principal's scope are kept.
    """
    relations_after: dict[ToMany, ToMany] = {}
    linkable_pairs: dict[str, CTE] = {}
    changes: list[CTE] = []
    for name, relation in sorted(relations.items()):
        link_set = _LinkSet(name, relation, input_rows, restricted, owners=input_rows if inserted is None else inserted)
        pairs = linkable_pairs[name] = link_set.linkable_pairs()
        changes.append(link_set.insert_missing(pairs, are_new=inserted is not None))
        if inserted is None:
            changes.append(link_set.delete_unrequested())
        relations_after[relation] = link_set.relation_after(pairs)
    return LinkReplacement(relations_after, linkable_pairs, changes)


def with_former_ids(statement: Select[Any], relations: Mapping[str, ToMany]) -> Select[Any]:
    """Add columns to a statement that writes records: the ids of each set of links as they were before the statement.

    The first column of the statement is the id of the record.
    """
    record_id, former_ids = statement.selected_columns[0], []
    for name, relation in sorted(relations.items()):
        linked_ids = select(relation.target_column).where(relation.owner_column == record_id).scalar_subquery()
        former_ids.append(func.array(linked_ids, type_=ARRAY(ID_TEXT)).label(f"former_{name}"))
    return statement.add_columns(*former_ids)


def linkable_id_columns(
    linkable_pairs: Mapping[str, CTE], record_id: ColumnElement[str]
) -> Iterator[ColumnElement[Any]]:
    """Yield a column for each set of links: the array of the ids that can be linked to the record.

    The column has the name of the set.
    """
    for name, pairs in linkable_pairs.items():
        owner, key = pairs.c
        yield func.array(select(key).where(owner == record_id).scalar_subquery(), type_=ARRAY(ID_TEXT)).label(name)
