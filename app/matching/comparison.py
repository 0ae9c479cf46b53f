"""Compares two patients field by field: a pure function of their values, the table of weights and the current date."""

from collections.abc import Callable, Mapping
from datetime import date
from typing import Any, NamedTuple

from app.likeness.levels import Level
from app.likeness.values import (
    compare_addresses,
    compare_dates,
    compare_emails,
    compare_exactly,
    compare_names,
    compare_numbers,
    compare_texts,
    have_other_second_names,
)
from app.matching.identifiers import compare_identifiers
from app.matching.person import Person, divisions, has_whole_name
from app.matching.weights import STRONG_GRADES, SWAPPED_NAMES_WEIGHT, THRESHOLDS, WEIGHTS, Grade

ADULT_YEARS = 25
"""Age in years from which two people with one date of birth, last name and address are rarely twins."""
GENERATION_YEARS = 12
"""Smallest difference in years between a parent and a child."""


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
    """Whether the patients may be one adult with different first names, or without one in a record, although they may
    be members of a family. Other records can show that they are two persons.
    """
    may_be_implied: bool
    """Whether a third record can show that they are one person."""

    @property
    def has_other_first_name(self) -> bool:
        """Whether the first names are different, and not just similar, missing or in another order."""
        return self.levels.get("patient_first_name") is Level.DIFFERENT

    @property
    def are_relatives(self) -> bool:
        """Whether two people of one household, whose dates of birth are not known to be alike, have these records."""
        return (
            self.has_other_first_name
            and self.levels.get("patient_last_name", Level.DIFFERENT) is not Level.DIFFERENT
            and self.levels.get("patient_physical_address") in _AGREEING_ADDRESSES
            and self.levels.get("patient_date_of_birth") in {None, Level.DIFFERENT}
        )

    @property
    def are_twins(self) -> bool:
        """Whether the records are those of twins that are registered by their first names."""
        has_same_last_name = self.levels.get("patient_last_name", Level.DIFFERENT) is not Level.DIFFERENT
        is_same_birth = self.levels.get("patient_date_of_birth") is Level.SAME
        return self.has_other_first_name and has_same_last_name and is_same_birth and not self.may_be_renamed

    @property
    def agrees(self) -> list[str]:
        """The names of the fields that speak for one person."""
        return [field for field, level in self.levels.items() if WEIGHTS[field][level] > 0]

    @property
    def differs(self) -> list[str]:
        """The names of the fields that speak against one person."""
        return [field for field, level in self.levels.items() if WEIGHTS[field][level] < 0]


def can_be_pair(one: Person, other: Person) -> bool:
    """Return whether two patients may have a grade, be relatives or be twins, from what takes little time to compare.

    With different names or dates of birth, and no contact in common, none of this is possible, whatever the rest is.
    This is true of six in ten candidates.
    """
    if not (_have_other_dates(one, other) or _have_other_names(one, other)):
        return True
    return (
        bool(one.identifiers and other.identifiers)
        or _agree(compare_numbers, one.phone, other.phone)
        or _agree(compare_emails, one.email, other.email)
        or _agree(compare_addresses, one.address, other.address)
    )


def _have_other_dates(one: Person, other: Person) -> bool:
    born, other_born = one.date_of_birth, other.date_of_birth
    return bool(born and other_born) and compare_dates(born, other_born) is Level.DIFFERENT


def _have_other_names(one: Person, other: Person) -> bool:
    """Return whether neither the names of two patients are alike, nor the names of one and the swapped ones."""
    names = one.first_name, one.last_name, other.first_name, other.last_name
    if not all(names):
        return False
    first, last, other_first, other_last = names
    return (
        not _agree(compare_names, last, other_last)
        and not _agree(compare_names, first, other_first)
        and not (_agree(compare_names, first, other_last) and _agree(compare_names, last, other_first))
    )


def _agree(compare_values: Callable[[Any, Any], Level], one: object, other: object) -> bool:
    return bool(one and other) and compare_values(one, other) is not Level.DIFFERENT


def compare(one: Person, other: Person, today: date) -> Comparison:
    """Compare two patients by their values, to judge whether they are one person. Their order does not matter."""
    has_all_names = one.first_name and one.last_name and other.first_name and other.last_name
    if not has_all_names and (has_whole_name(one) or has_whole_name(other)):
        one, other = _divide_names(one, other)
    levels = _name_levels(one, other.first_name, other.last_name)
    score = _sum(levels)
    if Level.DIFFERENT in levels.values():
        swapped = _name_levels(one, other.last_name, other.first_name)
        # one common name is not enough: a relative has it as last name
        if Level.DIFFERENT not in swapped.values():
            # the weights depend on which of the two records has the names in the right fields
            swapped = max(swapped, _name_levels(other, one.last_name, one.first_name), key=_rank_levels)
            if (swapped_score := _sum(swapped) + SWAPPED_NAMES_WEIGHT) > score:
                levels, score = swapped, swapped_score
    others = {
        field: level
        for (field, compare_values), a, b in zip(_COMPARISONS, one[2:], other[2:], strict=True)
        if a and b and (level := compare_values(a, b)) is not None
    }
    levels |= others
    score += _sum(others)
    grade = next((grade for grade, threshold in THRESHOLDS.items() if score >= threshold), None)
    is_identified = _is_identified(levels, one, other, today)
    may_be_family = not is_identified and _may_be_family(levels, one, other, today)
    is_consistent = not may_be_family or _is_consistent(levels, one, other, today)
    may_be_renamed = may_be_family and is_consistent and grade in STRONG_GRADES and _have_same_origin(levels)
    best_grade = _best_grade(levels, one, other, may_be_family=may_be_family)
    grade = None if grade is None or best_grade is None else max(grade, best_grade, key=_RANKS.__getitem__)
    if grade is Grade.CERTAIN and not _can_be_certain(levels, one, other, is_identified=is_identified):
        grade = Grade.PROBABLE
    if levels.get("patient_identifiers") is Level.DIFFERENT:
        return Comparison(round(score, 1), grade and Grade.POSSIBLE, levels, may_be_family, False, False)
    if grade in STRONG_GRADES and not is_identified and _may_be_named_alike(levels):
        return Comparison(round(score, 1), Grade.POSSIBLE, levels, True, True, True)
    return Comparison(round(score, 1), grade, levels, may_be_family, may_be_renamed, is_consistent)


_CONTACT_FIELDS = (
    "patient_mobile_number",
    "patient_email_address",
    "patient_physical_address",
    "patient_town",
    "patient_postal_code",
)
_NAMES = ("patient_first_name", "patient_last_name")
_RANKS = {grade: rank for rank, grade in enumerate(THRESHOLDS)}
_AGREEING_DATES = frozenset([Level.SAME, Level.SWAPPED, Level.NEAR])
_AGREEING_ADDRESSES = frozenset([Level.SAME, Level.SIMILAR])
_NEAR_ADDRESSES = frozenset([Level.STREET, Level.PART])
_SAME_NAMES = frozenset([Level.SAME, Level.SAME_FREQUENT])
_ALMOST_SAME_NAMES = _SAME_NAMES | {Level.SPELLING, Level.NEAR}
_FORMS_OF_ONE_NAME = _ALMOST_SAME_NAMES | {Level.SHORT_FORM}
_OTHER_FIRST_NAMES = frozenset([None, Level.DIFFERENT, Level.SECOND])
_VAGUE_FIRST_NAMES = frozenset([Level.SIMILAR, Level.INITIAL, Level.SECOND])
_NEAR_LEVELS = frozenset([Level.SAME, Level.NEAR])


def _may_be_family(levels: Mapping[str, Level], one: Person, other: Person, today: date) -> bool:
    """Return whether two patients may be two members of a family.

    The members of a family share names, addresses and phone numbers, twins share the date of birth too, and a newborn
    child may have no first name yet, or the mother's.
    """
    first_name, birth = levels.get("patient_first_name"), levels.get("patient_date_of_birth")
    if first_name in _OTHER_FIRST_NAMES and not (first_name is Level.SECOND and birth is Level.SAME):
        return True
    if levels.get("patient_gender") is Level.DIFFERENT and (first_name not in _SAME_NAMES or birth is not Level.SAME):
        return True
    if birth is Level.DIFFERENT:
        return first_name not in _FORMS_OF_ONE_NAME or _are_parent_and_child(one, other, today)
    is_mother_of_newborn = birth is None and min(_age(one, today), _age(other, today)) <= 1
    return is_mother_of_newborn or (first_name is Level.INITIAL and birth is not Level.SAME)


def _is_identified(levels: Mapping[str, Level], one: Person, other: Person, today: date) -> bool:
    """Return whether an identifier in common shows that two patients are not two members of a family.

    Twins and adults have identifiers of their own, but a child may be registered with its mother's identifier.
    """
    if levels.get("patient_identifiers") is not Level.SAME:
        return False
    birth = levels.get("patient_date_of_birth")
    has_same_first_name = levels.get("patient_first_name") in _ALMOST_SAME_NAMES
    if birth is not Level.DIFFERENT:
        return has_same_first_name or birth in _AGREEING_DATES
    if _are_adults(one, other, today):
        return levels.get("patient_gender") is not Level.DIFFERENT
    return has_same_first_name and not _are_parent_and_child(one, other, today)


def _age(person: Person, today: date) -> int:
    """Return the age of a person in years, or that of an adult if it is unknown. It may be one year too high."""
    return today.year - person.date_of_birth.year if person.date_of_birth else ADULT_YEARS + 1


def _may_be_named_alike(levels: Mapping[str, Level]) -> bool:
    """Return whether one of the first names is a short form of the other that twins may also have, such as Thabo."""
    email = levels.get("patient_email_address")
    return levels.get("patient_first_name") is Level.OTHER_FORM and email not in _NEAR_LEVELS


def _is_consistent(levels: Mapping[str, Level], one: Person, other: Person, today: date) -> bool:
    """Return whether two adults who may be members of a family may just as well be one person.

    Many adults are registered by one of several first names, and grown twins who live together are rarer. Different
    first names count only if one of the records has a gender, a phone number or an e-mail address.
    """
    if not _are_adults(one, other, today) or levels.get("patient_gender") is Level.DIFFERENT:
        return False
    if not _have_personal_values(one, other):
        return True
    return Level.DIFFERENT not in {levels.get("patient_first_name"), levels.get("patient_date_of_birth")}


def _have_same_origin(levels: Mapping[str, Level]) -> bool:
    """Return whether two records with other or missing first names agree on the birth, and on the last name or home."""
    first_name, birth = levels.get("patient_first_name"), levels.get("patient_date_of_birth")
    if first_name not in _OTHER_FIRST_NAMES or birth not in _AGREEING_DATES:
        return False
    origins = {levels.get("patient_last_name"), levels.get("patient_physical_address")} - {None, Level.DIFFERENT}
    return bool(origins) and (birth is Level.SAME or first_name is not Level.DIFFERENT)


def _are_adults(one: Person, other: Person, today: date) -> bool:
    return all(_age(person, today) > ADULT_YEARS for person in (one, other))


def _are_parent_and_child(one: Person, other: Person, today: date) -> bool:
    """Return whether one of two persons with different dates of birth is a child and could be the other's child."""
    years = sorted(p.date_of_birth.year for p in (one, other) if p.date_of_birth)
    return today.year - years[-1] <= ADULT_YEARS and years[-1] - years[0] >= GENERATION_YEARS


def _have_personal_values(one: Person, other: Person) -> bool:
    """Return whether one of two records has more than names, a date of birth and an address, which families share."""
    return any(p.gender or p.phone or p.email for p in (one, other))


def _may_be_namesakes(levels: Mapping[str, Level], one: Person, other: Person) -> bool:
    """Return whether two persons of one family, such as father and son or cousins, may have the same names.

    Where records have no personal values, many dates of birth are wrong. A home and a phone number in common show the
    same.
    """
    return (
        levels.get("patient_date_of_birth") is Level.DIFFERENT
        and _have_personal_values(one, other)
        and levels.get("patient_identifiers") is not Level.SAME
        and not (
            levels.get("patient_mobile_number") is Level.SAME
            and levels.get("patient_physical_address") in _AGREEING_ADDRESSES
        )
    )


def _best_grade(levels: Mapping[str, Level], one: Person, other: Person, *, may_be_family: bool) -> Grade | None:
    """Return the best grade that two patients may have, whatever their score is, or None if they are two persons.

    Strangers share names, and some of them a date of birth, but neither an address nor a phone number.
    """
    birth = levels.get("patient_date_of_birth")
    has_same_identifier = levels.get("patient_identifiers") is Level.SAME
    if may_be_family:
        return None if birth is Level.DIFFERENT and not has_same_identifier else Grade.POSSIBLE
    has_same_last_name = levels.get("patient_last_name", Level.DIFFERENT) is not Level.DIFFERENT
    if not _have_same_contact(levels, birth):
        best_grade = Grade.CERTAIN if birth is Level.SAME and has_same_last_name else Grade.POSSIBLE
        return None if birth is Level.DIFFERENT else best_grade
    if birth in _AGREEING_DATES and has_same_last_name:
        return Grade.CERTAIN
    if _may_be_namesakes(levels, one, other):
        return Grade.POSSIBLE
    if has_same_last_name or has_same_identifier or birth is Level.SAME:
        return Grade.PROBABLE
    may_have_married = not one.gender == other.gender == "Male"
    has_same_home = levels.get("patient_physical_address") in _AGREEING_ADDRESSES and birth is not Level.DIFFERENT
    has_same_first_name = levels.get("patient_first_name") in (_ALMOST_SAME_NAMES if birth else _SAME_NAMES)
    return Grade.PROBABLE if has_same_home and has_same_first_name and may_have_married else Grade.POSSIBLE


def _can_be_certain(levels: Mapping[str, Level], one: Person, other: Person, *, is_identified: bool) -> bool:
    """Return whether the levels rule out that the records are of twins, or of namesakes born on the same day.

    Twins may have first names that differ in a letter. Strangers have names in common as often as these are frequent,
    some of them the date of birth, too, and in a town many live in one place. A contact in common tells them apart.
    """
    first_name = levels.get("patient_first_name")
    if first_name in _VAGUE_FIRST_NAMES or (first_name is Level.NEAR and not is_identified):
        return False
    phone, email = levels.get("patient_mobile_number"), levels.get("patient_email_address")
    places = {levels.get("patient_town"), levels.get("patient_postal_code")}
    address = None if places - {None} == {Level.DIFFERENT} else levels.get("patient_physical_address")
    if is_identified or address in _AGREEING_ADDRESSES or phone in _NEAR_LEVELS or email in _NEAR_LEVELS:
        return True
    rare_names = [levels.get(name) for name in _NAMES].count(Level.SAME)
    if rare_names == len(_NAMES):
        has_same_contact = {levels.get(field) for field in _CONTACT_FIELDS} - {None} != {Level.DIFFERENT}
        return has_same_contact or min(len(one.first_name), len(other.first_name)) > 1
    if phone or email:  # they are different
        return False
    return (rare_names == 1 and places <= _NEAR_LEVELS) or (address is Level.PART and Level.DIFFERENT not in places)


def _have_same_contact(levels: Mapping[str, Level], birth: Level | None) -> bool:
    """Return whether the records agree on where the person lives or on how to reach the person.

    If the records cannot be compared by a phone number or an e-mail address, parts of the address suffice: the same
    street (in the same town with the same postal code if the dates of birth differ), or the same town and postal code
    alone if the dates of birth are alike. An e-mail address does not make up for another date of birth, because people
    with the same name often have almost the same address.
    """
    places = {levels.get("patient_town"), levels.get("patient_postal_code")}
    address = None if places - {None} == {Level.DIFFERENT} else levels.get("patient_physical_address")
    phone, email = levels.get("patient_mobile_number"), levels.get("patient_email_address")
    if address in _AGREEING_ADDRESSES or Level.SAME in {phone, levels.get("patient_identifiers")}:
        return True
    if phone or email:
        return email is Level.SAME and birth is not Level.DIFFERENT
    has_same_place = places <= _NEAR_LEVELS
    if address in _NEAR_ADDRESSES:
        return has_same_place or birth is not Level.DIFFERENT
    return has_same_place and birth in _AGREEING_DATES


def _sum(levels: Mapping[str, Level]) -> float:
    return sum([WEIGHTS[field][level] for field, level in levels.items()])


def _rank_levels(levels: Mapping[str, Level]) -> tuple[float, list[tuple[str, Level]]]:
    """Return a key by which levels with a higher score come later, and those with the same score in a fixed order."""
    return _sum(levels), sorted(levels.items())


def _divide_names(one: Person, other: Person) -> tuple[Person, Person]:
    """Return two persons with whole names divided as the other's names suggest, or as they are if none agrees."""
    ranked = [
        (_rank_levels(levels), (first, second))
        for first in divisions(one)
        for second in divisions(other)
        if len(levels := _name_levels(first, second.first_name, second.last_name)) == len(_NAMES)
        and Level.DIFFERENT not in levels.values()
    ]
    return max(ranked, key=lambda each: each[0])[1] if ranked else (one, other)


def _name_levels(one: Person, first_name: tuple[str, ...], last_name: tuple[str, ...]) -> dict[str, Level]:
    levels = {}
    if one.first_name and first_name:
        level = compare_names(one.first_name, first_name)
        are_siblings = level is Level.PART and have_other_second_names(one.first_name, first_name)
        levels["patient_first_name"] = Level.DIFFERENT if are_siblings else level
    if one.last_name and last_name:
        levels["patient_last_name"] = compare_names(one.last_name, last_name)
    return levels


_COMPARISONS: tuple[tuple[str, Callable[[Any, Any], Level | None]], ...] = (
    ("patient_date_of_birth", compare_dates),
    ("patient_gender", compare_exactly),
    ("patient_mobile_number", compare_numbers),
    ("patient_email_address", compare_emails),
    ("patient_physical_address", compare_addresses),
    ("patient_town", compare_texts),
    ("patient_postal_code", compare_numbers),
    ("patient_province", compare_exactly),
    ("patient_identifiers", compare_identifiers),
)
"""The fields after the names, in the order of `Person`, and how their values are compared."""
