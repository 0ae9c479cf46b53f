"""Changes to the identifiers of one patient, on behalf of a principal."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from sqlalchemy import bindparam, text

from app.auth.principal import Principal
from app.db.base import ID_TEXT
from app.db.connection import Connection
from app.errors import FieldError, PatientIdentifierTakenError
from app.patient_identifiers.resolving import IDENTIFIERS, Identifiers, identifier_key, resolve, union
from app.patient_identifiers.stored import DESCRIBED_FIELDS, identifier_warnings, select_existing_hospitals, taken_keys
from app.patient_identifiers.types import IdentifierType, read_types

_SELECT_HOSPITALS_OF_PATIENT = text(
    "SELECT hospital_id FROM patient_hospitals WHERE patient_id = :unique_id LIMIT 2"
).bindparams(bindparam("unique_id", type_=ID_TEXT))
_NOTHING: Mapping[Any, Any] = MappingProxyType({})


class IdentifierChange:
    """The change to the identifiers of a patient. The patient is locked, or is created in the same transaction.

    Identifiers of hospitals outside the principal's hospital scope stay unchanged, as links to such hospitals do.
    """

    def __init__(
        self,
        connection: Connection,
        principal: Principal,
        unique_id: str,
        stored: Mapping[Any, Any] = _NOTHING,
    ) -> None:
        """`unique_id` is empty for a patient that is created. `stored` are its current values."""
        self._connection = connection
        self._principal = principal
        self._unique_id = unique_id
        self._stored = stored
        identifiers = stored.get(IDENTIFIERS) or ()
        self._kept = [identifier for identifier in identifiers if self._is_out_of_scope(identifier)]
        self.errors: list[FieldError] = []
        """The errors in the identifiers of the request."""
        self.warnings: list[str] = []
        """What the identifiers contradict, such as the date of birth. They contain no values."""
        self._taken_locations: list[tuple[str | int, ...]] = []

    def _is_out_of_scope(self, identifier: Mapping[str, Any]) -> bool:
        own_hospitals, hospital_id = self._principal.hospitals, identifier.get("hospital_id")
        return own_hospitals is not None and hospital_id is not None and hospital_id not in own_hospitals

    async def apply(self, values: dict[str, Any], hospital_ids: Sequence[str] | None) -> None:
        """Replace the identifiers in the `values` of a request, if there are any, with those that can be stored.

        Invalid ones are left out and added to `errors`. Those that other patients have are left out, too, and reported
        by `raise_if_taken`. `hospital_ids` are the hospitals in the request, or None to keep the patient's hospitals.
        If only fields change that the identifiers describe, the stored identifiers are compared with them.
        """
        if IDENTIFIERS in values:
            values[IDENTIFIERS] = await self._resolve(values[IDENTIFIERS], hospital_ids, {**self._stored, **values})
        elif (stored := self._stored.get(IDENTIFIERS)) and not values.keys().isdisjoint(DESCRIBED_FIELDS):
            types = await read_types(self._connection)
            for index, identifier in enumerate(stored):
                self._warn(index, identifier, types, {**self._stored, **values})

    async def _resolve(
        self,
        inputs: Sequence[Mapping[str, Any]] | None,
        hospital_ids: Sequence[str] | None,
        patient: Mapping[str, Any],
    ) -> Identifiers | None:
        """Return the identifiers to store for those in a request. `patient` has the values after the change."""
        if hospital_ids is None and any("hospital_id" not in each for each in inputs or ()):
            rows = await self._connection.execute(_SELECT_HOSPITALS_OF_PATIENT, {"unique_id": self._unique_id})
            hospital_ids = [hospital_id for (hospital_id,) in rows.records]
        types = await read_types(self._connection) if inputs else {}
        identifiers, indexes, errors = resolve(inputs, types, {*(hospital_ids or ())})
        self.errors += [error._replace(loc=("body", *error.loc)) for error in errors]
        known, kept_keys = (
            await select_existing_hospitals(self._connection, identifiers),
            {identifier_key(each) for each in self._kept},
        )
        own = []
        for identifier in identifiers:
            hospital_id, index = identifier.get("hospital_id"), indexes[identifier_key(identifier)]
            if self._is_out_of_scope(identifier):
                if identifier_key(identifier) not in kept_keys:
                    self._add_unknown_hospital(index, hospital_id)
            elif hospital_id is not None and hospital_id not in known:
                self._add_unknown_hospital(index, hospital_id)
            else:
                own.append(identifier)
                self._warn(index, identifier, types, patient)
        taken = await taken_keys(self._connection, self._unique_id, own)
        self._taken_locations = sorted(("body", IDENTIFIERS, indexes[each], "value") for each in taken)
        return union((each for each in own if identifier_key(each) not in taken), self._kept)

    def _warn(
        self,
        index: int,
        identifier: Mapping[str, Any],
        types: Mapping[str, IdentifierType],
        patient: Mapping[Any, Any],
    ) -> None:
        checker = types[identifier["type"]].checker
        described = (patient.get(name) for name in DESCRIBED_FIELDS)
        self.warnings += identifier_warnings(index, checker, identifier["normalized"], *described)

    def _add_unknown_hospital(self, index: int, hospital_id: str | None) -> None:
        message = f"There is no hospital with the unique_id {hospital_id}"
        if self._principal.hospitals is not None:
            message += ", or you may not link it"
        self.errors.append(FieldError(("body", IDENTIFIERS, index, "hospital_id"), message, "unknown_hospital"))

    def raise_if_taken(self) -> None:
        """Raise an error if identifiers of the request belong to other patients. Call this after all other checks.

        Raises:
            PatientIdentifierTakenError: at least one belongs to another patient.
        """
        if self._taken_locations:
            raise PatientIdentifierTakenError(self._taken_locations)

    async def restore(self, values: dict[str, Any]) -> list[str]:
        """Replace the identifiers in the `values` of an earlier version, if there are any, with those to store.

        Identifiers of hospitals that no longer exist are left out. Return the ids of these hospitals.

        Raises:
            PatientIdentifierTakenError: another patient has one of the identifiers.
        """
        if IDENTIFIERS not in values:
            return []
        own = [each for each in values[IDENTIFIERS] or () if not self._is_out_of_scope(each)]
        missing = {each["hospital_id"] for each in own if "hospital_id" in each}
        missing -= await select_existing_hospitals(self._connection, own)
        values[IDENTIFIERS] = union((each for each in own if each.get("hospital_id") not in missing), self._kept)
        if await taken_keys(self._connection, self._unique_id, values[IDENTIFIERS] or ()):
            raise PatientIdentifierTakenError([("body", "version")])
        return sorted(missing)
