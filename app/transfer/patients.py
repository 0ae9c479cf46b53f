"""Patients on their way in, with the profiles that their lines give."""

from collections.abc import AsyncIterator
from functools import cached_property
from typing import Any

from sqlalchemy import Column, ColumnElement, Delete, MetaData, Select, Table, and_, case, delete, select
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.schema import CreateTable, DropTable

from app.auth.principal import Principal
from app.db.base import ID_TEXT
from app.errors import FieldError
from app.patients.schemas import NAME_MISSING_MESSAGE
from app.patients.service import PatientService
from app.profiles.service import ProfileService
from app.search.dictionary import DEFER_NAME_WORDS, INSERT_NAME_WORDS, STAGE_NAME_WORDS
from app.transfer.bodies import ValidLine
from app.transfer.staging import RowError, RowStatus, StagedBatch, Staging, retired_id_message

_STAGED_WORDS_TABLE, _STAGED_HOSPITAL_WORDS_TABLE = (
    Table(
        name,
        MetaData(),
        *(Column(column, ID_TEXT, primary_key=True) for column in columns),
        prefixes=["TEMPORARY"],
        postgresql_on_commit="DROP",
    )
    for name, columns in (("staged_words", ["word"]), ("staged_hospital_words", ["hospital_id", "word"]))
)
NAME_COLUMNS = ("patient_first_name", "patient_last_name")


class StagedPatientBatch(StagedBatch):
    """Some bodies of patients. All that give a profile say the same of it: else what comes later counts."""

    def __init__(self, staging: "PatientStaging") -> None:
        super().__init__(staging)
        self.profiles = staging.profiles.new_batch()
        self._profiles_by_id: dict[str, dict[str, Any]] = {}

    def can_add(self, line: ValidLine) -> bool:
        """Whether neither its patient is in it yet, nor something else of its profile."""
        profile = line.values.get("patient_profile")
        return super().can_add(line) and (
            profile is None or self._profiles_by_id.get(profile["unique_id"], profile) == profile
        )

    def add(self, line: ValidLine) -> None:
        """Take a body, and its profile."""
        values = dict(line.values)
        if "patient_profile" in values:
            profile = values.pop("patient_profile")
            values["profile_id"] = profile and profile["unique_id"]
            if profile is not None and profile["unique_id"] not in self._profiles_by_id:
                self._profiles_by_id[profile["unique_id"]] = profile
                self.profiles.add(ValidLine(line.line_number, profile))
        super().add(ValidLine(line.line_number, values))


class PatientStaging(Staging):
    """The staging tables of patients and of their profiles."""

    def __init__(self, connection: AsyncConnection, principal: Principal, *, overwrite: bool) -> None:
        super().__init__(connection, principal, PatientService.repository_class, overwrite=overwrite)
        # whoever creates a patient changes its profile: as the API has it
        self.profiles = Staging(connection, principal, ProfileService.repository_class, overwrite=True)

    async def create_tables(self) -> None:
        """Make the staging tables, others for the words of names, and have these learnt at the end."""
        await super().create_tables()
        await self.profiles.create_tables()
        for table in (_STAGED_WORDS_TABLE, _STAGED_HOSPITAL_WORDS_TABLE):
            await self.connection.execute(CreateTable(table))
        await self.connection.execute(DEFER_NAME_WORDS)

    async def finish(self) -> None:
        """Learn the words of names, and drop the tables, as the last of the transaction."""
        for statement in INSERT_NAME_WORDS:
            await self.connection.execute(statement)
        for table in (_STAGED_WORDS_TABLE, _STAGED_HOSPITAL_WORDS_TABLE):
            await self.connection.execute(DropTable(table))
        await self.profiles.finish()
        await super().finish()

    def new_batch(self) -> StagedPatientBatch:
        """An empty one."""
        return StagedPatientBatch(self)

    async def stage(self, batch: StagedBatch) -> None:
        """Have a batch, and nothing else, in the staging tables."""
        assert isinstance(batch, StagedPatientBatch)  # noqa: S101  # made by `batch`
        await super().stage(batch)
        await self.profiles.stage(batch.profiles)

    async def classify(self) -> None:
        """Say of each line what would become of it and its profile; patients are locked before profiles."""
        await super().classify()
        await self.connection.execute(self._delete_unused_profiles_statement)
        await self.profiles.classify()

    async def find_errors(self) -> AsyncIterator[RowError]:
        """As for all resources; and patients have a name, and profiles that are not deleted ones."""
        async for row_error in super().find_errors():
            yield row_error
        if self.overwrite:  # else each line has one, by itself
            for line_number in await self._line_numbers(self._nameless_statement):
                yield RowError(line_number, FieldError(("patient_last_name",), NAME_MISSING_MESSAGE, "name_missing"))
        for line_number in await self._line_numbers(self._retired_profiles_statement):
            error = FieldError(
                ("patient_profile", "unique_id"), retired_id_message(self.profiles.repository), "identifier_retired"
            )
            yield RowError(line_number, error)

    async def write(self) -> dict[str, int]:
        """Profiles first, to which patients refer."""
        await self.connection.execute(self._delete_unused_profiles_statement)
        await self.profiles.write()
        counts = await super().write()
        for statement in STAGE_NAME_WORDS:
            await self.connection.execute(statement)
        return counts

    @cached_property
    def _delete_unused_profiles_statement(self) -> Delete:
        """Forget the profiles of lines that are forgotten, or that change nothing."""
        written_statuses = [RowStatus.CREATED, *([RowStatus.UPDATED, RowStatus.UNCHANGED] if self.overwrite else [])]
        referenced_ids = select(self.staging_table.c.profile_id).where(
            self.has_status(*written_statuses), self.staging_table.c.profile_id.is_not(None)
        )
        return delete(self.profiles.staging_table).where(self.profiles.staging_table.c.unique_id.not_in(referenced_ids))

    @cached_property
    def _nameless_statement(self) -> Select[Any]:
        names = [
            case((self.sets_field(name), self.staging_table.c[name]), else_=self._stored_value(name))
            for name in NAME_COLUMNS
        ]
        return select(self.staging_table.c.line).where(and_(*(name.is_(None) for name in names)))

    def _stored_value(self, name: str) -> ColumnElement[Any]:
        stored = select(self.table.c[name]).where(self.table.c.unique_id == self.staging_table.c.unique_id)
        return stored.correlate(self.staging_table).scalar_subquery()

    @cached_property
    def _retired_profiles_statement(self) -> Select[Any]:
        same_profile = self.profiles.staging_table.c.unique_id == self.staging_table.c.profile_id
        lines = select(self.staging_table.c.line).join(self.profiles.staging_table, same_profile)
        return lines.where(self.profiles.reuses_retired_id)
