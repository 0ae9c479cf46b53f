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
    delete,
    func,
    literal_column,
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
    """One set of links of each record that is `given`, in the column `{name}`; for who is `limited` or not."""

    name: str
    relation: ToMany
    given: CTE
    limited: bool

    @property
    def _wanted(self) -> ColumnElement[Any]:
        return self.given.c[self.name]

    @property
    def _walled(self) -> bool:
        return self.limited and self.relation.walled

    def known(self) -> CTE:
        """The wanted links to what exists and what the principal may link, or finds linked.

        Each is looked up by itself, which OFFSET has PostgreSQL do: it would read all doctors for a few otherwise.
        """
        owner, key = self.relation.owner, self.relation.key
        target = self.relation.target.c.unique_id
        asked = func.unnest(self._wanted).table_valued("unique_id", name="asked").render_derived()
        may_link = select(target).where(target == asked.c.unique_id)
        if self._walled:
            linked = select(key).where(owner == self.given.c.unique_id)
            may_link = may_link.where(or_(is_own(target), target.in_(linked.correlate(self.given))))
        one = may_link.correlate(asked, self.given).offset(literal_column("0")).lateral("one")
        ids = select(self.given.c.unique_id.label(owner.name), one.c.unique_id.label(key.name))
        return ids.select_from(self.given.join(asked, true()).join(one, true())).cte(f"known_{self.name}")

    def removed(self) -> CTE:
        """Remove what is not wanted; behind walls, of the principal's own only."""
        owner, key = self.relation.owner, self.relation.key
        unwanted = delete(self.relation.link).where(owner == self.given.c.unique_id, key != all_(self._wanted))
        if self._walled:
            unwanted = unwanted.where(is_own(key))
        return unwanted.returning(owner).cte(f"removed_{self.name}")

    def added(self, known: FromClause) -> CTE:
        """Add what is known and is not there.

        In the order of the ids, in which every transaction then locks the targets (by the foreign key's check).
        """
        owner, key = known.c
        rows = select(owner, key).order_by(key, owner)
        missing = insert(self.relation.link).from_select([self.relation.owner, self.relation.key], rows)
        return missing.on_conflict_do_nothing().returning(self.relation.owner).cte(f"added_{self.name}")

    def now(self, known: FromClause) -> ToMany:
        """The relation as it is after this statement, which itself sees the table as it was before."""
        links: Any = select(*known.c)
        if self._walled:
            link, key = self.relation.link, self.relation.key
            kept = select(link).where(self.relation.owner.in_(select(self.given.c.unique_id)), ~is_own(key))
            links = links.union(kept)
        return replace(self.relation, changed=links.cte(f"now_{self.name}"))


class Replacement(NamedTuple):
    """The replacement of some sets of links of the records that are given, as parts of the statement that writes them.

    Of what is `known`, `changes` and `now` the first columns are the records' ids.
    """

    relations: Mapping[ToMany, ToMany]
    """Each relation as it is afterwards."""
    known: Mapping[str, CTE]
    """Of each set the wanted links that are known."""
    changes: list[CTE]
    """What changes them; each answers the ids of the records whose links it changes."""


def known_of(relations: Mapping[str, ToMany], given: CTE, *, limited: bool) -> Select[Any]:
    """A statement that answers which of the wanted ids are known: `{name}` of each set, beside the `unique_id`."""
    known = {name: _Set(name, relation, given, limited).known() for name, relation in sorted(relations.items())}
    return select(given.c.unique_id, *ids_of(known, given.c.unique_id))


def replacing(
    relations: Mapping[str, ToMany], given: CTE, written: FromClause | None = None, *, limited: bool
) -> Replacement:
    """Make each set of links of the `given` records what is wanted; of the new ones that are `written`, if any are new.

    What is new has no links yet. On behalf of who is `limited` a walled set keeps the links to what is not its own.
    """
    now: dict[ToMany, ToMany] = {}
    known: dict[str, CTE] = {}
    changes: list[CTE] = []
    for name, relation in sorted(relations.items()):
        links = _Set(name, relation, given, limited)
        all_known = known[name] = links.known()
        owned: FromClause = all_known
        if written is not None:
            owner, _ = all_known.c
            owned = select(*all_known.c).join(written, written.c.unique_id == owner).subquery(f"new_{name}")
        changes.append(links.added(owned))
        if written is None:
            changes.append(links.removed())
        now[relation] = links.now(owned)
    return Replacement(now, known, changes)


def ids_of(known: Mapping[str, CTE], record_id: ColumnElement[str]) -> Iterator[ColumnElement[Any]]:
    """`{name}` of each set: the ids that are known of a record."""
    for name, links in known.items():
        owner, key = links.c
        yield func.array(select(key).where(owner == record_id).scalar_subquery(), type_=ARRAY(ID)).label(name)
