"""Sets of links, such as the hospitals of a patient, replaced in one statement, however many links."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from sqlalchemy import ARRAY, ColumnElement, Select, all_, any_, bindparam, delete, exists, func, or_, select
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
    changed: bool

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


def replacing(relations: Mapping[str, ToMany], record_id: ColumnElement[str], *, limited: bool) -> Select[Any]:
    """A statement that makes each set of links of a record what is wanted: `{name}` among its parameters.

    It removes what is not wanted, adds what is wanted, exists and is not there, and answers the columns `{name}`, the
    ids that are known, and `changed`. Added in the order of the ids, in which every transaction then locks the targets
    (by the foreign key's check). On behalf of who is `limited` a walled set keeps the links to what is not its own.
    """
    columns: list[ColumnElement[Any]] = []
    changes: list[ColumnElement[bool]] = []
    for name, relation in sorted(relations.items()):
        wanted = bindparam(name, type_=ARRAY(ID))
        target, key = relation.target.c.unique_id, relation.key
        may_link = select(target).where(target == any_(wanted))
        unwanted = delete(relation.link).where(relation.owner == record_id, key != all_(wanted))
        if limited and relation.walled:
            linked = select(key).where(relation.owner == record_id)
            may_link = may_link.where(or_(is_own(target), target.in_(linked)))
            unwanted = unwanted.where(is_own(key))
        known = may_link.cte(f"known_{name}")
        rows = select(record_id, known.c.unique_id).order_by(known.c.unique_id)
        missing = insert(relation.link).from_select([relation.owner, key], rows).on_conflict_do_nothing()
        columns.append(func.array(select(known.c.unique_id).scalar_subquery(), type_=ARRAY(ID)).label(name))
        changes += [
            exists(select(unwanted.returning(key).cte(f"removed_{name}"))),
            exists(select(missing.returning(key).cte(f"added_{name}"))),
        ]
    return select(*columns, or_(*changes).label("changed"))
