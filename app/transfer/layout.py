"""How a record stands in a file: as the API writes it in JSON, or in the cells of a CSV file's row.

Columns are named as the contract names fields: `patient_profile.unique_id` and so on for what is nested, and for links
the name by which requests replace them, `hospital_ids`, the ids separated by `|`, which no id has in it.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from app.resource.document import ToMany, ToOne
from app.resource.repository import Repository

BETWEEN_IDS = "|"


class Layout:
    """The fields of one resource's files."""

    def __init__(self, repository: type[Repository]) -> None:
        document = repository.document
        self.links = {
            field: name
            for name, link in repository.links.items()
            for field, relation in document.relations.items()
            if relation is link
        }
        """The names by which requests replace links, by those of the document's fields."""
        self.nested = {
            field: tuple(relation.schema.model_fields)
            for field, relation in document.relations.items()
            if isinstance(relation, ToOne)
        }
        """The fields inside each nested object."""
        self.columns: Sequence[str] = tuple(self._columns(document.schema.model_fields, document.relations))
        """Of a CSV file, in the order of the document."""

    def _columns(self, fields: Mapping[str, Any], relations: Mapping[str, ToOne | ToMany]) -> Iterator[str]:
        for field in fields:
            if field in self.nested:
                yield from (f"{field}.{name}" for name in self.nested[field])
            else:
                yield self.links[field] if field in relations else field

    def record(self, cells: Mapping[str, str]) -> dict[str, Any]:
        """The body of a request that says what a row of a CSV file does. A blank cell says that there is nothing."""
        record: dict[str, Any] = {name: cell for name, cell in cells.items() if "." not in name}
        for name in self.links.values():
            if name in record:
                record[name] = [part.strip() for part in record[name].split(BETWEEN_IDS) if part.strip()]
        for field, names in self.nested.items():
            inside = {name: cells[f"{field}.{name}"] for name in names if f"{field}.{name}" in cells}
            if inside:
                record[field] = _identified(inside) if any(cell.strip() for cell in inside.values()) else None
        return _identified(record)

    def relinked(self, record: dict[str, Any]) -> dict[str, Any]:
        """A record as the list streams it, with its links as requests replace them: their ids alone."""
        for field, name in self.links.items():
            if name not in record and isinstance(linked := record.get(field), list):
                record[name] = [one.get("unique_id") if isinstance(one, dict) else one for one in linked]
        return record

    def cells(self, document: Mapping[str, Any]) -> list[str | None]:
        """The row of a CSV file that says what a document does."""
        cells: list[str | None] = []
        for field, value in document.items():
            if field in self.nested:
                inside = value or {}
                cells += [inside.get(name) for name in self.nested[field]]
            elif field in self.links:
                cells.append(BETWEEN_IDS.join(linked["unique_id"] for linked in value))
            else:
                cells.append(value)
        return cells


def _identified(record: dict[str, Any]) -> dict[str, Any]:
    """A record whose id, if its cell is blank, is not there: a new one is made."""
    if "unique_id" in record:
        record["unique_id"] = record["unique_id"].strip()
        if not record["unique_id"]:
            del record["unique_id"]
    return record
