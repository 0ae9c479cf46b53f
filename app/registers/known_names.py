"""The names by which the columns of a resource are recognized."""

import re
from collections.abc import Iterator, Mapping, Sequence

from app.registers.synonyms import NUMBER_KEYS, PATIENT_PREFIX, SYNONYMS, header_key

_NOTE_PATTERN = re.compile(r"\([^()]*\)")
"""Matches a note in a header, such as `Date of birth (dd/mm/yyyy)`."""
_NUMBER_PATTERN = re.compile(rf"(?<=\w\w)(?:{'|'.join(sorted(NUMBER_KEYS, reverse=True))})$")


class KnownNames:
    """The names of a resource's fields: those of the API, and those of other systems."""

    def __init__(self, resource: str, fields: Sequence[str]) -> None:
        """`fields` are the names of the API's fields."""
        self.fields = fields
        self.fields_by_key: Mapping[str, str] = dict(reversed([*_fields_by_key(resource, fields)]))
        """Maps the key of each name to the field. The API's own names take precedence."""

    def fields_of(self, header: str) -> tuple[str, ...] | None:
        """Return the fields of the column with this header, or None if it is not known."""
        if header in self.fields:
            return (header,)
        found = self.fields_by_key.get(header_key(header))
        if found is None and "(" in header:
            found = self.fields_by_key.get(header_key(_NOTE_PATTERN.sub("", header)))
        return None if found is None else (found,)


def _fields_by_key(resource: str, fields: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield the keys of all names with their fields. A key may come up repeatedly."""
    for field in fields:
        yield header_key(field), field
    for field in fields:
        yield header_key(field.removeprefix(f"{PATIENT_PREFIX}_")), field
    for field, names in SYNONYMS[resource].items():
        for name in names:
            for key in _equivalent_keys(header_key(name)):
                yield key, field
                yield f"{PATIENT_PREFIX}{key}", field


def _equivalent_keys(key: str) -> Iterator[str]:
    """Yield a key, and the same with the other words for a number at its end."""
    yield key
    if (match := _NUMBER_PATTERN.search(key)) is not None:
        yield from (f"{key[: match.start()]}{word}" for word in sorted(NUMBER_KEYS))
