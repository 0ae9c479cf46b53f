"""Parser of search texts: splits a text into terms, which are words, dates of birth, numbers and e-mail addresses.

docs/search.md contains the grammar. The parser knows no stored data: a term says everything that its text may mean.
"""

import re
import unicodedata
from collections.abc import Iterator
from typing import NamedTuple

from app.fields.characters import normalize_characters
from app.fields.phones import ascii_digits, number_prefixes
from app.identifiers import is_identifier
from app.locality import Locality
from app.locality.short_forms import NO_SHORT_FORMS, Groups
from app.locality.titles import TITLE_SPELLINGS
from app.patient_identifiers.checkers import normalize
from app.patient_identifiers.finding import spans
from app.search_text.dates import (
    BirthDate,
    extract_birth_dates,
    is_birth_year,
    read_compact_date,
    year_period,
)

MAX_SEARCH_CHARACTERS = 200
MAX_TERMS = 12
"""Maximum number of terms that a search considers. Of a longer text, the most selective terms are considered."""
MAX_INITIALS = 4
"""Maximum number of single letters that a search considers: many patients have each of them."""
MAX_NAME_LIST_WORDS = 8
"""Maximum number of words in a search of a list of names, such as hospitals."""
MIN_ID_PART_CHARACTERS = 6
"""Minimum number of characters in a beginning or an ending of an id that is recognized."""
MIN_LONE_ENDING_DIGITS, MIN_ENDING_DIGITS = 6, 4
"""Minimum number of digits in the ending of a mobile number, alone and beside a name."""

_DOMAIN = r"[\w-]{3,}(?:\.[\w-]+)*\.(?:com|org|net|(?:co|ac|com|gov|net|org)\.[a-z]{2})(?![\w@])"
"""A domain that is recognized by itself."""
_EMAIL_PATTERN = re.compile(rf"""[^\s<>()"',;:]+@[^\s<>()"',;]*|(?<![\w.+@/-])(?:[\w+-]+\.)*{_DOMAIN}""", re.IGNORECASE)
"""An e-mail address, or one without its `@`."""
_SPACED_EMAIL_PATTERN = re.compile(
    r"(?<=[\w.+-])(?:\s+@\s*|\s*@\s+| at |\s*\(at\)\s*|\s*\[at\]\s*)"
    r"(?=[\w-]+(?:(?:\.| dot )[\w-]+)*(?:\.| dot )(?:[a-z]{2}|com|org|net)(?!\w))"
    rf"|(?<=[\w+-])\s+(?={_DOMAIN})",
    re.IGNORECASE,
)
"""The `@` of an e-mail address that is typed with blanks or as it is spoken: `thandi at example dot org`."""
_DOTTED_EMAIL_PATTERN = re.compile(r"[\w.+-]+(?: dot [\w+-]+)*@[\w.-]+(?: dot [\w-]+)*", re.IGNORECASE)
_ID_NUMBER_PATTERN = re.compile(r"(?<![\w-])(\d{6})[ -](\d{4})[ -](\d{2})[ -]?(\d)(?![\w-])")
"""A South African identity number in its usual groups, which might otherwise be read as a date."""
_NUMBER_PATTERN = re.compile(r"(?<![\w@-])[+(]{0,2}\d(?:[\d ().+/-]*\d)?(?!-?[\w@])")
_JOINED_PATTERN = re.compile(
    r"([^\W\d_]{4,})(\d{4})|([^\W\d_]{3,})(\d{8,13})|(\d{8,13})([^\W\d_]{3,})|(\d{4}|\d{8,13})"
)
"""A name and a year, or a name and a date or a mobile number, without a blank between them, or the number alone."""
_JOINED_DATE_PATTERN = re.compile(r"(?<=[^\W\d_]{3})(?=\d{1,4}/\d{1,2}/\d{2,4}(?!\w))")
"""The place between a name and a date that are joined: `Mabena17/05/1990`. No id has a slash."""
_SPELLED_PATTERN = re.compile(r"(?<![\w-])[^\W\d_](?:(?:-[^\W\d_]){3,}|(?: [^\W\d_]){4,})(?![\w-])")
"""A name that is spelled letter by letter: `M-A-B-E-N-A`. Up to four letters with blanks between them are initials."""
_APOSTROPHE_PATTERN = re.compile("['’‘`ʼ´]")  # noqa: RUF001  # these characters are intended
_LABEL_PATTERN = re.compile(
    # never names
    r"(?<![\w@.-])(?:(?:d\.?o\.?b|tel|id(?: ?(?:no|nr|number))?|mrn|e-?mail|mailto|geb)(?![\w@-])[.:#=]*"
    # these are names, too, unless something follows that is none
    r"|(?:born|birth(?: ?da(?:y|te))?|date of birth|gebore|geboortedatum|telephone|telefoon|phone|cell?|cellphone|sel|"
    r"selfoon|mobile|mob|contact|file|folder|patient|name|surname|number|no|nr|age)(?:[.#]*[:=]|[.:#]*(?=\s+[+(]?\d))"
    # without a blank before a date or a whole mobile number
    r"|(?:dob|geb)(?=\d[\d/.-]{4,}\d(?!\w))|(?:tel|cell?|sel|mobile|phone)(?=(?:\+|0)[\d ]{8,}\d(?!\w)))",
    re.IGNORECASE,
)
"""Labels of forms. They are ignored, like punctuation."""
_BABY_WORDS = ("baby", "bo", "babyof", "infant")
_TITLE_SPELLINGS = {**TITLE_SPELLINGS, **dict.fromkeys(_BABY_WORDS, _BABY_WORDS)}
"""Maps titles, and words for a newborn, to the spellings that mean the same. Patients with the title rank higher, and
those without it are found, too.
"""
_GENDERS = {
    **dict.fromkeys(("f", "female", "woman", "girl", "vrou", "vroulik", "meisie"), "Female"),
    **dict.fromkeys(("m", "male", "man", "boy", "manlik", "seun"), "Male"),
}
_BABY_OF_PATTERN = re.compile(r"(?<!\w)(?:baby (?:of|van)|b/o)(?!\w)", re.IGNORECASE)
_VAN_DER_PATTERN = re.compile(r"(?<![\w/])v[/.]? ?d\.?(?=[ .][^\W\d]{3})", re.IGNORECASE)
"""`vd Merwe`, `v/d Merwe` and `v.d. Merwe`."""


class Term(NamedTuple):
    """A part of a search text. A patient agrees with a term if it agrees with one of the meanings."""

    word: str = ""
    """A word of a name, or of something else in the record."""
    gender: str = ""
    """The gender that the word means."""
    email: str = ""
    """An e-mail address, or the beginning of one."""
    birth: BirthDate = BirthDate()
    digits: str = ""
    """The digits of a number, which may be a mobile number or a postal code."""
    prefixes: tuple[str, ...] = ()
    """The different ways to write the beginning of a mobile number in digits."""
    identifiers: tuple[str, ...] = ()
    """The text as a `unique_id`, or as a part of one, in lower and upper case, too."""

    @property
    def normalized(self) -> str:
        """The term in the form in which identifiers are compared. It is empty for dates and e-mail addresses."""
        return normalize(self.word or self.digits)

    @property
    def information(self) -> int:
        """A rough measure of how selective the term is: the length of a word, or 100 for numbers and dates."""
        return len(self.word) if self.word else 100


class ParsedQuery(NamedTuple):
    """A search text as its terms."""

    terms: tuple[Term, ...] = ()
    titles: tuple[str, ...] = ()
    """Spellings of the titles in the text."""
    ignored: int = 0
    """Number of terms that are not considered, because the text has more than `MAX_TERMS`."""
    short_forms: Groups = NO_SHORT_FORMS
    """Short forms of the names."""
    spans: tuple[str, ...] = ()
    """The normalized values of identifiers that the text may contain."""


def parse_search(text: str, locality: Locality) -> ParsedQuery | None:
    """Return the terms of a search text, which may be in any order, or None if the text is blank."""
    text = normalize_characters(text)
    if not text.strip():
        return None
    emails, rest = _extract(_EMAIL_PATTERN, _join_email_addresses(text.replace("mailto:", " ")))
    rest = _VAN_DER_PATTERN.sub("van der ", _LABEL_PATTERN.sub(" ", rest))
    rest = _BABY_OF_PATTERN.sub(" babyof ", rest)
    rest = _SPELLED_PATTERN.sub(lambda match: re.sub("[- ]", "", match.group()), rest)
    rest = _JOINED_DATE_PATTERN.sub(" ", _ID_NUMBER_PATTERN.sub(r"\1\2\3\4", rest))
    births, rest = extract_birth_dates(rest)
    words: list[Term] = []
    titles, numbers = [], []
    for token in _tokens(rest):
        if isinstance(token, list):
            numbers += token
        elif token.lower().strip(".") in _TITLE_SPELLINGS:
            titles.append(token.strip("."))
        else:
            words += _word_terms(token, locality.phone_region)
    terms = [
        *words,
        *(term for birth in births for term in _birth_terms(birth, locality)),
        *(_number_term(number, locality.phone_region) for number in numbers),
        *(Term(email=email.rstrip("."), identifiers=_identifiers(email.rstrip("."))) for email in emails),
    ]
    if not terms:
        terms, titles = [term for title in titles for term in _word_terms(title, locality.phone_region)], []
    unique = list(dict.fromkeys(terms))
    initials = [term for term in unique if len(term.word) == 1 and term.word.isascii()]
    telling = [term for term in unique if term not in initials[MAX_INITIALS:]]
    kept = sorted(telling, key=lambda term: -term.information)[:MAX_TERMS]
    return ParsedQuery(
        tuple(term for term in unique if term in kept),
        tuple(spelling for title in titles for spelling in _TITLE_SPELLINGS[title.lower()]),
        len(unique) - len(kept),
        locality.short_forms,
        tuple(dict.fromkeys(spans(_LABEL_PATTERN.sub(" ", text)))),
    )


def parse_words(text: str) -> list[str]:
    """Return the words of a search text in which everything is a part of a name. Blank text has no words.

    If the text has only punctuation, return an empty word, which no name contains.
    """
    tokens = normalize_characters(text).split()
    return [word for token in tokens for word in _split_words(token)] or [""] * bool(tokens)


def _tokens(text: str) -> Iterator[str | list[str]]:
    """Yield the blank-separated tokens of a text, and the numbers, which may contain blanks, as lists."""
    end = 0
    for match in _NUMBER_PATTERN.finditer(text):
        yield from text[end : match.start()].split()
        yield _split_numbers(match.group())
        end = match.end()
    yield from text[end:].split()


def _split_numbers(text: str) -> list[str]:
    """Return the numbers in a text of digits, blanks and punctuation, such as two mobile numbers or a code and a year.

    A number ends where it is complete, and before a new one that begins with 0 or +.
    """
    numbers: list[str] = []
    for part in re.split(r"[ ]+|(?<=\d{7})/(?=\d{7})", text):
        digits = ascii_digits(part)
        last = ascii_digits(numbers[-1]) if numbers else ""
        begins_number = part.startswith(("+", "(0", "0")) and len(last) >= _complete_length(last)
        is_mobile = (bool(numbers) and numbers[-1].startswith(("+", "0", "(", "27"))) or len(last) == 2  # noqa: PLR2004
        if last and is_mobile and not begins_number and len(last) + len(digits) <= _complete_length(last) + 1:
            numbers[-1] += f" {part}"
        elif digits:
            numbers.append(part)
    return numbers


def _complete_length(digits: str) -> int:
    """Return the number of digits of a complete mobile number that begins with these digits."""
    return 13 if digits.startswith("00") else 10 if digits.startswith("0") else 11


def _birth_terms(birth: BirthDate, locality: Locality) -> list[Term]:
    if not birth.words:
        return [Term(birth=birth)]
    month, year = birth.words
    return [Term(word=month, birth=birth._replace(words=())), _number_term(year, locality.phone_region)]


def _number_term(text: str, region: str) -> Term:
    digits = ascii_digits(text)
    birth = read_compact_date(digits) or BirthDate()
    if len(digits) == 4 and is_birth_year(int(digits)):  # noqa: PLR2004  # digits of a year
        birth = BirthDate(period=year_period(int(digits)))
    return Term(
        birth=birth, digits=digits, prefixes=tuple(number_prefixes(text, region)), identifiers=_identifiers(text)
    )


def _word_terms(token: str, region: str) -> Iterator[Term]:
    """Yield the terms of the words of a token, and of the numbers that are joined to them.

    Each of them may be the id that the whole token is.
    """
    identifiers = _identifiers(token.strip("\"'()[]{}<>,;:.!?#*/\\"))
    for word in _split_words(token):
        for part in _split_joined(word):
            if part.isdecimal() and part != token:
                yield _number_term(part, region)._replace(identifiers=identifiers)
            else:
                yield Term(word=part, gender=_GENDERS.get(part.lower(), ""), identifiers=identifiers)


def _split_joined(word: str) -> list[str]:
    """Return the name and the number that are joined in a word, or the word itself."""
    joined = _JOINED_PATTERN.fullmatch(word)
    parts = [part for part in joined.groups() if part] if joined else []
    is_telling = any(part.isdecimal() and _is_telling(part) for part in parts)
    return parts if is_telling else [word]


def _is_telling(digits: str) -> bool:
    """Return whether digits beside letters are more than a part of an id: a year, or a date or a mobile number."""
    return len(digits) > 4 or is_birth_year(int(digits))  # noqa: PLR2004  # digits of a year


def _identifiers(text: str) -> tuple[str, ...]:
    text = text if is_identifier(text) else text.lstrip("._~:@-")
    return tuple(dict.fromkeys((text, text.lower(), text.upper()))) if is_identifier(text) else ()


def _join_email_addresses(text: str) -> str:
    """Return the text with e-mail addresses that are typed with blanks or as they are spoken in their usual form."""
    joined = _SPACED_EMAIL_PATTERN.sub("@", text)
    return _DOTTED_EMAIL_PATTERN.sub(lambda match: re.sub(" dot ", ".", match.group(), flags=re.IGNORECASE), joined)


def _extract(pattern: re.Pattern[str], text: str) -> tuple[list[str], str]:
    """Return all matches of the pattern, and the text with the matches replaced by spaces."""
    return [match.group().strip() for match in pattern.finditer(text)], pattern.sub(" ", text)


def _split_words(token: str) -> list[str]:
    """Return the words of a token, split at punctuation and symbols.

    Apostrophes are removed and do not split a token, so that O'Brien is one word.
    """
    token = _APOSTROPHE_PATTERN.sub("", token)
    return "".join(" " if unicodedata.category(character)[0] in "PSZ" else character for character in token).split()
