"""Changes to patients, each in one transaction with the changes to their profiles and their links."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import Row
from sqlalchemy.engine import RowMapping

from app.auth.principal import Principal
from app.auth.scopes import Scope
from app.db.transaction_batching import BatchableWrite
from app.errors import FieldError, ForbiddenError, FormerProfilesError, InUseError, LastHospitalError, NotFoundError
from app.identifiers import new_identifier
from app.matching.decisions import dismiss_new
from app.merging.service import MergingService
from app.patient_identifiers.changes import IdentifierChange
from app.patient_identifiers.stored import CHECKED_IDENTIFIERS, stored_warnings
from app.patients.repository import PatientRepository, PatientWithIdentifiersRepository
from app.patients.schemas import (
    LINK_ID_FIELDS,
    NAME_MISSING_MESSAGE,
    PatientCreate,
    PatientUpdate,
    read_only_links_message,
)
from app.profiles.repository import ProfileRepository
from app.records.history import History
from app.records.preconditions import NO_PRECONDITION, Precondition
from app.records.repository import Repository
from app.records.results import Record
from app.records.service import ErasureResult, FormerProfilePolicy, dangling_link_error, id_change_errors, raise_if_any
from app.statements.links import LinkResult, unknown_link_error
from app.statements.write_statements import DATABASE_DEFAULTED_COLUMNS, input_row


class PatientService(MergingService[PatientCreate, PatientUpdate]):
    """The operations on patients, including their profiles and their links to hospitals and doctors.

    Each call runs in one transaction.
    """

    repository_class: ClassVar[type[PatientRepository]] = PatientRepository
    repository: PatientRepository
    alternative_columns = ("patient_first_name", "patient_last_name")
    alternatives_error = FieldError(("body", "choose"), NAME_MISSING_MESSAGE, "name_missing")

    @classmethod
    def conflict_keys(cls, body: PatientCreate | PatientUpdate) -> frozenset[str]:
        """Return the ids of the patient and of the profile that the request body contains."""
        profile = body.patient_profile
        return super().conflict_keys(body) | ({profile.unique_id} if profile else set())

    @classmethod
    def batchable_create(
        cls, body: PatientCreate, principal: Principal, timestamps: Mapping[str, Any] | None = None
    ) -> BatchableWrite | None:
        """Return the creation of a patient with its profile and links as a single statement, as `Service` describes.

        `timestamps` are those of `create`.
        """
        if body.not_duplicates or "patient_identifiers" in body.model_fields_set:
            return None
        values = {**body.sent_fields(), **(timestamps or {})}
        values["unique_id"] = values.get("unique_id") or new_identifier(cls.repository_class.prefix)
        no_links: dict[str, list[str]] = {name: [] for name in cls.repository_class.link_relations}
        links = no_links | cls._pop_links(values)
        return cls._batchable_write(body, principal, values, links, is_creation=True)

    @classmethod
    def batchable_update(cls, unique_id: str, body: PatientUpdate, principal: Principal) -> BatchableWrite | None:
        """Return the update of a patient with its profile and links as a single statement, as `Service` describes."""
        if (
            body.read_only_link_ids()
            or any(id_change_errors(unique_id, body))
            or "patient_identifiers" in body.model_fields_set
        ):
            return None
        values = {**body.sent_fields(), "unique_id": unique_id}
        return cls._batchable_write(body, principal, values, cls._pop_links(values), is_creation=False)

    @classmethod
    def _batchable_write(
        cls,
        body: PatientCreate | PatientUpdate,
        principal: Principal,
        values: dict[str, Any],
        links: Mapping[str, list[str]],
        *,
        is_creation: bool,
    ) -> BatchableWrite | None:
        profile_fields, profile = None, cls._pop_profile(values)
        if profile is not None:
            if not principal.has(Scope.PROFILES_WRITE):
                return None
            profile_fields = frozenset(profile)
            values |= {f"nested_{name}": value for name, value in profile.items()}
        repository = cls.repository_class
        statement = (
            repository.insert_alone_statement(profile_fields, frozenset(values) & DATABASE_DEFAULTED_COLUMNS)
            if is_creation
            else repository.update_alone_statement(frozenset(links), profile_fields)
        )
        row = input_row({"sent": list(values), **values}, links, principal)
        return BatchableWrite(statement, row, cls.conflict_keys(body) | {values["unique_id"]}, cls.batch_cost(body))

    @classmethod
    def batched_record(cls, row: Row[Any]) -> Record:
        """Return the record in the result row of a batchable write, which may disagree with its identifiers."""
        warnings = stored_warnings(getattr(row, CHECKED_IDENTIFIERS.name, None))  # a creation has no such column
        return super().batched_record(row)._replace(warnings=warnings)

    async def create(
        self,
        body: PatientCreate,
        precondition: Precondition = NO_PRECONDITION,
        timestamps: Mapping[str, Any] | None = None,
    ) -> Record:
        """Create a patient, create or change its profile, and link the patient to its hospitals and doctors.

        `timestamps` contains the timestamps that the patient has in another system, keyed by column name.

        Raises:
            IdentifierTakenError: another patient has the id.
            IdentifierRetiredError: a deleted patient had the id of the patient, or a deleted profile had the id of the
                profile.
            PatientIdentifierTakenError: another patient has one of the identifiers.
            PreconditionFailedError: a patient has the id and does not meet the precondition.
            ValidationFailedError: a hospital or doctor does not exist or may not be linked by the principal; the
                principal is restricted and would not see the patient; the principal may not use the profile; an
                identifier is invalid; or `not_duplicates` contains the id of no visible patient.
            ForbiddenError: the principal lacks the scope to link or change the profile, or the principal is restricted
                and the body contains a `unique_id`.
        """
        values = {**body.sent_fields(), **(timestamps or {})}
        if self.repository.restricted and "unique_id" in values:
            raise ForbiddenError(
                "Your credentials are restricted to hospitals, so you cannot choose the unique_id of a patient. "
                "Omit it, and one is generated."
            )
        # checked before the profile is written, so that errors of the profile do not hide a failed precondition
        await self.check_creation_precondition(values.get("unique_id"), precondition)
        links = self._pop_links(values)
        change = IdentifierChange(self.connection, self.principal, "")
        await change.apply(values, links.get("hospital_ids"))
        await self._upsert_profile(values)
        result = await self._create(values, links, precondition)
        raise_if_any([*change.errors, *self.link_errors(result.link_result, is_creation=True)])
        change.raise_if_taken()
        record = (await self._ensure_journaled(result, "created"))._replace(warnings=change.warnings)
        if body.not_duplicates:
            await self._store_decisions(record.unique_id, body.not_duplicates)
        return record

    async def _store_decisions(self, unique_id: str, other_ids: Sequence[str]) -> None:
        """Store the decision that a new patient is another person than the patients `other_ids`."""
        known = await self.repository.get_many(other_ids)
        raise_if_any(
            FieldError(("body", "not_duplicates", index), "Must be the unique_id of a patient", "unknown_patient")
            for index, other_id in enumerate(other_ids)
            if other_id not in known or other_id == unique_id
        )
        await dismiss_new(self.connection, unique_id, other_ids)

    async def update(self, unique_id: str, body: PatientUpdate, precondition: Precondition = NO_PRECONDITION) -> Record:
        """Update a patient with the fields that the body contains.

        Raises:
            NotFoundError: no visible patient has this id.
            PreconditionFailedError, PreconditionRequiredError: see `Precondition.check`.
            IdentifierRetiredError: a deleted profile had the id of the profile.
            PatientIdentifierTakenError: another patient has one of the identifiers.
            ValidationFailedError: a hospital or doctor does not exist or may not be linked by the principal; the
                principal may not use the profile; the patient would have no name; an identifier is invalid; the body
                contains a `unique_id` other than the id of the patient; or a read-only field contains other links than
                the patient has.
            LastHospitalError: the principal would no longer see the patient.
            ForbiddenError: the principal lacks the scope to link or change the profile.
        """
        # the patient is locked first, so that requests for the same patient run one after the other, without deadlocks
        locked = await self.repository.lock(unique_id)
        await self._check_locked(locked, precondition)
        values = body.sent_fields()
        links = self._pop_links(values)
        change = IdentifierChange(self.connection, self.principal, unique_id, locked)
        await change.apply(values, links.get("hospital_ids"))
        errors = [*id_change_errors(unique_id, body), *_missing_name_errors({**locked, **values}), *change.errors]
        if errors:
            linkable = (await self.repository.linkable_ids({unique_id: links}))[unique_id]
            raise_if_any([*errors, *self._unknown_link_errors(linkable)])
        await self._upsert_profile(values, locked["profile_id"])
        read_only_ids = self._read_only_ids_to_compare(body, locked["last_updated"], links)
        former_links = frozenset(LINK_ID_FIELDS[field] for field in read_only_ids)
        result = await self.repository.update(locked, values, links, former_links=former_links)
        raise_if_any(
            [
                *self._unknown_link_errors(result.link_result),
                *_read_only_link_errors(read_only_ids, result.link_result.former_ids),
            ]
        )
        self._ensure_still_visible(result.link_result)
        change.raise_if_taken()
        return (await self._ensure_journaled(result, "updated"))._replace(warnings=change.warnings)

    async def _check_locked(self, locked: RowMapping, precondition: Precondition) -> None:
        if precondition.needs_current_etag and locked["profile_id"] is not None:
            # the profile is part of the representation, and it must not change after the comparison of the entity tags
            await self._profiles.lock(locked["profile_id"])
        await super()._check_locked(locked, precondition)

    async def erase(
        self, unique_id: str, reason: str, former_profiles: FormerProfilePolicy | None = None
    ) -> ErasureResult:
        """Remove the data of a patient everywhere, including the history.

        The patient's profile and its history are removed too, unless another patient has the same profile, and so are
        the patients that are merged into it.

        Raises:
            NotFoundError: there never was a patient with this id.
            MergedError: the patient is merged into another one, which has to be erased or separated first.
            FormerProfilesError: the patient once had other profiles that no patient has now, but `former_profiles` is
                None.
        """
        latest_snapshot = await self._lock_for_erasure(unique_id)
        await self._refuse_merged(unique_id)
        past_profile_ids: set[str] = set()
        records = []
        for each in (unique_id, *await self._lock_losers(unique_id)):
            past_profile_ids |= await self.history.distinct_values(each, "profile_id")
            records.append((self.repository.name, await self.repository.erase(each, reason)))
        unused_profile_ids = [
            profile_id for profile_id in sorted(past_profile_ids) if await self._lock_if_unused(profile_id)
        ]
        former_profile_ids = {
            profile_id for profile_id in unused_profile_ids if profile_id != latest_snapshot.get("profile_id")
        }
        if former_profile_ids and former_profiles is None:
            raise FormerProfilesError(len(former_profile_ids))
        kept_profile_ids = former_profile_ids if former_profiles is FormerProfilePolicy.KEEP else set()
        for profile_id in unused_profile_ids:
            if profile_id not in kept_profile_ids:
                records.append((self._profiles.name, await self._profiles.erase(profile_id, reason)))  # noqa: PERF401
        return ErasureResult(records, len(kept_profile_ids))

    async def _lock_if_unused(self, profile_id: str) -> bool:
        """Lock a profile, so that no patient can be linked to it. Return whether it can be erased.

        A profile can be erased if no patient has it and the journal contains data about it. It may already be deleted.
        """
        await self._profiles.advisory_lock(profile_id)
        with suppress(NotFoundError):
            await self._profiles.lock_for_deletion(profile_id)
        try:
            await self._profiles.ensure_not_in_use(profile_id)
        except InUseError:
            return False
        return await History(self._profiles).latest_snapshot(profile_id) is not None

    @property
    def _profiles(self) -> ProfileRepository:
        return ProfileRepository(self.connection, self.principal)

    @classmethod
    def _pop_links(cls, values: dict[str, Any]) -> dict[str, list[str]]:
        return {name: values.pop(name) for name in cls.repository_class.link_relations if name in values}

    @staticmethod
    def _pop_profile(values: dict[str, Any]) -> dict[str, Any] | None:
        """Replace `patient_profile` in `values` with `profile_id`, and return the other fields of the profile."""
        if "patient_profile" not in values:
            return None
        profile: dict[str, Any] | None = values.pop("patient_profile")
        values["profile_id"] = profile and profile.pop("unique_id")
        return profile

    @staticmethod
    def _read_only_ids_to_compare(
        body: PatientUpdate, last_updated: datetime, links: Mapping[str, list[str]]
    ) -> dict[str, frozenset[str]]:
        """Return the ids in each read-only field that must be the ids of the stored links.

        A client that read the patient before its last update, and sends it back, has not edited these fields. Ids that
        the request itself links are correct, too.
        """
        if not body.is_based_on(last_updated):
            return {}
        return {
            field: ids
            for field, ids in body.read_only_link_ids().items()
            if LINK_ID_FIELDS[field] not in links or ids != frozenset(links[LINK_ID_FIELDS[field]])
        }

    async def _upsert_profile(self, values: dict[str, Any], linked_profile_id: str | None = None) -> None:
        """Write the profile that `values` contains, and replace `patient_profile` with `profile_id` in `values`.

        `linked_profile_id` is the id of the patient's current profile. A request that sends the current profile
        unchanged needs no profile scope. A request that links a different profile needs a profile scope, because the
        response shows the linked profile.
        """
        profile = self._pop_profile(values)
        self._require_profile_scopes(values.get("profile_id"), linked_profile_id)
        if profile is not None and await self._profiles.upsert(values["profile_id"], profile):
            self.principal.require(Scope.PROFILES_WRITE)

    def _require_profile_scopes(self, profile_id: str | None, linked_profile_id: str | None) -> None:
        """Check that the principal may link the profile, before the response can reveal anything about the profile.

        Raises:
            MissingScopeError: `profile_id` is not the id of the patient's current profile, and the principal has no
                profile scope.
        """
        if profile_id not in {None, linked_profile_id}:
            self.principal.require(Scope.PROFILES_READ, Scope.PROFILES_WRITE)

    async def _drop_dangling_references(
        self, unique_id: str, values: dict[str, Any], before: Mapping[str, Any]
    ) -> list[FieldError]:
        change = IdentifierChange(self.connection, self.principal, unique_id, before)
        errors = [dangling_link_error("hospital", hospital_id) for hospital_id in await change.restore(values)]
        profile_id, linked_profile_id = values.get("profile_id"), before.get("profile_id")
        self._require_profile_scopes(profile_id, linked_profile_id)
        # the current profile was visible with the patient, but no row shows this any more if the patient is deleted
        profiles = self._profiles.unrestricted if profile_id == linked_profile_id else self._profiles
        if profile_id is None or await profiles.is_visible(profile_id):
            return errors
        values["profile_id"] = None
        return [*errors, dangling_link_error("profile", profile_id)]

    def _links_to_restore(
        self, links: Mapping[str, list[str]], latest_snapshot: Mapping[str, Any] | None
    ) -> tuple[Repository, Mapping[str, list[str]]]:
        own_hospitals = self.principal.hospitals
        if own_hospitals is None:
            return super()._links_to_restore(links, latest_snapshot)
        hospitals = own_hospitals.intersection(links["hospital_ids"])
        # an existing patient keeps its hospitals outside the principal's scope; a deleted patient gets them back
        repository = self.repository if latest_snapshot is None else self.repository.unrestricted
        hospitals |= frozenset(latest_snapshot["hospital_ids"] if latest_snapshot else ()) - own_hospitals
        return repository, {**links, "hospital_ids": sorted(hospitals)}

    def link_errors(self, link_result: LinkResult, *, is_creation: bool) -> list[FieldError]:
        """Return the errors of links that cannot be made, or without which a new patient would be invisible."""
        own_hospital_errors = self._missing_own_hospital_errors(link_result) if is_creation else ()
        return [*self._unknown_link_errors(link_result), *own_hospital_errors]

    def _unknown_link_errors(self, link_result: LinkResult) -> Iterator[FieldError]:
        for name, index, unique_id in link_result.unlinkable_ids():
            error = unknown_link_error(name, index, unique_id)
            message = error.msg
            if self.repository.restricted and self.repository.link_relations[name].scoped:
                message += ", or you may not link it"
            yield error._replace(loc=("body", *error.loc), msg=message)

    def _missing_own_hospital_errors(self, link_result: LinkResult) -> Iterator[FieldError]:
        """Yield an error if the patient would be linked to none of the hospitals of a restricted principal.

        The principal could then not see the patient after the write.
        """
        own_hospitals = self.principal.hospitals
        if own_hospitals is not None and own_hospitals.isdisjoint(link_result.linkable_ids.get("hospital_ids", ())):
            message = "Include at least one of the hospitals that your credentials are restricted to"
            yield FieldError(("body", "hospital_ids"), message, "own_hospital_missing")

    def _ensure_still_visible(self, link_result: LinkResult) -> None:
        """Raise an error if a restricted principal could no longer see the patient after the write.

        Raises:
            LastHospitalError: the write would leave the patient in none of the principal's hospitals.
        """
        if "hospital_ids" in link_result.linkable_ids and any(self._missing_own_hospital_errors(link_result)):
            raise LastHospitalError


class PatientWithIdentifiersService(PatientService):
    """The same operations, which return documents that have the identifiers, too."""

    repository_class: ClassVar[type[PatientRepository]] = PatientWithIdentifiersRepository


def _read_only_link_errors(
    read_only_ids: Mapping[str, frozenset[str]], former_link_ids: Mapping[str, frozenset[str]]
) -> Iterator[FieldError]:
    for field, ids in read_only_ids.items():
        if ids != former_link_ids[LINK_ID_FIELDS[field]]:
            yield FieldError(("body", field), read_only_links_message(field), "read_only_links")


def _missing_name_errors(patient: Mapping[str, Any]) -> Iterator[FieldError]:
    if patient["patient_first_name"] is None and patient["patient_last_name"] is None:
        yield FieldError(("body", "patient_last_name"), NAME_MISSING_MESSAGE, "name_missing")
