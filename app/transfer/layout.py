"""The representation of a record in a file: either the API's JSON document or a CSV row.

CSV columns have the names of the contract's fields. A nested object has one column per field, such as
`patient_profile.unique_id`. A set of links has one column with the name of the corresponding request field, such as
`hospital_ids`. The cells of this column contain the linked ids, separated by `|`, a character that no id contains.
Identifiers of patients have one column, `patient_identifiers`, whose cells contain the JSON of the API. A file may also
have a column for the values of each type, such as `patient_identifiers.za_id`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pydantic_core import from_json, to_json

from app.fields.schemas import gone_representation
from app.listing.query import GoneBy
from app.patient_identifiers.resolving import IDENTIFIERS
from app.patient_identifiers.schemas import BUILT_IN_TYPES
from app.records.repository import Repository
from app.statements.documents import ToOne

ID_SEPARATOR = "|"


class Layout:
    """The fields in the files of one resource, and conversions between CSV rows, JSON documents and request bodies."""

    def __init__(
        self,
        repository: type[Repository],
        identifier_types: Iterable[str] = BUILT_IN_TYPES,
        gone: GoneBy | None = None,
    ) -> None:
        """`identifier_types` are the names of the types of identifiers that a column may have.

        `gone` is the action by which the records have gone, or None for existing records.
        """
        self.repository = repository
        document = repository.document
        self.link_id_fields = {
            field: name
            for name, link in repository.link_relations.items()
            for field, relation in document.relations.items()
            if relation is link
        }
        """Maps each document field that contains linked records to the request field that contains their ids."""
        self.nested_fields = {
            field: tuple(relation.schema.model_fields)
            for field, relation in document.relations.items()
            if isinstance(relation, ToOne)
        }
        """Maps each document field that contains a nested object to the names of the fields of that object."""
        self._nested_columns = {
            field: [(f"{field}.{name}", name) for name in names] for field, names in self.nested_fields.items()
        }
        schema = document.schema if gone is None else gone_representation(document.schema, gone)
        self.columns: Sequence[str] = tuple(self._csv_columns(schema.model_fields))
        """The column names of a CSV file, in the order of the document's fields."""
        has_identifiers = IDENTIFIERS in repository.table.c
        self._identifier_columns = {f"{IDENTIFIERS}.{name}": name for name in identifier_types if has_identifiers}
        identifiers = () if not has_identifiers or IDENTIFIERS in self.columns else (IDENTIFIERS,)
        self.readable_columns: Sequence[str] = (*self.columns, *identifiers, *self._identifier_columns)
        """The column names that a file to import may have."""

    def _csv_columns(self, fields: Iterable[str]) -> Iterator[str]:
        for field in fields:
            if field in self.nested_fields:
                yield from (f"{field}.{name}" for name in self.nested_fields[field])
            else:
                yield self.link_id_fields.get(field, field)

    def from_csv_row(self, cells: Mapping[str, str]) -> dict[str, Any]:
        """Return the request body for a CSV row. A blank cell means that its field has no value.

        `cells` maps the column names to the cells of the row.
        """
        record: dict[str, Any] = dict(cells)
        for name in self.link_id_fields.values():
            if name in record:
                record[name] = [part.strip() for part in record[name].split(ID_SEPARATOR) if part.strip()]
        for field, columns in self._nested_columns.items():
            nested_cells = {name: record.pop(column) for column, name in columns if column in record}
            if nested_cells:
                record[field] = (
                    _without_blank_id(nested_cells) if any(cell.strip() for cell in nested_cells.values()) else None
                )
        self._read_identifiers(record)
        return _without_blank_id(record)

    def _read_identifiers(self, record: dict[str, Any]) -> None:
        """Replace the cells with identifiers in a record, if it has any, with one list, which the schema validates."""
        columns = [column for column in self._identifier_columns if column in record]
        if not columns and IDENTIFIERS not in record:
            return
        text = record.pop(IDENTIFIERS, "")
        try:
            identifiers = from_json(text) if text.strip() else []
        except ValueError:
            identifiers = text
        if isinstance(identifiers, list):
            values = [(self._identifier_columns[column], record.pop(column)) for column in columns]
            identifiers += [{"type": name, "value": value} for name, value in values if value.strip()]
        record[IDENTIFIERS] = identifiers

    def with_link_ids(self, record: dict[str, Any]) -> dict[str, Any]:
        """Replace linked records in a JSON document with their ids, in the fields of request bodies, and return it.

        For example, replace `patient_hospital` with `hospital_ids`, unless the document already has `hospital_ids`.
        Documents in the API's lists and in NDJSON exports contain only the linked records.
        """
        for field, name in self.link_id_fields.items():
            if name not in record and isinstance(linked := record.get(field), list):
                record[name] = [one.get("unique_id") if isinstance(one, dict) else one for one in linked]
                del record[field]
        return record

    def to_csv_row(self, document: Mapping[str, Any]) -> list[str | None]:
        """Return the cells of the CSV row for a JSON document, in the order of `columns`."""
        cells: list[str | None] = []
        for field, value in document.items():
            if field in self.nested_fields:
                nested_values = value or {}
                cells += [nested_values.get(name) for name in self.nested_fields[field]]
            elif field in self.link_id_fields:
                cells.append(ID_SEPARATOR.join(linked["unique_id"] for linked in value))
            elif field == IDENTIFIERS:
                cells.append(to_json(value).decode() if value else None)
            else:
                cells.append(value if value is None else str(value))  # the version of a merged patient is a number
        return cells


def _without_blank_id(record: dict[str, Any]) -> dict[str, Any]:
    """Strip the `unique_id` of a record and return the record. Remove a blank id, so that it counts as omitted."""
    if "unique_id" in record:
        record["unique_id"] = record["unique_id"].strip()
        if not record["unique_id"]:
            del record["unique_id"]
    return record
