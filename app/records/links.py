"""Sets of links, such as the hospitals of a patient, which requests replace as a whole, whatever their size."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from sqlalchemy import (
    ARRAY,
    CTE,
    ColumnElement,
    FromClause,
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
from app.errors import FieldError
from app.records.documents import ToMany
from app.records.hospital_scope import is_in_scope


class LinkResult(NamedTuple):
    """The result of replacing sets of links."""

    requested_ids: Mapping[str, list[str]]
    linkable_ids: Mapping[str, frozenset[str]]
    """The requested ids of each set that exist and that the principal may link; only these are linked."""

    def unlinkable_ids(self) -> Iterator[tuple[str, int, str]]:
        """Yield each requested id that is not linked, as `(name of the set, index in it, id)`."""
        for name, ids in self.requested_ids.items():
            for index, unique_id in enumerate(ids):
                if unique_id not in self.linkable_ids[name]:
                    yield name, index, unique_id


def unknown_link_error(name: str, index: int, unique_id: str) -> FieldError:
    """Return the error for an id that does not exist, located by its index in a set of links."""
    target = name.removesuffix("_ids")
    return FieldError((name, index), f"There is no {target} with the unique_id {unique_id}", f"unknown_{target}")


@dataclass(frozen=True)
class _LinkSet:
    """One set of links of each input row, whose column `name` has the requested ids."""

    name: str
    relation: ToMany
    input_rows: CTE
    restricted: bool

    @property
    def _requested_ids(self) -> ColumnElement[Any]:
        return self.input_rows.c[self.name]

    @property
    def _is_scoped(self) -> bool:
        return self.restricted and self.relation.scoped

    def linkable_pairs(self) -> CTE:
        """Select the requested links to existing records that the principal may link or that are already linked.

        OFFSET makes PostgreSQL look up each id by itself: it would otherwise read all doctors for a few ids.
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
        return ids.select_from(self.input_rows.join(requested, true()).join(one, true())).cte(f"known_{self.name}")

    def delete_unrequested(self) -> CTE:
        """Delete the links that are not requested; a restricted principal deletes only scoped links in its scope."""
        owner, key = self.relation.owner_column, self.relation.target_column
        statement = delete(self.relation.link_table).where(
            owner == self.input_rows.c.unique_id, key != all_(self._requested_ids)
        )
        if self._is_scoped:
            statement = statement.where(is_in_scope(key))
        return statement.returning(owner).cte(f"removed_{self.name}")

    def insert_missing(self, pairs: FromClause) -> CTE:
        """Insert those of the linkable `pairs` that do not exist.

        They are inserted in the order of the target ids, so that every transaction locks the targets (by the check of
        the foreign key) in the same order.
        """
        owner, key = pairs.c
        rows = select(owner, key).order_by(key, owner)
        statement = insert(self.relation.link_table).from_select(
            [self.relation.owner_column, self.relation.target_column], rows
        )
        return statement.on_conflict_do_nothing().returning(self.relation.owner_column).cte(f"added_{self.name}")

    def relation_after(self, pairs: FromClause) -> ToMany:
        """Return the relation as it is after this statement, which itself sees the table as it was before."""
        links_after: Any = select(*pairs.c)
        if self._is_scoped:
            link, key = self.relation.link_table, self.relation.target_column
            out_of_scope_links = select(link).where(
                self.relation.owner_column.in_(select(self.input_rows.c.unique_id)), ~is_in_scope(key)
            )
            links_after = links_after.union(out_of_scope_links)
        return replace(self.relation, pending_links=links_after.cte(f"now_{self.name}"))


class LinkReplacement(NamedTuple):
    """The replacement of some sets of links of the input rows, as parts of the statement that writes the records.

    The first column of each part is the id of the record.
    """

    relations: Mapping[ToMany, ToMany]
    """Each relation as it is after the statement."""
    linkable_pairs: Mapping[str, CTE]
    """The linkable pairs of each set: see `_LinkSet.linkable_pairs`."""
    changes: list[CTE]
    """The parts that change links; each returns the ids of the records whose links it changes."""


def linkable_ids_statement(relations: Mapping[str, ToMany], input_rows: CTE, *, restricted: bool) -> Select[Any]:
    """Build a statement that returns for each input row its `unique_id` and the linkable ids of each set."""
    linkable_pairs = {
        name: _LinkSet(name, relation, input_rows, restricted).linkable_pairs()
        for name, relation in sorted(relations.items())
    }
    return select(input_rows.c.unique_id, *linkable_id_columns(linkable_pairs, input_rows.c.unique_id))


def replace_links(
    relations: Mapping[str, ToMany], input_rows: CTE, written: FromClause | None = None, *, restricted: bool
) -> LinkReplacement:
    """Build the parts that make each set of links of the input rows equal to the requested ids.

    For new records, `written` is those that were inserted; they have no links yet. For a `restricted` principal, a
    scoped set keeps the links to hospitals outside its scope.
    """
    relations_after: dict[ToMany, ToMany] = {}
    linkable_pairs: dict[str, CTE] = {}
    changes: list[CTE] = []
    for name, relation in sorted(relations.items()):
        link_set = _LinkSet(name, relation, input_rows, restricted)
        pairs = linkable_pairs[name] = link_set.linkable_pairs()
        new_pairs: FromClause = pairs
        if written is not None:
            owner, _ = pairs.c
            new_pairs = select(*pairs.c).join(written, written.c.unique_id == owner).subquery(f"new_{name}")
        changes.append(link_set.insert_missing(new_pairs))
        if written is None:
            changes.append(link_set.delete_unrequested())
        relations_after[relation] = link_set.relation_after(new_pairs)
    return LinkReplacement(relations_after, linkable_pairs, changes)


def linkable_id_columns(
    linkable_pairs: Mapping[str, CTE], record_id: ColumnElement[str]
) -> Iterator[ColumnElement[Any]]:
    """Yield a column for each set, with the name of the set: the linkable ids of a record."""
    for name, pairs in linkable_pairs.items():
        owner, key = pairs.c
        yield func.array(select(key).where(owner == record_id).scalar_subquery(), type_=ARRAY(ID_TEXT)).label(name)
