"""Errors as people make them at a keyboard."""

import re
from collections.abc import Callable
from random import Random

from rapidfuzz.distance import DamerauLevenshtein

from benchmarks.folding import fold_text

MAX_ERROR_FREE_LENGTH = 2
"""Letters of a word in which no error is made: with one it would be any word."""
_WORD_PATTERN = re.compile(r"[^\W\d_]+")
_KEYBOARD_ROWS = (("qwertyuiop", 0.0), ("asdfghjkl", 0.25), ("zxcvbnm", 0.75))
"""Of a keyboard, and how far each stands to the right of the first, in keys."""
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
    """The folded words of a text: runs of letters; O'Brien is one, Nkosi-Dlamini two."""
    return _WORD_PATTERN.findall(fold_text(text).replace("'", ""))


def edit_distance(word: str, other: str) -> int:
    """How many errors lie between two words."""
    return int(DamerauLevenshtein.distance(word, other))


def can_have_errors(text: str) -> bool:
    """Whether a text has a word in which an error can be made."""
    return bool(_letter_indexes(text))


def add_errors(text: str, count: int, random: Random) -> str:
    """A text that lies so many errors from one that `takes_errors`: none undoes another, or hides in an accent."""
    while True:
        misspelt = text
        for _ in range(count):
            misspelt = _add_error(misspelt, random)
        if sum(map(edit_distance, folded_words(text), folded_words(misspelt))) == count:
            return misspelt


def _letter_indexes(text: str) -> list[int]:
    """Where the letters of longer words stand."""
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
"""Makes an error at a letter, given what stands before it, the letter, and what comes after."""


def _insertion(before: str, letter: str, after: str, random: Random) -> str:
    """The key is struck twice, or a neighbour along with it."""
    return before + letter + random.choice(letter + _neighbouring_letters(letter)) + after


def _deletion(before: str, _letter: str, after: str, _random: Random) -> str:
    return before + after


def _substitution(before: str, letter: str, after: str, random: Random) -> str:
    return before + random.choice(_neighbouring_letters(letter)) + after


def _transposition(before: str, letter: str, after: str, _random: Random) -> str:
    """With the letter that follows; nothing changes at the end of a word."""
    if not _WORD_PATTERN.match(after):
        return before + letter + after
    return before + after[0] + letter + after[1:]


def _neighbouring_letters(letter: str) -> str:
    """The neighbours on the keyboard of the key that writes a letter."""
    return _NEIGHBOURS_BY_LETTER[fold_text(letter)[0]]


_ERROR_MAKERS: tuple[_ErrorMaker, ...] = (_insertion, _deletion, _substitution, _transposition)
