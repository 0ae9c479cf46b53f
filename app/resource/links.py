"""Sets of links, such as the hospitals of a patient, replaced as a whole, however many links."""

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
    any_,
    bindparam,
    delete,
    func,
    or_,
    select,
    true,
)
from sqlalchemy.dialects.postgresql import insert

from app.db.base import ID
from app.errors import FieldError
from app.resource.document import ToMany
from app.resource.walls import is_own


class Linking(NamedTuple):
    """What replacing sets of links came to."""

    wanted: Mapping[str, list[str]]
    known: Mapping[str, frozenset[str]]
    """Of each set, the wanted ids that exist and that the principal may link; only these are linked."""

    def unknown(self) -> Iterator[tuple[str, int, str]]:
        """The wanted ids that are not linked, each with its set and its place there."""
        for name, ids in self.wanted.items():
            for place, unique_id in enumerate(ids):
                if unique_id not in self.known[name]:
                    yield name, place, unique_id


def unknown_link(name: str, place: int, unique_id: str) -> FieldError:
    """The error of naming what does not exist, at its place in a set of links."""
    target = name.removesuffix("_ids")
    return FieldError((name, place), f"There is no {target} of the unique_id {unique_id}", f"unknown_{target}")


@dataclass(frozen=True)
class _Set:
    """One set of links of a record, `{name}` among the parameters of the statement; for who is `limited` or not."""

    name: str
    relation: ToMany
    limited: bool

    @property
    def _wanted(self) -> ColumnElement[Any]:
        return bindparam(self.name, type_=ARRAY(ID))

    @property
    def _walled(self) -> bool:
        return self.limited and self.relation.walled

    def known(self, record_id: ColumnElement[str]) -> CTE:
        """The wanted ids that exist and that the principal may link, or that it finds linked."""
        target = self.relation.target.c.unique_id
        may_link = select(target).where(target == any_(self._wanted))
        if self._walled:
            linked = select(self.relation.key).where(self.relation.owner == record_id)
            may_link = may_link.where(or_(is_own(target), target.in_(linked)))
        return may_link.cte(f"known_{self.name}")

    def removed(self, record_id: ColumnElement[str]) -> CTE:
        """Remove what is not wanted; behind walls, of the principal's own only."""
        owner, key = self.relation.owner, self.relation.key
        unwanted = delete(self.relation.link).where(owner == record_id, key != all_(self._wanted))
        if self._walled:
            unwanted = unwanted.where(is_own(key))
        return unwanted.returning(key).cte(f"removed_{self.name}")

    def added(self, record: FromClause, known: CTE) -> CTE:
        """Add what is known and is not there.

        In the order of the ids, in which every transaction then locks the targets (by the foreign key's check).
        """
        rows = self._links(record, known).order_by(known.c.unique_id)
        missing = insert(self.relation.link).from_select([self.relation.owner, self.relation.key], rows)
        return missing.on_conflict_do_nothing().returning(self.relation.key).cte(f"added_{self.name}")

    def now(self, record: FromClause, known: CTE) -> ToMany:
        """The relation as it is after this statement, which itself sees the table as it was before."""
        links: Any = self._links(record, known)
        if self._walled:
            link, key = self.relation.link, self.relation.key
            kept = select(link).where(self.relation.owner.in_(select(record.c.unique_id)), ~is_own(key))
            links = links.union(kept)
        return replace(self.relation, changed=links.cte(f"now_{self.name}"))

    def _links(self, record: FromClause, known: CTE) -> Select[str, str]:
        owner, key = self.relation.owner, self.relation.key
        ids = select(record.c.unique_id.label(owner.name), known.c.unique_id.label(key.name))
        return ids.select_from(record.join(known, true()))


class Replacement(NamedTuple):
    """The replacement of some sets of links of a record, as parts of the statement that writes the record."""

    relations: Mapping[ToMany, ToMany]
    """Each relation as it is afterwards."""
    columns: list[ColumnElement[Any]]
    """`{name}` of each set: the ids that are known."""
    changes: list[CTE]
    """What changes them; each answers the links that it changes."""


def known_of(relations: Mapping[str, ToMany], record_id: ColumnElement[str], *, limited: bool) -> Select[Any]:
    """A statement that answers of each set, `{name}`, which of the wanted ids are known."""
    sets = (_Set(name, relation, limited) for name, relation in sorted(relations.items()))
    return select(*(_array(each.name, each.known(record_id)) for each in sets))


def replacing(
    relations: Mapping[str, ToMany], record: FromClause, record_id: ColumnElement[str], *, new: bool, limited: bool
) -> Replacement:
    """Make each set of links of a record what is wanted: `{name}` among the parameters of the statement.

    `record` is a row of it with its `unique_id`, if it is there; what is `new` has no links yet. On behalf of who is
    `limited` a walled set keeps the links to what is not its own.
    """
    now: dict[ToMany, ToMany] = {}
    columns: list[ColumnElement[Any]] = []
    changes: list[CTE] = []
    for name, relation in sorted(relations.items()):
        links = _Set(name, relation, limited)
        known = links.known(record_id)
        columns.append(_array(name, known))
        changes.append(links.added(record, known))
        if not new:
            changes.append(links.removed(record_id))
        now[relation] = links.now(record, known)
    return Replacement(now, columns, changes)


def _array(name: str, known: CTE) -> ColumnElement[Any]:
    return func.array(select(known.c.unique_id).scalar_subquery(), type_=ARRAY(ID)).label(name)
