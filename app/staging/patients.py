"""Staging of patients together with the profiles that are in the same lines."""

from collections.abc import AsyncIterator, Collection, Sequence
from functools import cached_property
from typing import Any

from sqlalchemy import ColumnElement, Delete, Select, and_, case, delete, insert, select
from sqlalchemy.schema import CreateTable, DropTable

from app.auth.principal import Principal
from app.db.connection import Connection
from app.errors import FieldError
from app.models import Patient, hospital_words, name_words, pending_comparisons
from app.patients.schemas import NAME_MISSING_MESSAGE
from app.patients.service import PatientService
from app.profiles.service import ProfileService
from app.staging.batches import StagedBatch, ValidLine
from app.staging.duplicates import COMPARE_NOBODY, DUPLICATE_MESSAGE, DuplicatePolicy
from app.staging.identifiers import SharedIdentifiers, identifier_errors, index_identifiers
from app.staging.name_words import (
    DEFER_NAME_WORDS,
    INSERT_STAGED_NAME_WORDS,
    STAGE_ALL_NAME_WORDS,
    STAGE_NAME_WORDS,
    STAGED_HOSPITAL_WORDS_TABLE,
    STAGED_WORDS_TABLE,
)
from app.staging.records import Staging, retired_id_message
from app.staging.results import RowError, RowStatus
from app.staging.table_build import TableBuild
from app.statements.damage import OTHER_PERSON_PROBLEM, other_person_statement

_COMPARE_ALL_PATIENTS = insert(pending_comparisons).from_select(["patient_id"], select(Patient.__table__.c.unique_id))
_LAST_TABLES = (name_words, hospital_words, pending_comparisons)
"""The tables that are filled from all patients at the end."""
NAME_COLUMNS = ("patient_first_name", "patient_last_name")
BIRTH_DATE_COLUMN = "patient_date_of_birth"
OTHER_PERSON_MESSAGE = f"{OTHER_PERSON_PROBLEM} --allow-other-person"


class StagedPatientBatch(StagedBatch):
    """A batch of patients in which lines with the same profile have the same data for that profile.

    A line with different data for the profile goes into the next batch. The last such line of a file therefore
    determines the stored profile.
    """

    def __init__(self, staging: "PatientStaging") -> None:
        super().__init__(staging)
        self.profiles = staging.profiles.new_batch()
        self._profiles_by_id: dict[str, dict[str, Any]] = {}

    @property
    def tables(self) -> list[bytes]:
        """The rows of the patients, and those of their profiles."""
        return [*super().tables, *self.profiles.tables]

    def can_add(self, line: ValidLine) -> bool:
        """Return whether a line can be added.

        This requires that the batch contains neither the line's patient nor different data for the line's profile.
        """
        profile = line.values.get("patient_profile")
        return super().can_add(line) and (
            profile is None or self._profiles_by_id.get(profile["unique_id"], profile) == profile
        )

    def add(self, line: ValidLine) -> None:
        """Add the patient of a line to the batch, and the patient's profile if the batch does not contain it yet."""
        values = dict(line.values)
        if "patient_profile" in values:
            profile = values.pop("patient_profile")
            values["profile_id"] = profile and profile["unique_id"]
            if profile is not None and profile["unique_id"] not in self._profiles_by_id:
                self._profiles_by_id[profile["unique_id"]] = profile
                self.profiles.add(ValidLine(line.line_number, profile))
        super().add(ValidLine(line.line_number, values))


class PatientStaging(Staging):
    """The staging tables of patients and of their profiles, and the statements that use them."""

    def __init__(
        self,
        connection: Connection,
        principal: Principal,
        duplicates: DuplicatePolicy,
        *,
        overwrite: bool,
        allow_other_person: bool = False,
    ) -> None:
        super().__init__(connection, principal, PatientService.repository_class, overwrite=overwrite)
        self._allow_other_person = allow_other_person
        self._compares_new = duplicates is not DuplicatePolicy.IGNORE
        self._matcher = duplicates.matcher(connection)
        # `overwrite` is always on: a line may change an existing profile, as a request that creates a patient may
        self.profiles = Staging(connection, principal, ProfileService.repository_class, overwrite=True)

    async def create_tables(self) -> None:
        """Create the staging tables, and the tables that collect the words of names.

        `finish` adds the collected words to the vocabulary. If there are no patients yet, a `TableBuild` is started,
        unless indexes have to find patients.

        Raises:
            NotReplaceableError: there are no patients, but copies cannot replace the tables. The staging tables are
                created.
        """
        await self.profiles.create_tables()
        for table in (STAGED_WORDS_TABLE, STAGED_HOSPITAL_WORDS_TABLE):
            await self.connection.execute(CreateTable(table))
        await self.connection.execute(DEFER_NAME_WORDS)
        if not self._compares_new:
            await self.connection.execute(COMPARE_NOBODY)
        await super().create_tables()
        if self._matcher is None:
            self.build = await TableBuild.create(
                self.connection,
                [self.profiles.table, self.table, *self.link_tables, *_LAST_TABLES],
                optional=(self.profiles.table, *_LAST_TABLES),
                keyed=(self.profiles.table, self.table),
            )
            if self.build is not None and self.profiles.table in self.build:
                self.profiles.build = self.build

    async def finish(self, *, stores: bool) -> None:
        """Add the collected words of names to the search vocabulary, and drop all temporary tables.

        This must be the last step of the transaction (see `DEFER_NAME_WORDS`). If it stores nothing, words are left
        out and copies are not put in the place of the tables, because both would block others.
        """
        if self.build is not None and not stores:
            await self.build.discard()
            self.build = self.profiles.build = None
        if self.build is not None:
            await self.build.build_indexes([self.profiles.table, self.table, *self.link_tables])
            if self._compares_new:
                await self.connection.execute(_COMPARE_ALL_PATIENTS)  # the copies of the tables have no triggers
            for statement in STAGE_ALL_NAME_WORDS:
                await self.connection.execute(statement)
        for statement in INSERT_STAGED_NAME_WORDS if stores else ():
            await self.connection.execute(statement)
        for table in (STAGED_WORDS_TABLE, STAGED_HOSPITAL_WORDS_TABLE):
            await self.connection.execute(DropTable(table))
        await self.profiles.finish(stores=stores)
        await super().finish(stores=stores)
        if self.build is not None:
            await self.build.build_indexes(_LAST_TABLES)
            await self.build.replace_tables()

    def new_batch(self) -> StagedPatientBatch:
        """Return an empty batch."""
        return StagedPatientBatch(self)

    async def stage(self, tables: Sequence[bytes]) -> None:
        """Replace the contents of the staging tables with the patients and profiles of a batch."""
        await super().stage(tables)
        await self.profiles.stage(tables[1:])

    async def classify(self) -> None:
        """Set the status of each staged patient and profile. Patients are locked before profiles."""
        await super().classify()
        await self.connection.execute(self._delete_unused_profiles_statement)
        await self.profiles.classify()

    async def find_errors(self) -> AsyncIterator[RowError]:
        """Yield the errors that only the database can detect in the staged lines.

        In addition to the errors that any resource can have, these are identifiers that other patients have, patients
        without a name, and profiles with the id of a deleted profile.
        """
        async for row_error in super().find_errors():
            yield row_error
        async for row_error in identifier_errors(self.connection):
            yield row_error
        if self.overwrite:  # otherwise validation has already required a name in each line
            for line_number in await self._line_numbers(self._nameless_statement):
                yield RowError(line_number, FieldError(("patient_last_name",), NAME_MISSING_MESSAGE, "name_missing"))
        if self.overwrite and not self._allow_other_person:
            for line_number in await self._line_numbers(self._other_person_statement):
                yield RowError(line_number, FieldError(("unique_id",), OTHER_PERSON_MESSAGE, "other_person"))
        for line_number in await self._line_numbers(self._retired_profiles_statement):
            error = FieldError(
                ("patient_profile", "unique_id"), retired_id_message(self.profiles.repository), "identifier_retired"
            )
            yield RowError(line_number, error)

    async def find_conflicts(self, rejected: Collection[int]) -> list[RowError]:
        """Return the errors of lines with an identifier of an earlier line, or whose patient is probably registered.

        The other one is stored, or in an earlier line. A line that is not stored is no reason to reject a later one:
        neither a `rejected` line nor one with an error that is returned.
        """
        shared = await SharedIdentifiers.load(self.connection)
        compared = None
        if self._matcher is not None:
            new = (await self.connection.execute(self._new_patients_statement)).records
            compared = await self._matcher.compare(new)
        conflicts = []
        for line in sorted({*shared.lines, *(compared.lines if compared else ())}):
            errors = [*shared.errors(line)]
            if compared is not None and compared.duplicates(line) is not None:
                errors.append(FieldError((), DUPLICATE_MESSAGE, "possible_duplicate"))
            if not errors and line not in rejected:
                shared.accept(line)
                if compared is not None:
                    compared.accept(line)
            conflicts += [RowError(line, error) for error in errors]
        return conflicts

    async def write(self) -> dict[str, int]:
        """Write the staged profiles and then the patients, which refer to them, and collect the words of names.

        Return the number of lines per status of the patient.
        """
        await self.connection.execute(self._delete_unused_profiles_statement)
        await self.profiles.write()
        counts = await super().write()
        if self.build is None:
            for statement in STAGE_NAME_WORDS:
                await self.connection.execute(statement)
        else:
            await index_identifiers(self.connection)
        return counts

    @cached_property
    def _new_patients_statement(self) -> Select[Any]:
        """Statement that selects the new patients with what is compared. Only a matcher needs it."""
        assert self._matcher is not None  # noqa: S101  # see above
        staged = self.staging_table.c
        fields = (staged[name] for name in self._matcher.compared_fields)
        return select(staged.line, *fields).where(self.has_status(RowStatus.CREATED)).order_by(staged.line)

    @cached_property
    def _delete_unused_profiles_statement(self) -> Delete:
        """Statement that deletes the staged profiles that must not be written.

        These are the profiles that are only in discarded lines. Without `overwrite`, a line with a patient that already
        exists counts as discarded, too.
        """
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

    @cached_property
    def _other_person_statement(self) -> Select[Any]:
        return other_person_statement(self, NAME_COLUMNS, BIRTH_DATE_COLUMN)

    def _stored_value(self, name: str) -> ColumnElement[Any]:
        stored = select(self.table.c[name]).where(self.table.c.unique_id == self.staging_table.c.unique_id)
        return stored.correlate(self.staging_table).scalar_subquery()

    @cached_property
    def _retired_profiles_statement(self) -> Select[Any]:
        same_profile = self.profiles.staging_table.c.unique_id == self.staging_table.c.profile_id
        lines = select(self.staging_table.c.line).join(self.profiles.staging_table, same_profile)
        return lines.where(self.profiles.reuses_retired_id)
