"""Profile rows: which ones are visible to restricted principals, and how the profile of a patient is written."""

from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, Select, column, exists, false, select

from app.db.transaction_batching import execute_row, input_rows
from app.errors import ProfileNotAccessibleError
from app.models import Patient
from app.models import Profile as ProfileRow
from app.profiles.schemas import Profile
from app.records.missing import retired_error
from app.records.repository import Repository
from app.statements.documents import Document
from app.statements.hospital_scope import is_in_few_ids, patient_in_scope, scoped_ids_if_few
from app.statements.journal_entries import AUTHOR_COLUMNS, author_parameters, insert_entry
from app.statements.upserts import upsert, upsert_action
from app.statements.write_statements import contains_record

_SELECT_PROFILE_IDS = (
    select(Patient.__table__.c.profile_id)
    .where(is_in_few_ids(Patient.__table__.c.unique_id), Patient.__table__.c.profile_id.is_not(None))
    .distinct()
)


class ProfileRepository(Repository):
    name = "profile"
    prefix = "prof"
    table = ProfileRow.__table__
    document = Document(Profile, table)
    patient_reference_column = Patient.__table__.c.profile_id

    @classmethod
    def visibility_condition(cls, *, restricted: bool) -> ColumnElement[bool]:
        """Return the condition that a profile is visible.

        An unrestricted principal sees all profiles. A restricted principal sees only the profiles of the patients that
        it sees.
        """
        if not restricted:
            return super().visibility_condition(restricted=restricted)
        patients = Patient.__table__.c
        return exists().where(patients.profile_id == cls.table.c.unique_id, patient_in_scope(patients.unique_id))

    async def visible_ids_if_few(self) -> dict[str, Any] | None:
        """Return the ids of all profiles that a restricted principal can see, for `hospital_scope.is_in_few_ids`.

        Return None if its patients are too many (see `scoped_ids_if_few`), or if the principal is unrestricted.
        """
        patients = await scoped_ids_if_few(self.connection, self.principal) if self.restricted else None
        if patients is None:
            return None
        return {"few": (await self.connection.execute(_SELECT_PROFILE_IDS, patients)).scalars().all()}

    @classmethod
    def was_visible(cls, _: ColumnElement[Any]) -> ColumnElement[bool]:
        """Return a condition that is always false.

        A profile can be deleted only if no patient has it, and a restricted principal sees only profiles of patients.
        """
        return false()

    @classmethod
    @cache
    def _upsert_statement(cls, fields: frozenset[str], *, overwrite: bool) -> Select[Any]:
        names = ("unique_id", *sorted(fields))
        inputs = input_rows(*(column(name, cls.table.c[name].type) for name in names), *AUTHOR_COLUMNS)
        parts = upsert(cls.table, inputs, fields, overwrite=overwrite)
        authored = parts.authored
        entries = insert_entry(cls.table, authored, {}, upsert_action(authored))
        row = parts.changed.c
        return select(row.unique_id, row.version, contains_record(entries, row.unique_id).label("entered"))

    async def upsert(self, unique_id: str, values: dict[str, Any]) -> bool:
        """Create a profile, or overwrite the given `values` of an existing one. Return whether anything was written.

        Any number of requests may call this method concurrently. A restricted principal gets the same error for a
        profile that it cannot see as for a deleted profile.

        Raises:
            IdentifierRetiredError: a deleted profile had the id.
            ProfileNotAccessibleError: the principal is restricted, and the profile is deleted or not visible to it.
            ConflictError: a concurrent request changed the profile first.
        """
        visible = not self.restricted or await self.is_visible(unique_id)
        statement = self._upsert_statement(frozenset(values), overwrite=visible)
        row = {"unique_id": unique_id, **values, **author_parameters(self.principal)}
        result_row = await execute_row(self.connection, statement, row)
        if self.restricted and not (visible or (result_row is not None and result_row.entered)):
            raise ProfileNotAccessibleError
        if result_row is not None and not result_row.entered:
            raise await retired_error(self, unique_id) if result_row.version == 1 else self.conflict_error()
        return result_row is not None
