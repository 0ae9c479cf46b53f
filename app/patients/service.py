from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from sqlalchemy.engine import RowMapping

from app.auth.scopes import Scope
from app.errors import FieldError, InUseError, NotFoundError
from app.journal.repository import JournalRepository
from app.patients.repository import PatientRepository
from app.patients.schemas import NAME_MISSING, PatientCreate, PatientUpdate
from app.profiles.repository import ProfileRepository
from app.resource.preconditions import UNCONDITIONAL, Precondition
from app.resource.repository import Linking, Record
from app.resource.service import Erased, Service, missing, refuse, renaming


class PatientService(Service[PatientCreate, PatientUpdate]):
    """Patients with their profile and their links, each call in one transaction."""

    repository_class = PatientRepository

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
            InvalidError: hospitals or doctors do not exist.
            ForbiddenError: the profile would change, or be another, and the principal may not.
        """
        values = {**body.given(), **(moments or {})}
        await self.expect_new(values.get("unique_id"), precondition)  # before the profile's own errors
        links = self._take_links(values)
        await self._upsert_profile(values)
        unique_id = await self._insert(values.pop("unique_id", None), values, precondition)
        linking = await self.repository.link(unique_id, links)
        refuse(_unknown(links, linking))
        return await self.repository.record(unique_id, "created")

    async def update(self, unique_id: str, body: PatientUpdate, precondition: Precondition = UNCONDITIONAL) -> Record:
        """Change what is given of a patient.

        Raises:
            NotFoundError: there is none of this id.
            PreconditionFailedError, PreconditionRequiredError: as the precondition says.
            IdentifierRetiredError: a deleted profile had the profile's id.
            InvalidError: hospitals or doctors do not exist, no name would be left, or the body has another `unique_id`.
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
        linking = await self.repository.link(unique_id, links)
        refuse([*renaming(unique_id, body), *_nameless({**locked, **values}), *_unknown(links, linking)])
        await self._upsert_profile(values, locked["profile_id"])
        changed = await self.repository.update(locked, values, touch=linking.changed)
        return await self._read_back(unique_id, "updated", changed=changed)

    async def erase(self, unique_id: str, reason: str) -> Erased:
        """Remove a person's data everywhere: the patient, its profile unless other patients have it, their histories.

        Raises:
            NotFoundError: there never was a patient of this id.
        """
        last = await self._lock_for_erasure(unique_id)
        profiles = await self.journal.values(unique_id, "profile_id")
        records = [(self.repository.name, await self.repository.erase(unique_id, reason))]
        left = set()
        for profile_id in sorted(profiles):
            if not await self._nobody_has(profile_id):
                continue
            if profile_id == last.get("profile_id"):
                records.append((self._profiles.name, await self._profiles.erase(profile_id, reason)))
            else:
                left.add(profile_id)
        return Erased(records, frozenset(left))

    async def _nobody_has(self, profile_id: str) -> bool:
        """Whether there is something of a profile, and no patient has it; it is locked, so that none gets it."""
        await self._profiles.lock_id(profile_id)
        with suppress(NotFoundError):
            await self._profiles.lock_for_deletion(profile_id)
        try:
            await self._profiles.refuse_in_use(profile_id)
        except InUseError:
            return False
        return await JournalRepository(self.connection, ProfileRepository).last_record(profile_id) is not None

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

    async def _unlink_missing(self, values: dict[str, Any], locked: RowMapping | None) -> list[FieldError]:
        unique_id = values["profile_id"]
        self._allow_profile(unique_id, None if locked is None else locked["profile_id"])
        if unique_id is not None:
            try:
                await self._profiles.get(unique_id)
            except NotFoundError:
                values["profile_id"] = None
                return [missing("profile", unique_id)]
        return []


def _unknown(links: Mapping[str, list[str]], linking: Linking) -> Iterator[FieldError]:
    for name, wanted in links.items():
        target = name.removesuffix("_ids")
        for place, unique_id in enumerate(wanted):
            if unique_id not in linking.known[name]:
                message = f"There is no {target} of the unique_id {unique_id}"
                yield FieldError(("body", name, place), message, f"unknown_{target}")


def _nameless(patient: Mapping[str, Any]) -> Iterator[FieldError]:
    if patient["patient_first_name"] is None and patient["patient_last_name"] is None:
        yield FieldError(("body", "patient_last_name"), NAME_MISSING, "name_missing")
