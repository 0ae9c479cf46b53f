"""Characters that people cannot see or tell apart, in text that they typed or copied."""

import unicodedata

_INVISIBLE_LETTERS = "\u115f\u1160\u2800\u3164\uffa0"
"""Characters that Unicode counts among letters and symbols although they are blank: fillers, and Braille's blank."""


def normalize_characters(text: str) -> str:
    """Return the text in Unicode NFC, without invisible characters.

    All decimal digits become ASCII digits, all dashes become hyphens, and all white space becomes spaces.
    """
    characters = []
    for character in unicodedata.normalize("NFC", text):
        category = unicodedata.category(character)
        if character.isspace():
            characters.append(" ")
        elif category == "Pd":  # word processors replace hyphens with other dashes
            characters.append("-")
        elif character.isdecimal():
            characters.append(str(unicodedata.decimal(character)))
        elif not category.startswith("C"):
            characters.append(character)
    return "".join(characters)


def is_blank(text: str) -> bool:
    """Return whether a text has no visible character. A mark that changes another character does not count."""
    first = text[:1]
    if first.isalnum() and first not in _INVISIBLE_LETTERS:  # as in most texts
        return False
    if text.isascii() and text.isprintable():
        return not text.strip()
    return "\0" not in text and all(
        character.isspace()
        or unicodedata.category(character) in {"Cf", "Cc", "Mn", "Me"}
        or character in _INVISIBLE_LETTERS
        for character in text
    )
