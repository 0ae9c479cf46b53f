"""Compares two patients field by field: a pure function of their values, the table of weights and the current date."""

from collections.abc import Callable, Mapping
from datetime import date
from functools import lru_cache
from typing import Any, NamedTuple, Self

from rapidfuzz.distance import OSA, JaroWinkler
from rapidfuzz.fuzz import partial_ratio, token_set_ratio, token_sort_ratio

from app.matching.names import FREQUENT_NAMES, GIVEN_NAMES, SHORT_FORMS, known_text, name_words, words_of
from app.matching.weights import STRONG_GRADES, SWAPPED_NAMES_WEIGHT, THRESHOLDS, WEIGHTS, Grade, Level

COMPARED_FIELDS = (
    "patient_first_name",
    "patient_initials",
    "patient_last_name",
    "patient_date_of_birth",
    "patient_gender",
    "patient_mobile_number",
    "patient_email_address",
    "patient_physical_address",
    "patient_address_line_1",
    "patient_town",
    "patient_postal_code",
    "patient_province",
)
"""The fields of a patient that a comparison reads. Those without weights complete others: initials stand for a missing
first name, and the second line of an address belongs to the first."""
ADULT_YEARS = 25
"""Age in years from which two people with one date of birth, last name and address are rarely twins."""
GENERATION_YEARS = 12
"""Smallest difference in years between a parent and a child."""
SIGNIFICANT_PHONE_DIGITS = 9
"""Number of digits at the end of a phone number that do not depend on how its country is written."""
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
"""Number of letters from which an address that is contained in another one is evidence."""
MIN_SAME_ADDRESS, MIN_SIMILAR_ADDRESS, MIN_PARTLY_SAME_ADDRESS = 90, 75, 60
"""Percentages of letters in common from which addresses count as the same, as similar and as partly the same."""
SHORT_NAME_LENGTH = 3
"""Names up to this length with one different letter are two names as often as one."""
LONG_TEXT_LENGTH = 8
"""Towns of at least this length may differ by two letters and still be near."""
MIN_DIFFERENT_DIGITS = 3
"""Phone numbers with fewer different digits, such as 000 000 0000, are placeholders."""
_CACHE_SIZE = 65_536


class Person(NamedTuple):
    """The values of a patient in the form in which they are compared. Unknown values are empty or None."""

    first_name: tuple[str, ...]
    last_name: tuple[str, ...]
    date_of_birth: date | None
    gender: str | None
    phone: str
    email: str
    address: str
    town: str
    postal_code: str
    province: str

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> Self:
        """Return the person with the values of a patient, which has at least the `COMPARED_FIELDS`."""
        gender = fields["patient_gender"]
        return cls(
            name_words(fields["patient_first_name"] or "") or name_words((fields["patient_initials"] or "")[:1]),
            name_words(fields["patient_last_name"] or ""),
            fields["patient_date_of_birth"],
            None if gender == "Unknown" else gender,
            _phone(fields["patient_mobile_number"] or ""),
            known_text((fields["patient_email_address"] or "").lower()),
            _address(fields["patient_physical_address"] or "", fields["patient_address_line_1"] or ""),
            _joined_words(fields["patient_town"] or ""),
            _joined_words(fields["patient_postal_code"] or ""),
            _joined_words(fields["patient_province"] or ""),
        )


class Comparison(NamedTuple):
    """The result of comparing two patients."""

    score: float
    """The sum of the weights, in bits."""
    grade: Grade | None
    """None if the patients are hardly one person."""
    levels: Mapping[str, Level]
    """The level of each field that both patients have."""
    may_be_family: bool
    """Whether the patients may be two members of a family, whatever the score is."""
    may_be_renamed: bool
    """Whether the patients may nevertheless be one person who is registered by different first names: adults of whom
    little else is known, or of whom one has no first name. Only other records show which of the two is true."""

    @property
    def agrees(self) -> list[str]:
        """The names of the fields that speak for one person."""
        return [field for field, level in self.levels.items() if WEIGHTS[field][level] > 0]

    @property
    def differs(self) -> list[str]:
        """The names of the fields that speak against one person."""
        return [field for field, level in self.levels.items() if WEIGHTS[field][level] < 0]


def compare(one: Person, other: Person, today: date) -> Comparison:
    """Return whether two patients are one person, by their values. The order of the two does not matter."""
    levels = _name_levels(one, other)
    score = _sum(levels)
    if Level.DIFFERENT in levels.values():
        swapped = _name_levels(one, other._replace(first_name=other.last_name, last_name=other.first_name))
        # one common name is not enough: a relative has it as last name
        if Level.DIFFERENT not in swapped.values() and (swapped_score := _sum(swapped) + SWAPPED_NAMES_WEIGHT) > score:
            levels, score = swapped, swapped_score
    others = {
        field: compare_values(a, b)
        for (field, compare_values), a, b in zip(_COMPARISONS, one[2:], other[2:], strict=True)
        if a and b
    }
    levels |= others
    score += _sum(others)
    grade = next((grade for grade, threshold in THRESHOLDS.items() if score >= threshold), None)
    may_be_renamed = grade in STRONG_GRADES and _may_be_renamed(levels, one, other, today)
    may_be_family = _may_be_family(levels, one, other, today)
    best_grade = _best_grade(levels, may_be_family=may_be_family)
    grade = None if grade is None or best_grade is None else max(grade, best_grade, key=_RANKS.__getitem__)
    return Comparison(round(score, 1), grade, levels, may_be_family, may_be_renamed)


_RANKS = {grade: rank for rank, grade in enumerate(THRESHOLDS)}
_AGREEING_DATES = frozenset([Level.SAME, Level.SWAPPED, Level.NEAR])
_AGREEING_ADDRESSES = frozenset([Level.SAME, Level.SIMILAR])
_NEAR_ADDRESSES = frozenset([Level.STREET, Level.PART])
_SAME_NAMES = frozenset([Level.SAME, Level.SAME_FREQUENT])
_ALMOST_SAME_NAMES = _SAME_NAMES | {Level.NEAR}
_OTHER_FIRST_NAMES = frozenset([None, Level.DIFFERENT, Level.SECOND])
_NEAR_LEVELS = frozenset([Level.SAME, Level.NEAR])


def _may_be_family(levels: Mapping[str, Level], one: Person, other: Person, today: date) -> bool:
    """Return whether two patients may be two members of a family.

    The members of a family share names, addresses and phone numbers, twins share the date of birth too, and a newborn
    child may have no first name yet, or the mother's.
    """
    first_name, birth = levels.get("patient_first_name"), levels.get("patient_date_of_birth")
    if first_name in _OTHER_FIRST_NAMES:
        return True
    if levels.get("patient_gender") is Level.DIFFERENT and (first_name not in _SAME_NAMES or birth is not Level.SAME):
        return True
    if birth is Level.DIFFERENT:
        return first_name not in _ALMOST_SAME_NAMES or _are_parent_and_child(one, other, today)
    return first_name is Level.INITIAL and birth is not Level.SAME


def _may_be_renamed(levels: Mapping[str, Level], one: Person, other: Person, today: date) -> bool:
    """Return whether the first names of two adults with one date of birth may be those of one person.

    Many adults are registered by one of several first names. Grown twins who live together are rarer, but if a record
    has a gender, a phone number or an e-mail address, different first names count.
    """
    first_name = levels.get("patient_first_name")
    if first_name not in _OTHER_FIRST_NAMES or levels.get("patient_date_of_birth") is not Level.SAME:
        return False
    if any(not p.date_of_birth or today.year - p.date_of_birth.year <= ADULT_YEARS for p in (one, other)):
        return False
    if first_name is Level.DIFFERENT:
        return not any(p.gender or p.phone or p.email for p in (one, other))
    return levels.get("patient_gender") is not Level.DIFFERENT


def _are_parent_and_child(one: Person, other: Person, today: date) -> bool:
    """Return whether one of two persons with different dates of birth is a child and could be the other's child."""
    years = sorted(p.date_of_birth.year for p in (one, other) if p.date_of_birth)
    return today.year - years[-1] <= ADULT_YEARS and years[-1] - years[0] >= GENERATION_YEARS


def _best_grade(levels: Mapping[str, Level], *, may_be_family: bool) -> Grade | None:
    """Return the best grade that two patients may have, whatever their score is, or None if they are two persons.

    Strangers share names, and some of them a date of birth, but neither an address nor a phone number.
    """
    birth = levels.get("patient_date_of_birth")
    has_same_contact = _have_same_contact(levels, birth)
    if may_be_family:
        return None if birth is Level.DIFFERENT else Grade.POSSIBLE
    has_same_last_name = levels.get("patient_last_name", Level.DIFFERENT) is not Level.DIFFERENT
    if not has_same_contact:
        if birth is Level.DIFFERENT:
            return None
        return Grade.CERTAIN if birth is Level.SAME and has_same_last_name else Grade.POSSIBLE
    if birth in _AGREEING_DATES and has_same_last_name:
        return Grade.CERTAIN
    if has_same_last_name or birth is Level.SAME:
        return Grade.PROBABLE
    has_same_home = levels.get("patient_physical_address") in _AGREEING_ADDRESSES and birth is not Level.DIFFERENT
    return Grade.PROBABLE if has_same_home and levels.get("patient_first_name") in _ALMOST_SAME_NAMES else Grade.POSSIBLE


def _have_same_contact(levels: Mapping[str, Level], birth: Level | None) -> bool:
    """Return whether the records agree on where the person lives or on how to reach the person.

    If one of the records has neither a phone number nor an e-mail address, what is known of the place has to do: the
    street, with another date of birth in the same town with the same postal code, and with a similar date of birth even
    the town with the postal code alone. An e-mail address does not make up for another date of birth, because people
    with the same name often have almost the same address.
    """
    places = {levels.get("patient_town"), levels.get("patient_postal_code")}
    address = None if places == {Level.DIFFERENT} else levels.get("patient_physical_address")
    phone, email = levels.get("patient_mobile_number"), levels.get("patient_email_address")
    if address in _AGREEING_ADDRESSES or phone is Level.SAME:
        return True
    if phone or email:
        return email is Level.SAME and birth is not Level.DIFFERENT
    has_same_place = places <= _NEAR_LEVELS
    if address in _NEAR_ADDRESSES:
        return has_same_place or birth is not Level.DIFFERENT
    return has_same_place and birth in _AGREEING_DATES


def _sum(levels: Mapping[str, Level]) -> float:
    return sum(WEIGHTS[field][level] for field, level in levels.items())


def _name_levels(one: Person, other: Person) -> dict[str, Level]:
    levels = {}
    if one.first_name and other.first_name:
        levels["patient_first_name"] = compare_names(one.first_name, other.first_name)
    if one.last_name and other.last_name:
        levels["patient_last_name"] = compare_names(one.last_name, other.last_name)
    return levels


@lru_cache(_CACHE_SIZE)
def compare_names(one: tuple[str, ...], other: tuple[str, ...]) -> Level:
    """Return how two names compare, which are tuples of words as `name_words` returns them."""
    short, long = sorted(("".join(one), "".join(other)), key=len)
    if short == long:
        is_frequent = short in FREQUENT_NAMES or FREQUENT_NAMES.issuperset(one)
        return Level.SAME_FREQUENT if is_frequent else Level.SAME
    if len(short) == 1:
        return Level.INITIAL if long.startswith(short) else Level.DIFFERENT
    return _compare_words(one, other) or _compare_spellings(short, long)


def _compare_words(one: tuple[str, ...], other: tuple[str, ...]) -> Level | None:
    """Return how two names compare that have a word in common or are known names, otherwise None."""
    fewer, more = sorted((one, other), key=len)
    if one[0] == other[0]:
        return Level.PART
    if set(fewer) <= set(more):
        return Level.SECOND
    if all(word in more or not SHORT_FORMS.get(word, frozenset()).isdisjoint(more) for word in fewer):
        return Level.SHORT_FORM
    # two given names are spelt as intended, however alike they are
    return Level.DIFFERENT if one[0] in GIVEN_NAMES and other[0] in GIVEN_NAMES else None


def _compare_spellings(short: str, long: str) -> Level:
    edits, likeness = OSA.distance(short, long), JaroWinkler.similarity(short, long)
    is_short = len(short) <= SHORT_NAME_LENGTH
    if likeness >= MIN_NEAR_LIKENESS or (edits == 1 and not is_short):
        return Level.NEAR
    max_edits = 1 if len(short) <= SHORT_NAME_LENGTH + 1 else 2
    is_similar = edits <= max_edits or likeness >= MIN_SIMILAR_LIKENESS
    return Level.SIMILAR if is_similar or long.startswith(short) else Level.DIFFERENT


@lru_cache(_CACHE_SIZE)
def compare_dates(one: date, other: date) -> Level:
    """Return how two dates of birth compare."""
    is_january_1 = [(day.month, day.day) == (1, 1) for day in (one, other)]
    if one == other:
        return Level.PLACEHOLDER if all(is_january_1) else Level.SAME
    if one.year == other.year and any(is_january_1):
        return Level.YEAR_ONLY
    if one.year == other.year and (one.month, one.day) == (other.day, other.month):
        return Level.SWAPPED
    if OSA.distance(date_digits(one), date_digits(other)) == 1:
        return Level.NEAR
    different_parts = (one.year != other.year) + (one.month != other.month) + (one.day != other.day)
    return Level.SAME_MONTH if different_parts == 1 else Level.DIFFERENT


def date_digits(day: date) -> str:
    """Return the eight digits of a date, year first. (`strftime` writes early years with fewer digits.)"""
    return day.isoformat().replace("-", "")


def _compare_exactly(one: str, other: str) -> Level:
    return Level.SAME if one == other else Level.DIFFERENT


def _compare_numbers(one: str, other: str) -> Level:
    if one == other:
        return Level.SAME
    return Level.NEAR if OSA.distance(one, other) == 1 else Level.DIFFERENT


@lru_cache(_CACHE_SIZE)
def _compare_texts(one: str, other: str) -> Level:
    if one == other:
        return Level.SAME
    max_edits = 2 if min(len(one), len(other)) >= LONG_TEXT_LENGTH else 1
    return Level.NEAR if OSA.distance(one, other) <= max_edits else Level.DIFFERENT


@lru_cache(_CACHE_SIZE)
def compare_addresses(one: str, other: str) -> Level:
    """Return how two addresses compare, which are folded words separated by spaces."""
    if one == other:
        return Level.SAME
    texts, numbers = zip(*(_split_numbers(address) for address in (one, other)), strict=True)
    likeness = _address_likeness(*texts)
    has_other_number = all(numbers) and not (numbers[0] <= numbers[1] or numbers[1] <= numbers[0])
    if likeness >= MIN_SAME_ADDRESS:
        return Level.STREET if has_other_number else Level.SAME
    if likeness >= MIN_SIMILAR_ADDRESS:
        return Level.PART if has_other_number else Level.SIMILAR
    return Level.PART if likeness >= MIN_PARTLY_SAME_ADDRESS and not has_other_number else Level.DIFFERENT


def _address_likeness(one: str, other: str) -> float:
    """Return the percentage of letters that two addresses without numbers have in common, in any order of words.

    An address that contains the other is almost the same, also if words are joined or divided.
    """
    likeness = max(token_sort_ratio(one, other), token_set_ratio(one, other) - 5)
    joined = [address.replace(" ", "") for address in (one, other)]
    if min(map(len, joined)) >= MIN_PARTIAL_LENGTH:
        likeness = max(likeness, partial_ratio(*joined) - 8)
    return likeness


def _split_numbers(address: str) -> tuple[str, frozenset[str]]:
    words = address.split()
    numbers = frozenset(word for word in words if word[0].isdecimal())
    return " ".join(word for word in words if word not in numbers), numbers


def _phone(number: str) -> str:
    digits = "".join(character for character in number if character.isdecimal())[-SIGNIFICANT_PHONE_DIGITS:]
    return digits if len(set(digits)) >= MIN_DIFFERENT_DIGITS else ""


@lru_cache(_CACHE_SIZE)
def _address(first_line: str, second_line: str) -> str:
    words = words_of(f"{known_text(first_line)} {known_text(second_line)}")
    address = " ".join(word for word in words if word not in COMMON_ADDRESS_WORDS)
    return address if _split_numbers(address)[0] else ""  # the number of a flat is no address


@lru_cache(_CACHE_SIZE)
def _joined_words(text: str) -> str:
    return "".join(words_of(known_text(text)))


_COMPARISONS: tuple[tuple[str, Callable[[Any, Any], Level]], ...] = (
    ("patient_date_of_birth", compare_dates),
    ("patient_gender", _compare_exactly),
    ("patient_mobile_number", _compare_numbers),
    ("patient_email_address", _compare_numbers),
    ("patient_physical_address", compare_addresses),
    ("patient_town", _compare_texts),
    ("patient_postal_code", _compare_numbers),
    ("patient_province", _compare_exactly),
)
"""The fields after the names, in the order of `Person`, and how their values are compared."""
