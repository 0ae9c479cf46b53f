"""Errors as people make them at a keyboard."""

import re
from collections.abc import Callable
from random import Random

from rapidfuzz.distance import DamerauLevenshtein

from benchmarks.folding import fold_text

MAX_ERROR_FREE_LENGTH = 2
"""Words up to this length get no error, because one could turn them into any other word."""
_WORD_PATTERN = re.compile(r"[^\W\d_]+")
_KEYBOARD_ROWS = (("qwertyuiop", 0.0), ("asdfghjkl", 0.25), ("zxcvbnm", 0.75))
"""Rows of a keyboard, and the offset of each to the right of the first, in keys."""
_KEY_POSITIONS = {
    letter: (x + shift, y) for y, (row, shift) in enumerate(_KEYBOARD_ROWS) for x, letter in enumerate(row)
}
_NEIGHBOURS_BY_LETTER = {
    letter: "".join(
        other for other, (u, v) in _KEY_POSITIONS.items() if other != letter and abs(x - u) <= 1 and abs(y - v) <= 1
    )
    for letter, (x, y) in _KEY_POSITIONS.items()
}


def folded_words(text: str) -> list[str]:
    """Return the folded words of a text, which are runs of letters: O'Brien is one word, Nkosi-Dlamini two."""
    return _WORD_PATTERN.findall(fold_text(text).replace("'", ""))


def edit_distance(word: str, other: str) -> int:
    """Return the number of errors between two words."""
    return int(DamerauLevenshtein.distance(word, other))


def can_have_errors(text: str) -> bool:
    """Return whether a text has a word that is long enough for an error."""
    return bool(_letter_indexes(text))


def add_errors(text: str, count: int, random: Random) -> str:
    """Return a text with exactly `count` errors; none undoes another or is hidden by folding. See `can_have_errors`."""
    while True:
        misspelt = text
        for _ in range(count):
            misspelt = _add_error(misspelt, random)
        if sum(map(edit_distance, folded_words(text), folded_words(misspelt))) == count:
            return misspelt


def _letter_indexes(text: str) -> list[int]:
    """Return the indexes of the letters in words that are long enough for an error."""
    return [
        at
        for word in _WORD_PATTERN.finditer(text)
        if len(word[0]) > MAX_ERROR_FREE_LENGTH
        for at in range(*word.span())
    ]


def _add_error(text: str, random: Random) -> str:
    at = random.choice(_letter_indexes(text))
    return random.choice(_ERROR_MAKERS)(text[:at], text[at], text[at + 1 :], random)


_ErrorMaker = Callable[[str, str, str, Random], str]
"""Makes an error at a letter, given the text before it, the letter, and the text after it."""


def _insertion(before: str, letter: str, after: str, random: Random) -> str:
    """Double a letter, or add a neighboring one."""
    return before + letter + random.choice(letter + _neighbouring_letters(letter)) + after


def _deletion(before: str, _letter: str, after: str, _random: Random) -> str:
    return before + after


def _substitution(before: str, letter: str, after: str, random: Random) -> str:
    return before + random.choice(_neighbouring_letters(letter)) + after


def _transposition(before: str, letter: str, after: str, _random: Random) -> str:
    """Swap a letter with the next one, if it is in the same word."""
    if not _WORD_PATTERN.match(after):
        return before + letter + after
    return before + after[0] + letter + after[1:]


def _neighbouring_letters(letter: str) -> str:
    """Return the neighbors of a letter's key on the keyboard."""
    return _NEIGHBOURS_BY_LETTER[fold_text(letter)[0]]


_ERROR_MAKERS: tuple[_ErrorMaker, ...] = (_insertion, _deletion, _substitution, _transposition)
