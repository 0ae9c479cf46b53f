from typing import Any

from sqlalchemy import or_
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

    async def upsert(self, unique_id: str, values: dict[str, Any]) -> None:
        """Create the profile, or overwrite the given `values` of it. Any number of requests may do so at once.

        Raises:
            IdentifierTakenError: a deleted profile had the id.
        """
        statement = insert(self.table).values(unique_id=unique_id, **values)
        new = statement.excluded
        if values:
            statement = statement.on_conflict_do_update(
                index_elements=[self.table.c.unique_id],
                set_={**{name: new[name] for name in values}, **self.next_version()},
                where=or_(*(self.table.c[name].is_distinct_from(new[name]) for name in values)),
            )
        else:
            statement = statement.on_conflict_do_nothing(index_elements=[self.table.c.unique_id])
        inserted = (await self.connection.execute(statement.returning(self.table.c.version))).scalar_one_or_none() == 1
        if inserted:
            await self.refuse_retired(unique_id)
