"""Suggestions for mistyped names of fields, parameters, columns, settings, commands and records."""

import difflib
from collections import Counter
from collections.abc import Iterable


def suggestion(name: str, known_names: Iterable[str], otherwise: str) -> str:
    """Return the question whether the known name that is most similar to `name` was meant.

    Upper and lower case do not matter. If no known name is similar, return `otherwise`, which should say where the
    known names are listed. The duration grows with the length of `name`, so callers limit it.
    """
    names = {known_name.casefold(): known_name for known_name in known_names}
    prefix = _common_prefix(names)
    candidates = {folded.removeprefix(prefix): known_name for folded, known_name in names.items()}
    if not name.casefold().startswith(prefix):
        candidates = {**names, **candidates}
    nearest = difflib.get_close_matches(name.casefold().removeprefix(prefix), candidates, n=1)
    return f"did you mean {candidates[nearest[0]]}?" if nearest else otherwise


def _common_prefix(names: Iterable[str]) -> str:
    """Return the first word that more than half of the names have, such as `patient_`, or "" if there is none.

    With such a word, all names would be similar.
    """
    first_words = Counter(f"{name.partition('_')[0]}_" for name in names)
    (word, count), *_ = first_words.most_common(1) or [("", 0)]
    return word if 2 * count > first_words.total() else ""
