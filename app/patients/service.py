from collections.abc import Iterator, Mapping
from typing import Any

from app.errors import FieldError, InvalidError
from app.patients.repository import DOCTORS, HOSPITALS, PatientRepository
from app.patients.schemas import NAME_MISSING, PatientCreate, PatientUpdate
from app.profiles.repository import ProfileRepository
from app.resource.repository import Record
from app.resource.service import Service, refuse_renaming

RELATIONS = {"hospital_ids": HOSPITALS, "doctor_ids": DOCTORS}


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
        await self._link(unique_id, links)
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
        refuse_renaming(unique_id, body)
        values = body.given()
        _refuse_nameless({**locked, **values})
        links = _take_links(values)
        await self._upsert_profile(values)
        relinked = await self._link(unique_id, links)
        await self.repository.update(locked, values, touch=relinked)
        return await self.repository.get(unique_id)

    async def _upsert_profile(self, values: dict[str, Any]) -> None:
        """Write the profile that `values` holds, and put its id in its place."""
        if "patient_profile" not in values:
            return
        profile = values.pop("patient_profile")
        values["profile_id"] = profile and profile.pop("unique_id")
        if profile is not None:
            await ProfileRepository(self.connection, self.principal).upsert(values["profile_id"], profile)

    async def _link(self, unique_id: str, links: Mapping[str, list[str]]) -> bool:
        """Replace the given sets of links; whether any changed."""
        changed = False
        errors: list[FieldError] = []
        for field, wanted in links.items():
            result = await self.repository.link(unique_id, RELATIONS[field], wanted)
            changed |= result.changed
            errors.extend(_unknown(field, wanted, result.known))
        if errors:
            raise InvalidError(errors)
        return changed


def _take_links(values: dict[str, Any]) -> dict[str, list[str]]:
    return {field: values.pop(field) for field in RELATIONS if field in values}


def _unknown(field: str, wanted: list[str], known: frozenset[str]) -> Iterator[FieldError]:
    target = field.removesuffix("_ids")
    for place, unique_id in enumerate(wanted):
        if unique_id not in known:
            message = f"There is no {target} of the unique_id {unique_id}"
            yield FieldError(("body", field, place), message, f"unknown_{target}")


def _refuse_nameless(patient: Mapping[str, Any]) -> None:
    if patient["patient_first_name"] is None and patient["patient_last_name"] is None:
        raise InvalidError([FieldError(("body", "patient_last_name"), NAME_MISSING, "name_missing")])
