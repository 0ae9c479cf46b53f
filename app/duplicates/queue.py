"""The queue of pairs that may be duplicates: its list, and decisions on pairs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    DateTime,
    Double,
    Integer,
    Select,
    and_,
    any_,
    bindparam,
    exists,
    func,
    or_,
    select,
    update,
)

from app.auth.principal import Principal
from app.db.base import ID_TEXT
from app.db.connection import Connection, compiled_by_shape
from app.errors import NotFoundError
from app.matching.pairs import fingerprint, read_patients
from app.models import Patient, duplicates, patient_hospitals
from app.statements.hospital_scope import patient_in_scope, scope_parameters

_PAIR = duplicates.c
_PATIENT_ID = Patient.__table__.c.unique_id


@dataclass(frozen=True, slots=True)
class QueueQuery:
    """Which pairs of the queue to list. A pair has to match all filters that are not None."""

    status: str
    grades: Sequence[str] | None = None
    hospital_ids: Sequence[str] | None = None
    """The ids of hospitals of at least one of the two patients."""
    found_gte: datetime | None = None
    found_lt: datetime | None = None

    @property
    def parameters(self) -> dict[str, Any]:
        """The filters by name."""
        names = ("grades", "hospital_ids", "found_gte", "found_lt")
        return {name: value for name in names if (value := getattr(self, name)) is not None}


def _grade(*, restricted: bool) -> ColumnElement[Any]:
    """Return the grade that a principal gets: other records, which may be out of its scope, may have raised `grade`."""
    return _PAIR.own_grade.label("grade") if restricted else _PAIR.grade


def _entry_columns(*, restricted: bool) -> tuple[ColumnElement[Any], ...]:
    values = (_PAIR.score, _PAIR.agrees, _PAIR.differs, _PAIR.status, _PAIR.found)
    return (_PAIR.unique_id, _PAIR.one_id, _PAIR.other_id, _grade(restricted=restricted), *values)


def _is_visible(*, restricted: bool) -> ColumnElement[bool]:
    """Return the condition that both patients of a pair exist and are visible to the principal, as is its grade.

    Of a merged pair, only one patient is left.
    """
    visible: list[ColumnElement[bool]] = []
    for patient_id in (_PAIR.one_id, _PAIR.other_id):
        scope = [patient_in_scope(patient_id)] if restricted else []
        visible.append(and_(exists().where(patient_id == _PATIENT_ID), *scope))
    has_own_grade = [_PAIR.own_grade.is_not(None)] if restricted else []
    return and_(*has_own_grade, or_(and_(*visible), and_(_PAIR.status == "merged", or_(*visible))))


def _of_hospitals() -> ColumnElement[bool]:
    link = patient_hospitals.c
    is_of_pair = or_(link.patient_id == _PAIR.one_id, link.patient_id == _PAIR.other_id)
    return exists().where(is_of_pair, link.hospital_id == any_(bindparam("hospital_ids", type_=ARRAY(ID_TEXT))))


_GRADES = bindparam("grades", type_=ARRAY(ID_TEXT))
_FILTERS: Mapping[str, ColumnElement[bool]] = {
    "hospital_ids": _of_hospitals(),
    "found_gte": _PAIR.found >= bindparam("found_gte", type_=DateTime(timezone=True)),
    "found_lt": _PAIR.found < bindparam("found_lt", type_=DateTime(timezone=True)),
}


def _conditions(filters: frozenset[str], *, restricted: bool) -> list[ColumnElement[bool]]:
    is_status = _PAIR.status == bindparam("status", type_=ID_TEXT)
    column = _PAIR.own_grade if restricted else _PAIR.grade
    by_name = {**_FILTERS, "grades": column == any_(_GRADES)}
    return [is_status, *(by_name[name] for name in sorted(filters)), _is_visible(restricted=restricted)]


@compiled_by_shape
def _page_statement(filters: frozenset[str], *, is_first: bool, restricted: bool) -> Select[Any]:
    statement = select(*_entry_columns(restricted=restricted)).where(*_conditions(filters, restricted=restricted))
    if not is_first:
        after_score = bindparam("after_score", type_=Double)
        statement = statement.where(
            or_(
                _PAIR.score < after_score,
                and_(_PAIR.score == after_score, _PAIR.unique_id < bindparam("after_id", type_=ID_TEXT)),
            )
        )
    return statement.order_by(_PAIR.score.desc(), _PAIR.unique_id.desc()).limit(bindparam("limit", type_=Integer))


@compiled_by_shape
def _count_statement(filters: frozenset[str], *, restricted: bool) -> Select[int]:
    return select(func.count()).select_from(duplicates).where(*_conditions(filters, restricted=restricted))


async def list_pairs(
    connection: Connection, principal: Principal, query: QueueQuery, after: tuple[float, str] | None, limit: int
) -> list[dict[str, Any]]:
    """Return up to `limit` pairs after the position `after`, those with the highest scores first.

    A position consists of the score and the id of a pair; None is the position before the first pair. Only pairs of two
    patients that are visible to the principal are listed.
    """
    parameters = {"status": query.status, "limit": limit, **query.parameters, **scope_parameters(principal)}
    if after is not None:
        parameters |= {"after_score": after[0], "after_id": after[1]}
    restricted = principal.hospitals is not None
    statement = _page_statement(frozenset(query.parameters), is_first=after is None, restricted=restricted)
    return [row._asdict() for row in await connection.execute(statement, parameters)]


async def count_pairs(connection: Connection, principal: Principal, query: QueueQuery) -> int:
    """Return the number of pairs that `list_pairs` lists."""
    statement = _count_statement(frozenset(query.parameters), restricted=principal.hospitals is not None)
    parameters = {"status": query.status, **query.parameters, **scope_parameters(principal)}
    return int((await connection.execute(statement, parameters)).scalar_one())


@compiled_by_shape
def _pair_statement(*, restricted: bool) -> Select[Any]:
    is_pair = _PAIR.unique_id == bindparam("pair_id", type_=ID_TEXT)
    statement = select(*_entry_columns(restricted=restricted))
    return statement.where(is_pair, _is_visible(restricted=restricted)).with_for_update(of=duplicates)


_DISMISS = (
    update(duplicates)
    .where(_PAIR.unique_id == bindparam("pair_id", type_=ID_TEXT))
    .values(
        status="dismissed",
        reason=bindparam("new_reason"),
        fingerprint=bindparam("new_fingerprint"),
    )
)


async def dismiss(connection: Connection, principal: Principal, unique_id: str, reason: str) -> Mapping[str, Any]:
    """Decide that the patients of a pair are two persons, and return the pair. The decision holds until either changes.

    Raises:
        NotFoundError: no visible pair has this id.
    """
    parameters = {"pair_id": unique_id, **scope_parameters(principal)}
    statement = _pair_statement(restricted=principal.hospitals is not None)
    row = (await connection.execute(statement, parameters)).one_or_none()
    if row is None:
        raise NotFoundError("pair")
    patients = await read_patients(connection, [row.one_id, row.other_id])
    if len(patients) < len((row.one_id, row.other_id)):
        raise NotFoundError("pair")  # deleted meanwhile
    new_fingerprint = fingerprint(patients[row.one_id], patients[row.other_id])
    await connection.execute(_DISMISS, {"pair_id": unique_id, "new_reason": reason, "new_fingerprint": new_fingerprint})
    return {**row._asdict(), "status": "dismissed"}
