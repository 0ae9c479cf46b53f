"""Short forms of given names: Bob for Robert, Kobus for Jacobus, Sbu for Sibusiso."""

import unicodedata
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType

_LIST_PATH = Path(__file__).with_name("short_forms.txt")
Groups = Mapping[str, frozenset[str]]
"""For each name its short forms, and for each short form the names that it may stand for."""

NO_SHORT_FORMS: Groups = MappingProxyType({})


@cache
def short_forms(further_list: Path | None = None) -> Groups:
    """Return the short forms of this service's own list and of an operator's list.

    Raises:
        ValueError: a line of the operator's list is not valid, or the list is not text.
        OSError: the operator's list cannot be read.
    """
    groups = parse_short_forms(_LIST_PATH.read_text("utf-8").splitlines())
    further = parse_short_forms(further_list.read_text("utf-8").splitlines()) if further_list else {}
    return {name: groups.get(name, frozenset()) | further.get(name, frozenset()) for name in groups.keys() | further}


def parse_short_forms(lines: Iterable[str]) -> Groups:
    """Return the short forms in the lines of a list, whose format the list of this service explains.

    Raises:
        ValueError: a line is not valid.
    """
    groups: dict[str, set[str]] = {}
    for number, line in enumerate(lines, 1):
        if not (content := line.partition("#")[0].strip()):
            continue
        names, forms = (_split(part) for part in (content.partition(":")[0], content.partition(":")[2]))
        if not names or not forms:
            raise ValueError(f"has a line that is not of the form `robert, roberta: bob, bobby`: line {number}")
        for name in names:
            groups.setdefault(name, set()).update(forms)
        for form in forms:
            groups.setdefault(form, set()).update(names)
    return {name: frozenset(group) for name, group in groups.items()}


def _split(part: str) -> list[str]:
    return [_fold(name) for name in part.split(",") if name.strip()]


def _fold(name: str) -> str:
    decomposed = unicodedata.normalize("NFD", name.strip().lower().replace("'", ""))
    return "".join(character for character in decomposed if not unicodedata.combining(character))
