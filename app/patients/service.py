from collections.abc import Iterator, Mapping
from typing import Any

from app.errors import FieldError, InvalidError
from app.patients.repository import RELATIONS, Linking, PatientRepository
from app.patients.schemas import NAME_MISSING, PatientCreate, PatientUpdate
from app.profiles.repository import ProfileRepository
from app.resource.repository import Record
from app.resource.service import Service, renaming


class PatientService(Service[PatientCreate, PatientUpdate]):
    """Patients with their profile and their links, each call in one transaction."""

    repository: PatientRepository
    repository_class = PatientRepository

    async def create(self, body: PatientCreate) -> Record:
        """Create a patient; its profile is created or changed, its hospitals and doctors are linked.

        Raises:
            IdentifierTakenError: a patient (or for its profile, a deleted profile) has or had the id.
            InvalidError: hospitals or doctors do not exist.
        """
        values = body.given()
        links = _take_links(values)
        await self._upsert_profile(values)
        unique_id = await self.repository.insert(values.pop("unique_id", None), values)
        linking = await self.repository.link(unique_id, links)
        _refuse([*_unknown(links, linking)])
        return await self.repository.get(unique_id)

    async def update(self, unique_id: str, body: PatientUpdate) -> Record:
        """Change what is given of a patient.

        Raises:
            NotFoundError: there is none of this id.
            IdentifierTakenError: a deleted profile had the profile's id.
            InvalidError: hospitals or doctors do not exist, no name would be left, or the body has another `unique_id`.
        """
        # the patient before all else: requests for one patient follow each other, and none waits in a circle
        locked = await self.repository.lock(unique_id)
        values = body.given()
        links = _take_links(values)
        linking = await self.repository.link(unique_id, links)
        _refuse([*renaming(unique_id, body), *_nameless({**locked, **values}), *_unknown(links, linking)])
        await self._upsert_profile(values)
        await self.repository.update(locked, values, touch=linking.changed)
        return await self.repository.get(unique_id)

    async def _upsert_profile(self, values: dict[str, Any]) -> None:
        """Write the profile that `values` holds, and put its id in its place."""
        if "patient_profile" not in values:
            return
        profile = values.pop("patient_profile")
        values["profile_id"] = profile and profile.pop("unique_id")
        if profile is not None:
            await ProfileRepository(self.connection, self.principal).upsert(values["profile_id"], profile)


def _take_links(values: dict[str, Any]) -> dict[str, list[str]]:
    return {name: values.pop(name) for name in RELATIONS if name in values}


def _refuse(errors: list[FieldError]) -> None:
    if errors:
        raise InvalidError(errors)


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
