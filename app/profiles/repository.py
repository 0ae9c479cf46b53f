from functools import cache
from typing import Any

from sqlalchemy import Executable, or_
from sqlalchemy.dialects.postgresql import insert

from app.models import Patient
from app.models import Profile as Row
from app.profiles.schemas import Profile
from app.resource.document import Document
from app.resource.repository import Repository


class ProfileRepository(Repository):
    name = "profile"
    prefix = "prof"
    table = Row.__table__
    document = Document(Profile, table)
    patient_reference = Patient.__table__.c.profile_id

    @classmethod
    @cache
    def _upsert(cls, fields: frozenset[str]) -> Executable:
        key = [cls.table.c.unique_id]
        statement = insert(cls.table)
        if not fields:
            return statement.on_conflict_do_nothing(index_elements=key).returning(cls.table.c.version)
        new = statement.excluded
        return statement.on_conflict_do_update(
            index_elements=key,
            set_={**{name: new[name] for name in fields}, **cls.next_version()},
            where=or_(*(cls.table.c[name].is_distinct_from(new[name]) for name in fields)),
        ).returning(cls.table.c.version)

    async def upsert(self, unique_id: str, values: dict[str, Any]) -> None:
        """Create the profile, or overwrite the given `values` of it. Any number of requests may do so at once.

        Raises:
            IdentifierTakenError: a deleted profile had the id.
        """
        statement = self._upsert(frozenset(values))
        result = await self.connection.execute(statement, {"unique_id": unique_id, **values})
        if result.scalar_one_or_none() == 1:  # the first version: it was inserted
            await self.refuse_retired(unique_id)
