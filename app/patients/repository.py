"""Patient rows: which of them a principal restricted to hospitals can see, and what an erasure removes."""

from collections.abc import Mapping
from functools import cache
from typing import Any, ClassVar

from sqlalchemy import ARRAY, ColumnElement, Select, column

from app.db.base import ID_TEXT
from app.db.transaction_batching import input_rows
from app.models import Doctor, Hospital, Profile, patient_doctors, patient_hospitals
from app.models import Patient as PatientRow
from app.patient_identifiers.finding import has_identifier
from app.patient_identifiers.schemas import PatientIdentifier
from app.patient_identifiers.stored import CHECKED_IDENTIFIERS
from app.patients.schemas import Patient, PatientDoctor, PatientHospital, PatientProfile, PatientWithIdentifiers
from app.records.repository import Repository
from app.statements.documents import Document, Elements, ToMany, ToOne
from app.statements.hospital_scope import (
    next_patients_in_scope,
    patient_in_scope,
    record_was_in_scope,
    scope_parameters,
    scoped_ids_if_few,
)
from app.statements.links import LinkResult, linkable_ids_statement
from app.statements.standalone import NestedRecord, insert_alone, update_alone
from app.vocabulary.unused_words import delete_unused_words, words_in_history

_PROFILE = ToOne(PatientProfile, Profile.__table__, "profile_id")
_HOSPITALS = ToMany(PatientHospital, Hospital.__table__, patient_hospitals, scoped=True)
_DOCTORS = ToMany(PatientDoctor, Doctor.__table__, patient_doctors)


def _nested_profile(fields: frozenset[str] | None) -> NestedRecord | None:
    return None if fields is None else NestedRecord(_PROFILE, fields)


class PatientRepository(Repository):
    name = "patient"
    prefix = "pat"
    table = PatientRow.__table__
    document = Document(
        Patient,
        table,
        patient_profile=_PROFILE,
        patient_hospital=_HOSPITALS,
        patient_doctor=_DOCTORS,
    )
    month_indexed_columns = frozenset({"date_created", "last_updated"})
    mergeable = True
    special_filters: ClassVar = {"patient_identifier": has_identifier}
    link_relations: ClassVar = {"hospital_ids": _HOSPITALS, "doctor_ids": _DOCTORS}

    @classmethod
    @cache
    def insert_alone_statement(
        cls, profile_fields: frozenset[str] | None, stored_columns: frozenset[str]
    ) -> Select[Any]:
        """Return the statement that creates patients without a transaction around it.

        `profile_fields` contains the sent fields of the profile, or is None if no profile is sent. `stored_columns` are
        further columns with values, such as timestamps.
        """
        return insert_alone(cls.document, cls.link_relations, _nested_profile(profile_fields), stored_columns)

    @classmethod
    @cache
    def update_alone_statement(
        cls, replaced_links: frozenset[str], profile_fields: frozenset[str] | None
    ) -> Select[Any]:
        """Return the statement that changes patients without a transaction around it.

        `profile_fields` contains the sent fields of the profile, or is None if no profile is sent.
        """
        nested = _nested_profile(profile_fields)
        return update_alone(cls.document, cls.link_relations, replaced_links, nested, CHECKED_IDENTIFIERS)

    @classmethod
    @cache
    def _linkable_ids_statement(cls, names: frozenset[str], *, restricted: bool) -> Select[Any]:
        inputs = input_rows(column("unique_id", ID_TEXT), *(column(name, ARRAY(ID_TEXT)) for name in sorted(names)))
        return linkable_ids_statement({name: cls.link_relations[name] for name in names}, inputs, restricted=restricted)

    async def linkable_ids(self, links_by_id: Mapping[str, Mapping[str, list[str]]]) -> dict[str, LinkResult]:
        """Return which ids exist and may be linked to some records by the principal.

        `links_by_id` contains the requested ids by the id of the record. The same sets are requested for all records,
        of which there are at most `MAX_BATCH_COST`.
        """
        names = frozenset(next(iter(links_by_id.values()), ()))
        if not names:
            return dict.fromkeys(links_by_id, LinkResult({}, {}, {}))
        rows = [{"unique_id": unique_id, **links} for unique_id, links in links_by_id.items()]
        result = await self.connection.execute(
            self._linkable_ids_statement(names, restricted=self.restricted),
            {"rows": rows, **scope_parameters(self.principal)},
        )
        return {row.unique_id: LinkResult.from_row(links_by_id[row.unique_id], row) for row in result}

    @classmethod
    def visibility_condition(cls, *, restricted: bool) -> ColumnElement[bool]:
        """Return the condition that a patient is visible.

        An unrestricted principal sees all patients. A restricted principal sees only the patients of its hospitals.
        """
        return (
            patient_in_scope(cls.table.c.unique_id)
            if restricted
            else super().visibility_condition(restricted=restricted)
        )

    @classmethod
    def next_visible_rows(
        cls, after: ColumnElement[str], limit: ColumnElement[int], *, restricted: bool
    ) -> Select[Any]:
        """Return a statement that selects visible patients in the order of `unique_id`.

        The statement selects the first `limit` patients after the id `after`. For a restricted principal, it starts
        from the links of the principal's hospitals, not from all patients.
        """
        if not restricted:
            return super().next_visible_rows(after, limit, restricted=restricted)
        return cls.document.select_rows().where(cls.table.c.unique_id.in_(next_patients_in_scope(after, limit)))

    async def visible_ids_if_few(self) -> dict[str, Any] | None:
        """Return the ids of all patients that a restricted principal can see (see `scoped_ids_if_few`).

        Return None if there are too many ids, or if the principal is unrestricted.
        """
        return await scoped_ids_if_few(self.connection, self.principal) if self.restricted else None

    @classmethod
    def was_visible(cls, record: ColumnElement[Any]) -> ColumnElement[bool]:
        """Return the condition that a deleted patient was visible to a restricted principal.

        `record` is the last snapshot of the patient. The patient was visible if the snapshot contains a link to one of
        the principal's hospitals.
        """
        return record_was_in_scope(record)

    async def erase(self, unique_id: str, reason: str) -> int:
        """Remove a patient, if it still exists, and all data stored about it.

        Name words that no remaining patient has are deleted too. Return the number of removed journal entries.
        """
        words = await words_in_history(self.connection, unique_id)
        entries = await super().erase(unique_id, reason)
        await delete_unused_words(self.connection, words)
        return entries


class PatientWithIdentifiersRepository(PatientRepository):
    """The same rows, with documents that have the identifiers, too."""

    document = Document(
        PatientWithIdentifiers,
        PatientRepository.table,
        **PatientRepository.document.relations,
        patient_identifiers=Elements(PatientIdentifier, "patient_identifiers"),
    )
