"""Compares the values of a field in two records: names, dates, addresses and others."""

from datetime import date
from functools import lru_cache

from rapidfuzz.distance import OSA, JaroWinkler
from rapidfuzz.fuzz import partial_ratio, token_set_ratio, token_sort_ratio

from app.likeness.levels import Level
from app.locality.names import FREQUENT_NAMES, GIVEN_NAMES, NAME_PARTICLES, SHORT_FORMS, SPELLINGS, known_text, words_of

SIGNIFICANT_PHONE_DIGITS = 9
"""Number of digits at the end of a phone number that do not depend on how its country is written."""
GENERIC_ADDRESS_WORDS = frozenset("bag box erf farm o p plot po posbus private stand".split())  # noqa: SIM905  # as below
"""Words of addresses that identify nothing without a number: P O Box 12 and P O Box 14 are not neighbours."""
COMMON_ADDRESS_WORDS = frozenset(
    """
    apartment apt ave avenue cct circle circuit cl close court cr cres crescent ct dr drive flat lane ln pl place rd
    road sq square st straat street str terrace unit way weg
    """.split()  # noqa: SIM905  # one line a word would be a page
)
"""Words of addresses that are left out, because many streets have them and they are written in several ways."""
MIN_NEAR_LIKENESS = 0.94
"""Jaro-Winkler similarity from which names count as near, even if they differ by several letters."""
MIN_SIMILAR_LIKENESS = 0.88
"""Jaro-Winkler similarity from which names count as similar."""
MIN_PARTIAL_LENGTH = 6
"""Minimum number of letters of an address for which it is evidence that another address contains it."""
MIN_SAME_ADDRESS, MIN_SIMILAR_ADDRESS, MIN_PARTLY_SAME_ADDRESS = 90, 75, 60
"""Minimum percentages of letters in common for addresses that count as the same, as similar and as partly the same."""
SHORT_NAME_LENGTH = 3
"""Maximum length of names that count as two names if one letter differs, because it is no typing error as often as it
is one.
"""
MAX_INITIALS = 4
"""Maximum number of letters that are the initials of a name."""
VOWELS = frozenset("aeiouy")
LONG_TEXT_LENGTH = 8
"""Minimum length of towns that count as near if two letters differ."""
DATE_PARTS = 3
"""The year, the month and the day. One typing error is in one part, or swaps digits of two."""
MIN_DIFFERENT_DIGITS = 3
"""Phone numbers with fewer different digits, such as 000 000 0000, are placeholders."""
_CACHE_SIZE = 65_536

COUNTED_DIGITS = "01234567890 9876543210"
"""Phone numbers that are part of this are placeholders."""


@lru_cache(_CACHE_SIZE)
def compare_names(one: tuple[str, ...], other: tuple[str, ...]) -> Level:
    """Compare two names, which are tuples of words as `name_words` returns them."""
    short, long = sorted(("".join(one), "".join(other)), key=len)
    if short == long:
        is_frequent = short in FREQUENT_NAMES or FREQUENT_NAMES.issuperset(one)
        return Level.SAME_FREQUENT if is_frequent else Level.SAME
    if len(short) == 1:
        return Level.INITIAL if long.startswith(short) else Level.DIFFERENT
    level = _compare_long_names(one, other)
    if level is not Level.DIFFERENT or len(short) > MAX_INITIALS:
        return level
    return Level.INITIAL if _are_initials(one, other) or _are_initials(other, one) else level


def _compare_long_names(one: tuple[str, ...], other: tuple[str, ...]) -> Level:
    """Compare two names that are not the same, and longer than a letter."""
    if SPELLINGS.get(one[0], one[0]) == SPELLINGS.get(other[0], other[0]):
        one, other = (tuple(SPELLINGS.get(word, word) for word in words) for words in (one, other))
        if one == other:
            return Level.SPELLING
    if not (NAME_PARTICLES.isdisjoint(one) and NAME_PARTICLES.isdisjoint(other)):
        cores = [tuple(word for word in words if word not in NAME_PARTICLES) or words for words in (one, other)]
        if cores[0] == cores[1]:
            return Level.SPELLING
        if cores[0] != one and cores[1] != other:  # unrelated people share the particle
            one, other = cores
    return _compare_words(one, other) or _compare_spellings(*sorted(("".join(one), "".join(other)), key=len))


def have_other_second_names(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    """Return whether two first names with more than one word agree on the first one only.

    Brothers may be Mohammed Ali and Mohammed Hassan, and sisters Maria Isabel and Maria Teresa.
    """
    return (
        min(len(one), len(other)) > 1
        and compare_names(one[1:], other[1:]) is Level.DIFFERENT
        and set(one[1:]).isdisjoint(other[1:])
    )


def _are_initials(letters: tuple[str, ...], name: tuple[str, ...]) -> bool:
    """Return whether the letters, such as J R, JR or J, are those at the beginning of the words of a name.

    Only letters without a vowel, or as many as the name has words, are no name themselves.
    """
    joined, beginnings = "".join(letters), "".join(word[0] for word in name)
    if len(joined) > MAX_INITIALS:
        return False
    if all(len(word) == 1 for word in letters) or VOWELS.isdisjoint(joined):
        return joined.startswith(beginnings) or beginnings.startswith(joined)
    return len(letters) == 1 and joined == beginnings


def _compare_words(one: tuple[str, ...], other: tuple[str, ...]) -> Level | None:
    """Compare two names that have a word in common or are names of the lists. Return None for others."""
    fewer, more = sorted((one, other), key=lambda words: (len(words), words))
    if one[0] == other[0]:
        return Level.PART
    if set(fewer) <= set(more):
        return Level.SECOND
    if more[0] in SHORT_FORMS.get(fewer[0], ()):
        are_given_names = fewer[0] in GIVEN_NAMES and more[0] in GIVEN_NAMES
        return Level.OTHER_FORM if are_given_names else Level.SHORT_FORM
    if all(word in more or not SHORT_FORMS.get(word, frozenset()).isdisjoint(more) for word in fewer):
        return Level.SECOND
    # two given names are spelt as intended, however alike they are
    return Level.DIFFERENT if one[0] in GIVEN_NAMES and other[0] in GIVEN_NAMES else None


def _compare_spellings(short: str, long: str) -> Level:
    edits, likeness = OSA.distance(short, long), JaroWinkler.similarity(short, long)
    is_short = len(short) <= SHORT_NAME_LENGTH
    if edits == 1 and not is_short and (sorted(short) == sorted(long) or _undouble(short) == _undouble(long)):
        return Level.SPELLING
    if likeness >= MIN_NEAR_LIKENESS or (edits == 1 and not is_short):
        return Level.NEAR
    max_edits = 1 if len(short) <= SHORT_NAME_LENGTH + 1 else 2
    is_similar = edits <= max_edits or likeness >= MIN_SIMILAR_LIKENESS
    return Level.SIMILAR if is_similar or long.startswith(short) else Level.DIFFERENT


def _undouble(word: str) -> str:
    """Return a word with one letter in place of two same ones."""
    return "".join(letter for letter, before in zip(word, f" {word}", strict=False) if letter != before)


@lru_cache(_CACHE_SIZE)
def compare_dates(one: date, other: date) -> Level:
    """Compare two dates of birth."""
    different_parts = (one.year != other.year) + (one.month != other.month) + (one.day != other.day)
    if different_parts == DATE_PARTS:
        return Level.DIFFERENT
    is_january_1 = [(day.month, day.day) == (1, 1) for day in (one, other)]
    if one == other:
        return Level.PLACEHOLDER if all(is_january_1) else Level.SAME
    if one.year == other.year and any(is_january_1):
        return Level.YEAR_ONLY
    if one.year == other.year and (one.month, one.day) == (other.day, other.month):
        return Level.SWAPPED
    if OSA.distance(date_digits(one), date_digits(other)) == 1 and not all(is_january_1):
        return Level.NEAR
    return Level.SAME_MONTH if different_parts == 1 else Level.DIFFERENT


def date_digits(day: date) -> str:
    """Return the eight digits of a date, year first. (`strftime` writes early years with fewer digits.)"""
    return day.isoformat().replace("-", "")


def compare_exactly(one: str, other: str) -> Level:
    return Level.SAME if one == other else Level.DIFFERENT


def compare_numbers(one: str, other: str) -> Level:
    if one == other:
        return Level.SAME
    return Level.NEAR if OSA.distance(one, other) == 1 else Level.DIFFERENT


def compare_emails(one: str, other: str) -> Level:
    """Compare two e-mail addresses. Those with other numbers, such as ali1 and ali2, are those of namesakes."""
    level = compare_numbers(one, other)
    return Level.DIFFERENT if level is Level.NEAR and _digits(one) != _digits(other) else level


def _digits(text: str) -> str:
    return "".join(filter(str.isdecimal, text))


@lru_cache(_CACHE_SIZE)
def compare_texts(one: str, other: str) -> Level:
    if one == other:
        return Level.SAME
    max_edits = 2 if min(len(one), len(other)) >= LONG_TEXT_LENGTH else 1
    return Level.NEAR if OSA.distance(one, other) <= max_edits else Level.DIFFERENT


@lru_cache(_CACHE_SIZE)
def compare_addresses(one: str, other: str) -> Level:
    """Compare two addresses, which are folded words separated by spaces."""
    if one == other:
        return Level.SAME
    texts, numbers = zip(*(_split_numbers(address) for address in (one, other)), strict=True)
    if numbers[0] != numbers[1] and all(GENERIC_ADDRESS_WORDS.issuperset(words.split()) for words in texts):
        return Level.DIFFERENT
    likeness = _address_likeness(*texts)
    has_other_number = all(numbers) and not (numbers[0] <= numbers[1] or numbers[1] <= numbers[0])
    if likeness >= MIN_SAME_ADDRESS:
        return Level.STREET if has_other_number else Level.SAME
    if likeness >= MIN_SIMILAR_ADDRESS:
        return Level.PART if has_other_number else Level.SIMILAR
    return Level.PART if likeness >= MIN_PARTLY_SAME_ADDRESS and not has_other_number else Level.DIFFERENT


def _address_likeness(one: str, other: str) -> float:
    """Return the percentage of letters that two addresses without numbers have in common, in any order of words.

    An address that contains the other counts as almost the same, even if words are joined or divided.
    """
    likeness = max(token_sort_ratio(one, other), token_set_ratio(one, other) - 5)
    joined = [address.replace(" ", "") for address in (one, other)]
    if joined[0] == joined[1]:
        return 100
    if min(map(len, joined)) >= MIN_PARTIAL_LENGTH:
        likeness = max(likeness, partial_ratio(*joined) - 5)
    return likeness


@lru_cache(_CACHE_SIZE)
def _split_numbers(address: str) -> tuple[str, frozenset[str]]:
    words = address.split()
    numbers = frozenset(word for word in words if word[0].isdecimal())
    return " ".join(word for word in words if word not in numbers), numbers


def phone_digits(number: str) -> str:
    digits = _digits(number)[-SIGNIFICANT_PHONE_DIGITS:]
    is_placeholder = len(set(digits)) < MIN_DIFFERENT_DIGITS or digits in COUNTED_DIGITS
    return "" if is_placeholder else digits


def known_email(address: str) -> str:
    """Return the e-mail address in lowercase, or an empty text if it is a placeholder, such as none@example.com."""
    return address.lower() if known_text(address.partition("@")[0]) else ""


@lru_cache(_CACHE_SIZE)
def address_words(first_line: str, second_line: str) -> str:
    words = words_of(f"{known_text(first_line)} {known_text(second_line)}")
    words = [word for word in words if word not in COMMON_ADDRESS_WORDS]
    # the number of a flat is no address
    return "" if all(word[0].isdecimal() for word in words) else " ".join(words)


@lru_cache(_CACHE_SIZE)
def joined_words(text: str) -> str:
    return "".join(words_of(known_text(text)))
