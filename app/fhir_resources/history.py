"""Earlier versions of patients as resources, which PostgreSQL builds from the snapshots in the journal.

A snapshot has the ids of what the patient was linked to. So references have no texts here, and a profile has only its
id, because names of hospitals and profiles have their own history.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    Integer,
    Select,
    Text,
    bindparam,
    case,
    column,
    func,
    literal_column,
    select,
    true,
)

from app.db.base import non_generated_columns
from app.errors import GoneError, NotFoundError
from app.fhir_resources.documents import reference
from app.fhir_resources.resources import PATIENT_DOCUMENT, links_at, merged_patient_resource, patient_resource
from app.models import journal
from app.records.history import History
from app.records.missing import IS_OF_RECORD, may_know
from app.records.repository import Repository
from app.statements.documents import as_contract_json


class ResourceVersion(NamedTuple):
    """A change of a patient, with the resource after it."""

    version: int
    action: str
    time: str
    """When the change was made, in ISO 8601."""
    document: str | None
    """The resource as JSON text, or None if the patient was deleted or erased. The resource of a merged patient names
    the survivor.
    """


def _references(resource_type: str, ids: ColumnElement[Any]) -> ColumnElement[Any]:
    """Return the array of references to the resources with the ids in a JSON array."""
    unique_id = func.json_array_elements_text(ids).column_valued("linked_id")
    references = func.array_agg(reference(resource_type, unique_id), type_=ARRAY(Text))
    return select(references).correlate(journal).scalar_subquery()


@cache
def _entries_statement(repository_class: type[Repository], *, restricted: bool) -> Select[Any]:
    table = PATIENT_DOCUMENT.table
    row_type: ColumnElement[Any] = literal_column(f"NULL::{table.name}")
    names = [column(each.name, each.type) for each in non_generated_columns(table)]
    state = func.json_populate_record(row_type, journal.c.record).table_valued(*names, name="state").lateral("state")
    columns: Mapping[str, ColumnElement[Any]] = {
        **dict(state.c.items()),
        "unique_id": journal.c.unique_id,
        "version": journal.c.version,
    }
    linked = {
        "patient_hospital": _references("Organization", journal.c.record["hospital_ids"]),
        "patient_doctor": _references("Practitioner", journal.c.record["doctor_ids"]),
        "merges": links_at(journal.c.version, journal.c.unique_id),
    }
    merged_into = journal.c.merge.op("->>", return_type=Text())(literal_column("'merged_into'"))
    merged = merged_patient_resource({**columns, "last_updated": journal.c.time}, merged_into)
    document = case(
        (journal.c.record.is_not(None), patient_resource(columns, linked)),
        (journal.c.action == literal_column("'merged'"), merged),
    )
    return (
        select(journal.c.version, journal.c.action, as_contract_json(journal.c.time), document)
        .select_from(journal.join(state, true()))
        .where(
            IS_OF_RECORD,
            journal.c.version < bindparam("before", type_=BigInteger),
            may_know(repository_class, restricted=restricted),
        )
        .order_by(journal.c.version.desc())
        .limit(bindparam("limit", type_=Integer, literal_execute=True))
    )


class ResourceHistory(History):
    """Reads the history of patients as resources."""

    async def entries(self, unique_id: str, before: int, limit: int) -> list[ResourceVersion]:
        """Return up to `limit` entries of a patient with versions below `before`, newest first."""
        parameters = self.parameters(unique_id, before=before, limit=limit)
        rows = await self.connection.execute(self.scoped_statement(_entries_statement), parameters)
        return [ResourceVersion(*row) for row in rows]

    async def version(self, unique_id: str, version: int) -> str:
        """Return the resource as it was in a version.

        Raises:
            NotFoundError: the patient has no such version, or the principal may not see its history.
            GoneError: the version is a deletion.
        """
        found = await self.entries(unique_id, version + 1, 1)
        if not found or found[0].version != version:
            raise NotFoundError(self.repository.name, "with this id and version")
        if found[0].document is None:
            raise GoneError(self.repository.name)
        return found[0].document
