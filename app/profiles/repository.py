from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, Select, bindparam, case, exists, false, func, literal_column, or_, select
from sqlalchemy.dialects.postgresql import insert

from app.errors import UnavailableProfileError
from app.journal.entries import author, entry
from app.models import Patient
from app.models import Profile as Row
from app.profiles.schemas import Profile
from app.resource.document import Document
from app.resource.repository import Repository
from app.resource.walls import has_own
from app.resource.writing import next_version


class ProfileRepository(Repository):
    name = "profile"
    prefix = "prof"
    table = Row.__table__
    document = Document(Profile, table)
    patient_reference = Patient.__table__.c.profile_id

    @classmethod
    def visible(cls, *, limited: bool) -> ColumnElement[bool]:
        """Whoever is limited sees the profiles of the patients that it sees."""
        if not limited:
            return super().visible(limited=limited)
        patients = Patient.__table__.c
        return exists().where(patients.profile_id == cls.table.c.unique_id, has_own(patients.unique_id))

    @classmethod
    def was_visible(cls, _: ColumnElement[Any]) -> ColumnElement[bool]:
        """Nobody was linked to it when it was deleted."""
        return false()

    @classmethod
    @cache
    def _upsert(cls, fields: frozenset[str], *, overwrite: bool) -> Select[int | None, int]:
        key = [cls.table.c.unique_id]
        statement = insert(cls.table)
        if fields and overwrite:
            new = statement.excluded
            statement = statement.on_conflict_do_update(
                index_elements=key,
                set_={**{name: new[name] for name in fields}, **next_version(cls.table)},
                where=or_(*(cls.table.c[name].is_distinct_from(new[name]) for name in fields)),
            )
        else:
            statement = statement.on_conflict_do_nothing(index_elements=key)
        changed = statement.values({name: bindparam(name) for name in ("unique_id", *fields)}).returning(cls.table)
        row = changed.cte("changed")
        action = case(
            (row.c.version == literal_column("1"), literal_column("'created'")), else_=literal_column("'updated'")
        )
        written = entry(cls.table, row, cls.links, action)
        count = select(func.count()).select_from(written).scalar_subquery()
        return select(select(row.c.version).scalar_subquery(), count)

    async def upsert(self, unique_id: str, values: dict[str, Any]) -> bool:
        """Create the profile, or overwrite the given `values` of it. Any number of requests may do so at once.

        Whether anything was written. One that the principal does not see is as good as one that was deleted.

        Raises:
            IdentifierRetiredError: a deleted profile had the id.
            UnavailableProfileError: the same, or there is one, for a principal that is limited to hospitals.
            ConflictError: its entry could not be written.
        """
        seen = not self.limited or await self.sees(unique_id)
        statement = self._upsert(frozenset(values), overwrite=seen)
        parameters = {"unique_id": unique_id, **values, **author(self.principal)}
        changed, written = (await self.connection.execute(statement, parameters)).one()
        if self.limited and not (seen or written):
            raise UnavailableProfileError
        if changed and not written:
            raise await self.retired(unique_id) if changed == 1 else self.changed()
        return bool(changed)
