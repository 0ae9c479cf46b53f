"""Affected patients: those whose documents contain a hospital, doctor or profile that has changed.

For a restricted principal with up to 20,000 patients, what this reads depends on its own patients only. Otherwise, the
time would reveal how large the hospitals are that others change.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

from sqlalchemy import ARRAY, ColumnElement, Select, any_, bindparam, func, literal_column, select, true

from app.db.base import ID_TEXT
from app.db.database import Database
from app.models import Patient, changes, hospital_changes, patient_doctors, patient_hospitals
from app.models.change import ANY_HOSPITAL, MAX_AFFECTED_PATIENTS
from app.statements.hospital_scope import is_in_scope, patient_in_scope

Source = tuple[str, str]
"""The resource and the id of a changed record that documents of patients contain."""

_LINKS = patient_hospitals.alias()  # the hospital scope refers to the table itself
_SHOWN_IN: dict[str, tuple[Any, Any]] = {
    "hospitals": (_LINKS.c.patient_id, _LINKS.c.hospital_id),
    "doctors": (patient_doctors.c.patient_id, patient_doctors.c.doctor_id),
    "profiles": (Patient.__table__.c.unique_id, Patient.__table__.c.profile_id),
}
"""For each resource whose records are in documents of patients, the column with the ids of these patients and the
column with the id of the record.
"""
_TOO_MANY: ColumnElement[int] = literal_column(str(MAX_AFFECTED_PATIENTS + 1))


@cache
def _select_patients(resource: str, *, restricted: bool) -> Select[Any, bool]:
    """Return the statement that selects the patients that show a record, and whether they are in the hospital scope.

    It selects one more than are listed at most.
    """
    patient_id, record_id = _SHOWN_IN[resource]
    shown = select(patient_id.label("id")).where(record_id == bindparam("id", type_=ID_TEXT)).limit(_TOO_MANY)
    patients = shown.subquery("patients")
    return select(patients.c.id, patient_in_scope(patients.c.id) if restricted else true())


MAX_OWN_PATIENTS = 20_000
"""Maximum number of patients in a hospital scope that are looked up one by one, which takes up to a tenth of a second.

For more, one pass over them and over the patients that show the records is several times as fast.
"""
_OWN_PATIENTS = select(patient_hospitals.c.patient_id).where(is_in_scope(patient_hospitals.c.hospital_id)).distinct()
_SELECT_HAS_FEW_OWN = select(
    select(func.count())
    .select_from(_OWN_PATIENTS.limit(literal_column(str(MAX_OWN_PATIENTS + 1))).subquery())
    .scalar_subquery()
    <= literal_column(str(MAX_OWN_PATIENTS))
)


@cache
def _select_own_patients(resource: str, *, one_by_one: bool) -> Select[Any]:
    """Return the statement that selects which patients in the hospital scope show which of the records `:ids`.

    With `one_by_one`, it reads all patients in the scope and none of others. It selects one more patient of a record
    than are listed at most.
    """
    patient_id, record_id = _SHOWN_IN[resource]
    own = _OWN_PATIENTS.cte("own")
    shown = select(record_id.label("id")).where(patient_id == own.c.patient_id)
    if one_by_one:  # the offset keeps PostgreSQL from beginning with the records
        shown = shown.offset(literal_column("0"))
    links = shown.lateral("shown")
    ids = func.array_agg(own.c.patient_id, type_=ARRAY(ID_TEXT))
    return (
        select(links.c.id, ids[literal_column("1") : _TOO_MANY])
        .select_from(own.join(links, true()))
        .where(links.c.id == any_(bindparam("ids", type_=ARRAY(ID_TEXT))))
        .group_by(links.c.id)
    )


def _wide_sources_statement() -> Select[Any]:
    row = hospital_changes.c
    return (
        select(changes.c.source, changes.c.unique_id)
        .join_from(hospital_changes, changes, changes.c.position == row.position)
        .where(row.hospital_id == literal_column(f"'{ANY_HOSPITAL}'"), row.position > bindparam("after"))
        .distinct()
    )


_SELECT_WIDE_SOURCES = _wide_sources_statement()


class AffectedPatients:
    """The affected patients that a page of the feed lists, each looked up once."""

    def __init__(self, database: Database, principal: str, hospitals: frozenset[str] | None, after: int) -> None:
        """`after` is the position after which the page begins, and `principal` the name of the principal that reads."""
        self._database = database
        self._principal = principal
        self._hospitals = hospitals
        self._after = after
        self._found: dict[Source, Sequence[str] | None] = {}
        self._has_wide = False

    async def of(self, source: Source, *, is_wide: bool) -> Sequence[str] | None:
        """Return the ids of the visible patients whose documents contain a record, or None if they are too many.

        `is_wide` says that so many patients have the record that their hospitals were not read when the change was
        numbered.
        """
        if is_wide and not self._has_wide:
            await self._look_up_wide()
        if source not in self._found:
            self._found[source] = await self._look_up(source)
        return self._found[source]

    async def _look_up(self, source: Source) -> Sequence[str] | None:
        resource, unique_id = source
        is_own = self._hospitals is None or (resource == "hospitals" and unique_id in self._hospitals)
        scope = {} if self._hospitals is None or is_own else {"hospitals": sorted(self._hospitals)}
        statement = _select_patients(resource, restricted=not is_own)
        async with self._database.read() as connection:
            rows = (await connection.execute(statement, {"id": unique_id, **scope})).all()
        if len(rows) <= MAX_AFFECTED_PATIENTS:
            return sorted(patient_id for patient_id, is_visible in rows if is_visible)
        if is_own:
            return None
        await self._look_up_own([source])
        return self._found[source]

    async def _look_up_wide(self) -> None:
        """Look up the patients of all wide changes, because a page may have to skip many of them."""
        self._has_wide = True
        async with self._database.read() as connection:
            sources = (await connection.execute(_SELECT_WIDE_SOURCES, {"after": self._after})).all()
        await self._look_up_own([(resource, unique_id) for resource, unique_id in sources])

    async def _look_up_own(self, sources: Sequence[Source]) -> None:
        """Look up the patients in the hospital scope that show the records, in one statement for each resource."""
        assert self._hospitals is not None, "only restricted principals have a hospital scope"  # noqa: S101
        for name in _SHOWN_IN:
            ids = [
                unique_id
                for resource, unique_id in sources
                if resource == name and (name != "hospitals" or unique_id not in self._hospitals)
            ]
            if not ids:
                continue
            scope = {"hospitals": sorted(self._hospitals)}
            async with self._database.search_snapshot(self._principal) as connection:
                has_few = (await connection.execute(_SELECT_HAS_FEW_OWN, scope)).scalar_one()
                statement = _select_own_patients(name, one_by_one=has_few)
                rows = (await connection.execute(statement, {**scope, "ids": ids})).all()
            patients = {unique_id: sorted(found) for unique_id, found in rows}
            for unique_id in ids:
                found = patients.get(unique_id, [])
                self._found[name, unique_id] = found if len(found) <= MAX_AFFECTED_PATIENTS else None
