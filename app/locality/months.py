"""Names of months in languages of the country and its neighbours."""

import unicodedata

_LANGUAGES = (
    "january february march april may june july august september october november december",
    "januarie februarie maart april mei junie julie augustus september oktober november desember",  # Afrikaans
    "januwari februwari mashi ephreli meyi juni julayi agasti septhemba okthoba novemba disemba",  # isiZulu
    "januar februar märz april mai juni juli august september oktober november dezember",  # German
    "janeiro fevereiro março abril maio junho julho agosto setembro outubro novembro dezembro",  # Portuguese
    "janvier février mars avril mai juin juillet août septembre octobre novembre décembre",  # French
)


def _spellings(name: str) -> tuple[str, ...]:
    """Return the name of a month and its first three letters, each also without accents."""
    plain = "".join(letter for letter in unicodedata.normalize("NFD", name) if not unicodedata.combining(letter))
    return name, plain, name[:3], plain[:3]


_AMBIGUOUS_ABBREVIATION = "jui"
"""The beginning of both juin and juillet."""
MONTHS = {
    spelling: number
    for names in _LANGUAGES
    for number, name in enumerate(names.split(), 1)
    for spelling in _spellings(name)
    if spelling != _AMBIGUOUS_ABBREVIATION
} | {"mrt": 3, "sept": 9}
"""Maps names of months in lowercase, and their abbreviations, to numbers from 1."""
