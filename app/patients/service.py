from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from app.auth.scopes import Scope
from app.errors import FieldError, ForbiddenError, FormerProfilesError, InUseError, LastHospitalError, NotFoundError
from app.journal.repository import JournalRepository
from app.patients.repository import PatientRepository
from app.patients.schemas import NAME_MISSING, PatientCreate, PatientUpdate
from app.profiles.repository import ProfileRepository
from app.resource.links import Linking, unknown_link
from app.resource.preconditions import UNCONDITIONAL, Precondition
from app.resource.repository import Record, Repository
from app.resource.service import Erased, Former, Service, missing, refuse, renaming


class PatientService(Service[PatientCreate, PatientUpdate]):
    """Patients with their profile and their links, each call in one transaction."""

    repository_class = PatientRepository

    @classmethod
    def touched(cls, body: PatientCreate | PatientUpdate) -> frozenset[str]:
        """The patient and its profile."""
        profile = body.patient_profile
        return super().touched(body) | ({profile.unique_id} if profile else set())

    async def create(
        self,
        body: PatientCreate,
        precondition: Precondition = UNCONDITIONAL,
        moments: Mapping[str, Any] | None = None,
    ) -> Record:
        """Create a patient; its profile is created or changed, its hospitals and doctors are linked.

        Raises:
            IdentifierTakenError: a patient has the id.
            IdentifierRetiredError: a deleted patient (or for its profile, a deleted profile) had the id.
            PreconditionFailedError: a patient has the id, and the precondition is that there is none.
            InvalidError: hospitals or doctors do not exist, or are not the principal's, or none of these is; or the
                profile is not.
            ForbiddenError: the profile would change, or be another, and the principal may not; or it may not choose
                the id.
        """
        values = {**body.given(), **(moments or {})}
        if self.repository.limited and "unique_id" in values:
            raise ForbiddenError(
                "Who is limited to hospitals cannot choose the unique_id of a patient: leave it out, and one is made."
            )
        await self.expect_new(values.get("unique_id"), precondition)  # before the profile's own errors
        links = self._take_links(values)
        await self._upsert_profile(values)
        written = await self._create(values, links, precondition)
        refuse([*self._unknown(written.linking), *self._homeless(written.linking)])
        return await self._finish(written, "created")

    async def update(self, unique_id: str, body: PatientUpdate, precondition: Precondition = UNCONDITIONAL) -> Record:
        """Change what is given of a patient.

        Raises:
            NotFoundError: there is none of this id.
            PreconditionFailedError, PreconditionRequiredError: as the precondition says.
            IdentifierRetiredError: a deleted profile had the profile's id.
            InvalidError: hospitals or doctors do not exist, or are not the principal's to link, or the profile is
                not; no name would be left, or the body has another `unique_id`.
            LastHospitalError: the principal would no longer see the patient.
            ForbiddenError: the profile would change, or be another, and the principal may not.
        """
        # the patient before all else: requests for one patient follow each other, and none waits in a circle
        locked = await self.repository.lock(unique_id)
        if precondition.asks and locked["profile_id"] is not None:
            # a part of the representation that this may overwrite: it must not change after it was compared
            await self._profiles.lock(locked["profile_id"])
        await self._check(unique_id, precondition)
        values = body.given()
        links = self._take_links(values)
        if errors := [*renaming(unique_id, body), *_nameless({**locked, **values})]:
            refuse([*errors, *self._unknown(await self.repository.known(unique_id, links))])
        await self._upsert_profile(values, locked["profile_id"])
        written = await self.repository.change(locked, values, links)
        refuse(self._unknown(written.linking))
        self._keep(written.linking)
        return await self._finish(written, "updated")

    async def erase(self, unique_id: str, reason: str, former: Former | None = None) -> Erased:
        """Remove a person's data everywhere: the patient, its profile unless other patients have it, their histories.

        Raises:
            NotFoundError: there never was a patient of this id.
            FormerProfilesError: the patient had other profiles that nobody has now, and `former` does not say what
                becomes of them.
        """
        last = await self._lock_for_erasure(unique_id)
        had = await self.journal.values(unique_id, "profile_id")
        records = [(self.repository.name, await self.repository.erase(unique_id, reason))]
        profiles = [profile_id for profile_id in sorted(had) if await self._nobody_has(profile_id)]
        others = {profile_id for profile_id in profiles if profile_id != last.get("profile_id")}
        if others and former is None:
            raise FormerProfilesError(len(others))
        kept = others if former is Former.KEEP else set()
        for profile_id in profiles:
            if profile_id not in kept:
                records.append((self._profiles.name, await self._profiles.erase(profile_id, reason)))  # noqa: PERF401
        return Erased(records, len(kept))

    async def _nobody_has(self, profile_id: str) -> bool:
        """Whether there is something of a profile, and no patient has it; it is locked, so that none gets it."""
        await self._profiles.lock_id(profile_id)
        with suppress(NotFoundError):
            await self._profiles.lock_for_deletion(profile_id)
        try:
            await self._profiles.refuse_in_use(profile_id)
        except InUseError:
            return False
        return await JournalRepository(self._profiles).last_record(profile_id) is not None

    @property
    def _profiles(self) -> ProfileRepository:
        return ProfileRepository(self.connection, self.principal)

    def _take_links(self, values: dict[str, Any]) -> dict[str, list[str]]:
        return {name: values.pop(name) for name in self.repository.links if name in values}

    async def _upsert_profile(self, values: dict[str, Any], linked: str | None = None) -> None:
        """Write the profile that `values` holds, and put its id in its place; `linked` is the patient's until now.

        Putting back what is there needs no scope; who links another profile gets to see it.
        """
        if "patient_profile" not in values:
            return
        profile = values.pop("patient_profile")
        values["profile_id"] = profile and profile.pop("unique_id")
        self._allow_profile(values["profile_id"], linked)
        if profile is not None and await self._profiles.upsert(values["profile_id"], profile):
            self.principal.require(Scope.PROFILES_WRITE)

    def _allow_profile(self, profile_id: str | None, linked: str | None) -> None:
        """Refuse to link another profile where the principal may not see profiles, before it could tell anything."""
        if profile_id not in {None, linked}:
            self.principal.require(Scope.PROFILES_READ, Scope.PROFILES_WRITE)

    async def _unlink_missing(self, values: dict[str, Any], before: Mapping[str, Any]) -> list[FieldError]:
        unique_id, linked = values["profile_id"], before.get("profile_id")
        self._allow_profile(unique_id, linked)
        # the patient's own was visible with it, though after a deletion nothing shows that any more
        profiles = self._profiles.unwalled if unique_id == linked else self._profiles
        if unique_id is None or await profiles.sees(unique_id):
            return []
        values["profile_id"] = None
        return [missing("profile", unique_id)]

    def _relinking(
        self, links: Mapping[str, list[str]], last: Mapping[str, Any] | None
    ) -> tuple[Repository, Mapping[str, list[str]]]:
        own = self.principal.hospitals
        if own is None:
            return super()._relinking(links, last)
        hospitals = own.intersection(links["hospital_ids"])
        # a patient that is there keeps the hospitals that are not the principal's; one that was deleted gets them back
        repository = self.repository if last is None else self.repository.unwalled
        hospitals |= frozenset(last["hospital_ids"] if last else ()) - own
        return repository, {**links, "hospital_ids": sorted(hospitals)}

    def _unknown(self, linking: Linking) -> Iterator[FieldError]:
        for name, place, unique_id in linking.unknown():
            error = unknown_link(name, place, unique_id)
            message = error.msg
            if self.repository.limited and self.repository.links[name].walled:
                message += ", or you may not link it"
            yield error._replace(loc=("body", *error.loc), msg=message)

    def _homeless(self, linking: Linking) -> Iterator[FieldError]:
        """The error of a new patient that its creator could not see."""
        own = self.principal.hospitals
        if own is not None and own.isdisjoint(linking.known.get("hospital_ids", ())):
            message = "Name at least one of the hospitals that you are limited to"
            yield FieldError(("body", "hospital_ids"), message, "own_hospital_missing")

    def _keep(self, linking: Linking) -> None:
        """Refuse to have the principal lose sight of a patient."""
        if "hospital_ids" in linking.known and any(self._homeless(linking)):
            raise LastHospitalError


def _nameless(patient: Mapping[str, Any]) -> Iterator[FieldError]:
    if patient["patient_first_name"] is None and patient["patient_last_name"] is None:
        yield FieldError(("body", "patient_last_name"), NAME_MISSING, "name_missing")
