"""Guesses what an unknown column may contain, for messages. A person confirms them."""

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from functools import cached_property

from app.registers.options import NAME_FIELDS
from app.registers.synonyms import FULL_NAME_KEYS, NUMBER_KEYS, header_key

MIN_SIMILARITY = 0.75
"""Minimum similarity, as `difflib` measures it, of an unknown header and a name that is suggested for it."""
MAX_HEADER_CHARACTERS = 64
"""Maximum length of a header that a message shows. Of a longer one, only this many characters are compared with known
names.
"""
MIN_WORD_CHARACTERS = 5
"""Minimum length of a known name that is found within a header. Shorter ones, such as `van`, have other meanings."""
MIN_ABBREVIATION_CHARACTERS = 3
"""Minimum length of a header that may be the beginning of a known name."""
MAX_HINTS = 1000
"""Maximum number of columns for which a guess is computed."""
FULL_NAME_HINT = (
    'a first name is "patient_first_name", a full name is "patient_first_name, patient_last_name" or the other order'
)
NUMBER_HINT = 'an id is "unique_id", a telephone number is "patient_mobile_number"'
_AMBIGUOUS_WORDS = frozenset({"first", "state", "street", "initial", "prefix", "created", "updated", "modified"})
"""Known names, as keys, that are no evidence within a longer header, such as `First visit`."""


class Hints:
    """Guesses for the unknown columns of a table. Each is computed when it is needed, because it takes milliseconds."""

    def __init__(self, known: Mapping[str, str], fields: Sequence[str]) -> None:
        """Guess by the `known` names, which map keys to fields, and by the API's `fields`."""
        self._known = known
        self._fields = fields
        self._hints: dict[str, str] = {}

    def hint(self, header: str) -> str:
        """Return what the column with this header may be, or "" if no known name is similar."""
        header = header[:MAX_HEADER_CHARACTERS]
        if header not in self._hints and len(self._hints) < MAX_HINTS:
            self._hints[header] = self._find_hint(header)
        return self._hints.get(header, "")

    def _find_hint(self, header: str) -> str:
        key = header_key(header)
        has_names = set(NAME_FIELDS) <= set(self._fields)
        if has_names:
            if key in FULL_NAME_KEYS:
                return FULL_NAME_HINT
            if key in NUMBER_KEYS:
                return NUMBER_HINT
        field = self._field_within(header) or self._similar_field(header, key) or self._abbreviated_field(key)
        if field:
            return f"did you mean {field}?"
        return FULL_NAME_HINT if has_names and get_close_matches(key, FULL_NAME_KEYS, 1, MIN_SIMILARITY) else ""

    def _field_within(self, header: str) -> str | None:
        """Return the field with the longest known name that consists of words of the header."""
        words = re.findall(r"\w+", header)
        spans = {
            header_key("".join(words[start:end]))
            for start in range(len(words))
            for end in range(start + 1, len(words) + 1)
        }
        found = [
            span
            for span in spans
            if span in self._known and len(span) >= MIN_WORD_CHARACTERS and span not in _AMBIGUOUS_WORDS
        ]
        return self._known[max(found, key=lambda span: (len(span), span))] if found else None

    def _similar_field(self, header: str, key: str) -> str | None:
        for text, names in ((key, self._known), (header.casefold(), self._fields_by_name)):
            nearest = get_close_matches(text, names, 1, MIN_SIMILARITY)
            if nearest:
                return names[nearest[0]]
        return None

    def _abbreviated_field(self, key: str) -> str | None:
        """Return the field whose known names begin with a key, if there is only one."""
        found = {field for name, field in self._known.items() if name.startswith(key)}
        return found.pop() if len(found) == 1 and len(key) >= MIN_ABBREVIATION_CHARACTERS else None

    @cached_property
    def _fields_by_name(self) -> Mapping[str, str]:
        return {field: field for field in self._fields}
