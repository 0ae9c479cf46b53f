"""Text in the form in which it is compared: without capitals and accents."""

import unicodedata

_UNDECOMPOSABLE_LETTERS = str.maketrans({"ł": "l", "ø": "o", "æ": "ae", "ß": "ss", "đ": "d"})


def fold_text(text: str) -> str:
    """Return the text in lowercase without accents."""
    text = text.lower()
    if text.isascii():
        return text
    decomposed = unicodedata.normalize("NFKD", text.translate(_UNDECOMPOSABLE_LETTERS))
    return "".join(character for character in decomposed if not unicodedata.combining(character))
