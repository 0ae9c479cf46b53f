"""The encoding that a text may have, for a suggestion. A person confirms it."""

import re
from collections.abc import Iterator, Sequence

USUAL_ENCODINGS = ["cp1252", "cp1250", "cp1251", "cp1253", "cp1255", "cp1256", "cp850", "cp437", "mac_roman"]
"""Encodings that spreadsheets and databases of registers write. The most frequent come first."""
_POINTS = {
    **dict.fromkeys("éëêèöüô\N{RIGHT SINGLE QUOTATION MARK}", 3),
    **dict.fromkeys("áàâäãåçíîïñóõúûýÿßœ“”\N{EN DASH}", 1),
    **dict.fromkeys("ąćčďěęłńňřśšťůźżž", 1),
    **dict.fromkeys("\xa0°€½æìòøù", 0),
}
"""How likely characters are in names and addresses of a register in South Africa, in lowercase.

The second line has letters of Central Europe. Letters that cp1252 has in their places and that few names have get none.
"""
_UNLIKELY_POINTS = -1
"""Points of all other letters, most of which are of other scripts."""
_WRONG_POINTS = -2
"""Points of signs that a name does not have, and of letters where it does not have them."""
_WORD_PATTERN = re.compile(r"[^\W\d_]+")
_OTHER_PATTERN = re.compile(r"[^\w\0-\x7f]")


def encoding_hint(raw: bytes, usual_encodings: Sequence[str] = USUAL_ENCODINGS) -> str:
    """Return a sentence about the encoding of text that is not in UTF-8.

    If several encodings are equally likely, the first of `usual_encodings` is suggested.
    """
    name = _encoding_of_names(raw, usual_encodings) or _encoding_of_language(raw, usual_encodings)
    if name is None:
        return "Save the file as UTF-8; in Excel, choose “CSV UTF-8”"
    return f"It may be in {name}: specify --encoding {name}, or save the file as UTF-8"


def _encoding_of_names(raw: bytes, usual_encodings: Sequence[str]) -> str | None:
    """Return the encoding in which most letters beyond ASCII are those of names, or None if there is none.

    A register has too few of these letters for the statistics of a language.
    """
    points = {name: sum(_points(raw.decode(name, errors="replace"))) for name in usual_encodings}
    best = max(usual_encodings, key=lambda name: points[name])  # the first of equal ones
    return best if points[best] > 0 else None


def _points(text: str) -> Iterator[int]:
    """Yield the points of each character of a text that is not in ASCII."""
    for word in _WORD_PATTERN.findall(text):
        others = sum(not letter.isascii() for letter in word)
        # a word of such letters is of another script, except for an initial
        is_foreign = others * 2 > len(word) and not (len(word) == 1 and word.isupper())
        for before, letter in zip(f" {word}", word, strict=False):
            if not letter.isascii():
                is_wrong = is_foreign or (letter.isupper() and before.islower())
                yield _WRONG_POINTS if is_wrong else _POINTS.get(letter.lower(), _UNLIKELY_POINTS)
    for sign in _OTHER_PATTERN.findall(text):
        yield _POINTS.get(sign, _WRONG_POINTS)


def _encoding_of_language(raw: bytes, usual_encodings: Sequence[str]) -> str | None:
    import charset_normalizer  # noqa: PLC0415  # the service, and most imports, do without it

    matches = charset_normalizer.from_bytes(raw, cp_isolation=USUAL_ENCODINGS)
    best = matches.best()
    equals = [one for one in matches if best and (one.chaos, one.coherence) == (best.chaos, best.coherence)]
    names = {name for one in equals for name in one.could_be_from_charset}
    return next((name for name in usual_encodings if name in names), None)
