"""Reads the elements of a resource that a client sends, and finds those that were not read.

What the register can hold is read with `Element.take` and its variants. `Element.refuse_rest` then finds everything
that was not read. An element that the mapping does not know is thus refused by name and never dropped.
"""

import re
from collections.abc import Mapping
from typing import Any

from app.error_types import ErrorType, FhirErrorType
from app.errors import FieldError
from app.fields.characters import is_blank

Json = Any
MISSING = object()
NAME_PATTERN = re.compile(r"_?[A-Za-z][A-Za-z0-9]{0,63}")
REFUSED_MESSAGE = "The register cannot hold this element"
MODIFIER_MESSAGE = "The register cannot hold this element, which may change the meaning of others"
_MODIFIERS = frozenset({"implicitRules", "modifierExtension"})
"""Elements without which others may be misunderstood, so that even a lenient client must not have them left out."""


class Findings:
    """The errors in a resource, and the elements of it that the register cannot hold."""

    def __init__(self) -> None:
        self.errors: list[FieldError] = []
        """Elements with values that FHIR or the register does not allow."""
        self.refused: list[FieldError] = []
        """Correct elements that the register cannot hold."""

    def add_error(self, path: str, message: str, error_type: ErrorType | FhirErrorType) -> None:
        self.errors.append(FieldError((path,), message, error_type))

    def refuse(self, path: str, message: str = REFUSED_MESSAGE) -> None:
        """Note that the register cannot hold the element at `path`."""
        self.refused.append(FieldError((path,), message, "element_refused"))


class Element:
    """A JSON object in a resource, with its FHIRPath, such as `Patient.name[0]`."""

    def __init__(self, value: Mapping[str, Json], path: str, findings: Findings) -> None:
        self._rest = dict(value)
        self.path = path
        self._findings = findings

    def path_of(self, name: str) -> str:
        """Return the path of a member. If the name cannot be the name of an element, the path does not contain it."""
        return f"{self.path}.{name}" if NAME_PATTERN.fullmatch(name) else f"{self.path}.(a name that is no element's)"

    def peek(self, name: str) -> Json:
        """Return the value of a member that has not been read, or None."""
        return self._rest.get(name)

    def __contains__(self, name: str) -> bool:
        """Return whether the element has a member that has not been read."""
        return name in self._rest

    def take(self, name: str, kind: Any, *, description: str) -> Json:
        """Read and return the value of a member, or None if it is absent or not of the type `kind`."""
        value = self._rest.pop(name, MISSING)
        if value is MISSING:
            return None
        if value is None or value in ("", [], {}):
            self._findings.add_error(self.path_of(name), "Must not be null or empty: leave it out", "element_empty")
            return None
        if not isinstance(value, kind) or isinstance(value, bool) is not (kind is bool):
            self._findings.add_error(self.path_of(name), f"Must be {description}", "element_type")
            return None
        return value

    def take_text(self, name: str) -> str | None:
        """Read and return a member that is a text, or None if it is absent or wrong."""
        text: str | None = self.take(name, str, description="a text")
        if text is not None and is_blank(text.strip()):
            self._findings.add_error(self.path_of(name), "Must not be blank", "element_empty")
            return None
        return text

    def take_constant(self, name: str, value: Json) -> None:
        """Read a member if it has the only value that the register can represent."""
        if name in self._rest and self._rest[name] == value and type(self._rest[name]) is type(value):
            del self._rest[name]

    def take_object(self, name: str) -> "Element | None":
        """Read and return a member that is an object, or None if it is absent or wrong. Its members are not read."""
        value = self.take(name, dict, description="an object")
        return None if value is None else Element(value, self.path_of(name), self._findings)

    def take_list(self, name: str, kind: Any, *, description: str) -> list[tuple[str, Json]]:
        """Read a member that is a list, and return its items of the type `kind` with their paths.

        The result is empty if the member is absent or wrong.
        """
        items = self.take(name, list, description="a list") or ()
        found = []
        for index, item in enumerate(items):
            path = f"{self.path_of(name)}[{index}]"
            if isinstance(item, kind) and item and not (isinstance(item, str) and is_blank(item.strip())):
                found.append((path, item))
            else:
                self._findings.add_error(path, f"Must be {description} that is not empty", "element_type")
        return found

    def take_objects(self, name: str) -> "list[Element]":
        """Read and return a member that is a list of objects, without wrong items. Their members are not read."""
        items = self.take_list(name, dict, description="an object")
        return [Element(value, path, self._findings) for path, value in items]

    def refuse(self, message: str = REFUSED_MESSAGE) -> None:
        """Note that the register cannot hold this element, and read all of it."""
        self._rest.clear()
        self._findings.refuse(self.path, message)

    def refuse_rest(self) -> None:
        """Note that the register cannot hold any of the members that were not read, and read them."""
        for name, value in self._rest.items():
            paths = [self.path_of(name)]
            if isinstance(value, list) and value:
                paths = [f"{paths[0]}[{index}]" for index in range(len(value))]
            for path in paths:
                if name in _MODIFIERS:
                    self._findings.add_error(path, MODIFIER_MESSAGE, "element_modifier")
                else:
                    self._findings.refuse(path)
        self._rest.clear()
