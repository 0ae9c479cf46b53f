"""Hospitals and doctors by name, for files that have no ids of them."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import select

from app.auth.principal import Principal
from app.db.base import max_length
from app.db.connection import Connection
from app.doctors.schemas import DoctorCreate
from app.doctors.service import DoctorService
from app.errors import FieldError
from app.fields.characters import normalize_characters
from app.fields.schemas import CreateBody
from app.hospitals.schemas import HospitalCreate
from app.hospitals.service import HospitalService
from app.identifiers import new_identifier
from app.records.service import Service
from app.registers.synonyms import header_key
from app.transfer.reading import ParsedLine


class _LinkedResource(NamedTuple):
    service_class: type[Service[Any, Any]]
    create_schema: type[CreateBody]
    name_columns: Sequence[str]
    """The columns of the name. A record that is created has the whole name in the first of them."""


LINKED_RESOURCES: Mapping[str, _LinkedResource] = {
    "hospital_ids": _LinkedResource(HospitalService, HospitalCreate, ("hospital_name",)),
    "doctor_ids": _LinkedResource(DoctorService, DoctorCreate, ("doctor_first_name", "doctor_last_name")),
}
"""The resources whose records can be linked by name, by the field that contains the ids."""
_SEPARATOR_PATTERN = re.compile(r"[;\r\n]")
"""Matches what is in no name, and therefore stands between several names."""
_POSSIBLE_SEPARATOR_PATTERN = re.compile(r"[,/&+]|\b(?:and|en)\b", re.IGNORECASE)
"""Matches what may stand between several names or be a part of one, such as `Mountain Clinic, Paarl`."""


class LinkNames:
    """The names of all hospitals and doctors, and new records for other names.

    Case, accents, blanks and punctuation do not matter. An id is accepted like a name.
    """

    def __init__(self, *, makes_records: bool) -> None:
        self._makes_records = makes_records
        self._ids: dict[str, dict[str, set[str]]] = {field: {} for field in LINKED_RESOURCES}
        """The ids of the records with each name, by field."""
        self._own_ids: dict[str, set[str]] = {field: set() for field in LINKED_RESOURCES}
        self._new_bodies: dict[str, tuple[str, CreateBody]] = {}
        """The field and the body of each new record that no valid line has linked to yet, by id."""
        self._doubtful_ids: set[str] = set()
        """The ids of those new records whose names may be several names."""

    async def load(self, connection: Connection) -> None:
        """Read the names of all hospitals and doctors."""
        for field, (service_class, _, name_columns) in LINKED_RESOURCES.items():
            table = service_class.repository_class.table
            statement = select(table.c.unique_id, *(table.c[name] for name in name_columns))
            for unique_id, *names in await connection.execute(statement):
                self._own_ids[field].add(unique_id)
                words = [name for name in names if name]
                for name in {unique_id, " ".join(words), " ".join(reversed(words))}:
                    self._ids[field].setdefault(header_key(name), set()).add(unique_id)

    def resolve(self, line: ParsedLine) -> ParsedLine:
        """Return a line with ids instead of names, or with errors for names that belong to no record or to several."""
        if line.record is None or not any(line.record.get(field) for field in LINKED_RESOURCES):
            return line
        record, errors, remarks = dict(line.record), list(line.errors), list(line.remarks)
        for field in LINKED_RESOURCES:
            if names := record.get(field):
                found = [self._find(field, name) for name in names]
                record[field] = ids = [unique_id for unique_id in found if isinstance(unique_id, str)]
                errors += [one for one in found if isinstance(one, FieldError)]
                if self._doubtful_ids.intersection(ids):
                    message = f"Is taken for the name of one new {_noun(field)}: put a | between several names"
                    remarks.append(FieldError((field,), message, "name_separator"))
        return line._replace(record=record, errors=errors, remarks=remarks)

    def _find(self, field: str, name: str) -> str | FieldError:
        noun = _noun(field)
        ids = self._ids[field].setdefault(header_key(name), set())
        if name.strip() in self._own_ids[field]:  # although other names or ids may differ from it in punctuation only
            return name.strip()
        if not ids and self._has_several_names(field, name):
            message = f"Must have a | between two names, such as North|South; a {noun} with this name is imported first"
            return FieldError((field,), message, "id_separator")
        if len(ids) > 1:
            return FieldError((field,), f"Several {noun}s have this name: use the id instead", "ambiguous_name")
        if not ids:
            resource = LINKED_RESOURCES[field]
            text = normalize_characters(name).strip()
            column = resource.service_class.repository_class.table.c[resource.name_columns[0]]
            if not self._makes_records or not header_key(name) or len(text) > max_length(column):
                message = f"No {noun} has this name: correct it, or create missing ones with --create-hospitals"
                return FieldError((field,), message, "unknown_name")
            unique_id = new_identifier(resource.service_class.repository_class.prefix)
            body = resource.create_schema.model_validate({"unique_id": unique_id, resource.name_columns[0]: text})
            self._new_bodies[unique_id] = field, body
            if _POSSIBLE_SEPARATOR_PATTERN.search(name):
                self._doubtful_ids.add(unique_id)
            ids.add(unique_id)
        return next(iter(ids))

    def _has_several_names(self, field: str, text: str) -> bool:
        """Return whether a text has a separator of names, or may have one and a part of it is the name of a record."""
        keys = [header_key(part) for part in _POSSIBLE_SEPARATOR_PATTERN.split(text)]
        return _SEPARATOR_PATTERN.search(text) is not None or (
            len(keys) > 1 and any(key and self._ids[field].get(key) for key in keys)
        )

    def take_bodies(self, values: Mapping[str, Any]) -> list[tuple[str, CreateBody]]:
        """Return the new records that the valid values of a line link to. Each is returned only once."""
        linked = [unique_id for field in LINKED_RESOURCES for unique_id in values.get(field, ())]
        self._doubtful_ids.difference_update(linked)
        return [self._new_bodies.pop(unique_id) for unique_id in linked if unique_id in self._new_bodies]


def _noun(field: str) -> str:
    return field.removesuffix("_ids")


class NewLinks:
    """The new hospitals and doctors that lines name. A record is created when a line that is stored links to it."""

    def __init__(self, connection: Connection, principal: Principal) -> None:
        self._connection = connection
        self._principal = principal
        self._bodies: dict[str, tuple[str, CreateBody]] = {}

    def add(self, bodies: Iterable[tuple[str, CreateBody]]) -> None:
        """Add records, each as the field that contains its id and its body."""
        self._bodies |= {str(body.unique_id): (field, body) for field, body in bodies}

    def __contains__(self, unique_id: str) -> bool:
        return unique_id in self._bodies

    async def create(self, unique_ids: Iterable[str]) -> Counter[str]:
        """Create the records with these ids, and return their numbers by the singular of the resource's name."""
        counts: Counter[str] = Counter()
        for unique_id in sorted(unique_ids):
            field, body = self._bodies[unique_id]
            service = LINKED_RESOURCES[field].service_class(self._connection, self._principal)
            await service.create(body)
            counts[service.repository.name] += 1
        return counts
