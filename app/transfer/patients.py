"""Patients on their way in, with the profiles that their lines give."""

from collections.abc import AsyncIterator
from functools import cached_property
from typing import Any

from sqlalchemy import Column, ColumnElement, Delete, MetaData, Select, Table, and_, case, delete, select
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.schema import CreateTable, DropTable

from app.auth.principal import Principal
from app.db.base import ID
from app.errors import FieldError
from app.patients.schemas import NAME_MISSING
from app.patients.service import PatientService
from app.profiles.service import ProfileService
from app.search.dictionary import LEARN, LEARN_LATER, NOTE
from app.transfer.bodies import Body
from app.transfer.staging import Batch, Fate, Fault, Staging, retired

_WORDS, _HOSPITAL_WORDS = (
    Table(
        name,
        MetaData(),
        *(Column(column, ID, primary_key=True) for column in columns),
        prefixes=["TEMPORARY"],
        postgresql_on_commit="DROP",
    )
    for name, columns in (("staged_words", ["word"]), ("staged_hospital_words", ["hospital_id", "word"]))
)
NAMES = ("patient_first_name", "patient_last_name")


class PatientBatch(Batch):
    """Some bodies of patients. All that give a profile say the same of it: else what comes later counts."""

    def __init__(self, staging: "PatientStaging") -> None:
        super().__init__(staging)
        self.profiles = staging.profiles.batch()
        self._given: dict[str, dict[str, Any]] = {}

    def has_room_for(self, body: Body) -> bool:
        """Whether neither its patient is in it yet, nor something else of its profile."""
        profile = body.values.get("patient_profile")
        return super().has_room_for(body) and (
            profile is None or self._given.get(profile["unique_id"], profile) == profile
        )

    def add(self, body: Body) -> None:
        """Take a body, and its profile."""
        values = dict(body.values)
        if "patient_profile" in values:
            profile = values.pop("patient_profile")
            values["profile_id"] = profile and profile["unique_id"]
            if profile is not None and profile["unique_id"] not in self._given:
                self._given[profile["unique_id"]] = profile
                self.profiles.add(Body(body.line, profile))
        super().add(Body(body.line, values))


class PatientStaging(Staging):
    """The staging tables of patients and of their profiles."""

    def __init__(self, connection: AsyncConnection, principal: Principal, *, overwrite: bool) -> None:
        super().__init__(connection, principal, PatientService.repository_class, overwrite=overwrite)
        # whoever creates a patient changes its profile: as the API has it
        self.profiles = Staging(connection, principal, ProfileService.repository_class, overwrite=True)

    async def open(self) -> None:
        """Make the staging tables, others for the words of names, and have these learnt at the end."""
        await super().open()
        await self.profiles.open()
        for words in (_WORDS, _HOSPITAL_WORDS):
            await self.connection.execute(CreateTable(words))
        await self.connection.execute(LEARN_LATER)

    async def close(self) -> None:
        """Learn the words of names, and drop the tables, as the last of the transaction."""
        for learn in LEARN:
            await self.connection.execute(learn)
        for words in (_WORDS, _HOSPITAL_WORDS):
            await self.connection.execute(DropTable(words))
        await self.profiles.close()
        await super().close()

    def batch(self) -> PatientBatch:
        """An empty one."""
        return PatientBatch(self)

    async def stage(self, batch: Batch) -> None:
        """Have a batch, and nothing else, in the staging tables."""
        assert isinstance(batch, PatientBatch)  # noqa: S101  # made by `batch`
        await super().stage(batch)
        await self.profiles.stage(batch.profiles)

    async def compare(self) -> None:
        """Say of each line what would become of it and its profile; patients are locked before profiles."""
        await super().compare()
        await self.connection.execute(self._drop_profiles)
        await self.profiles.compare()

    async def faults(self) -> AsyncIterator[Fault]:
        """As for all resources; and patients have a name, and profiles that are not deleted ones."""
        async for fault in super().faults():
            yield fault
        if self.overwrite:  # else each line has one, by itself
            for line in await self._lines(self._nameless):
                yield Fault(line, FieldError(("patient_last_name",), NAME_MISSING, "name_missing"))
        for line in await self._lines(self._retired_profiles):
            error = FieldError(
                ("patient_profile", "unique_id"), retired(self.profiles.repository), "identifier_retired"
            )
            yield Fault(line, error)

    async def write(self) -> dict[str, int]:
        """Profiles first, to which patients refer."""
        await self.connection.execute(self._drop_profiles)
        await self.profiles.write()
        counts = await super().write()
        for note in NOTE:
            await self.connection.execute(note)
        return counts

    @cached_property
    def _drop_profiles(self) -> Delete:
        """Forget the profiles of lines that are forgotten, or that change nothing."""
        written = [Fate.CREATED, *([Fate.UPDATED, Fate.UNCHANGED] if self.overwrite else [])]
        wanted = select(self.staged.c.profile_id).where(self.has(*written), self.staged.c.profile_id.is_not(None))
        return delete(self.profiles.staged).where(self.profiles.staged.c.unique_id.not_in(wanted))

    @cached_property
    def _nameless(self) -> Select[Any]:
        names = [case((self.gives(name), self.staged.c[name]), else_=self._there(name)) for name in NAMES]
        return select(self.staged.c.line).where(and_(*(name.is_(None) for name in names)))

    def _there(self, name: str) -> ColumnElement[Any]:
        there = select(self.table.c[name]).where(self.table.c.unique_id == self.staged.c.unique_id)
        return there.correlate(self.staged).scalar_subquery()

    @cached_property
    def _retired_profiles(self) -> Select[Any]:
        profile = self.profiles.staged.c.unique_id == self.staged.c.profile_id
        lines = select(self.staged.c.line).join(self.profiles.staged, profile)
        return lines.where(self.profiles.once_there)
