from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, Select, case, column, exists, false, literal_column, or_, select
from sqlalchemy.dialects.postgresql import insert

from app.db.together import execute_for, given
from app.errors import UnavailableProfileError
from app.journal.entries import AUTHOR, author, entry, signed
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
    def _upsert(cls, fields: frozenset[str], *, overwrite: bool) -> Select[Any]:
        key = [cls.table.c.unique_id]
        names = ("unique_id", *sorted(fields))
        wanted = given(*(column(name, cls.table.c[name].type) for name in names), *AUTHOR)
        rows = select(*(wanted.c[name] for name in names)).order_by(wanted.c.unique_id)
        statement = insert(cls.table).from_select(names, rows)
        if fields and overwrite:
            new = statement.excluded
            statement = statement.on_conflict_do_update(
                index_elements=key,
                set_={**{name: new[name] for name in fields}, **next_version(cls.table)},
                where=or_(*(cls.table.c[name].is_distinct_from(new[name]) for name in fields)),
            )
        else:
            statement = statement.on_conflict_do_nothing(index_elements=key)
        row = signed(statement.returning(cls.table).cte("changed"), wanted)
        action = case(
            (row.c.version == literal_column("1"), literal_column("'created'")), else_=literal_column("'updated'")
        )
        written = entry(cls.table, row, cls.links, action)
        entered = row.c.unique_id.in_(select(written.c.unique_id)).label("entered")
        return select(row.c.unique_id, row.c.version, entered)

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
        row = {"unique_id": unique_id, **values, **author(self.principal)}
        changed = await execute_for(self.connection, statement, row)
        if self.limited and not (seen or (changed is not None and changed.entered)):
            raise UnavailableProfileError
        if changed is not None and not changed.entered:
            raise await self.retired(unique_id) if changed.version == 1 else self.changed()
        return changed is not None
