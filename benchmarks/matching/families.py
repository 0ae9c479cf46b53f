"""Families of fictitious people, some of whom are registered several times, for measuring who is taken for whom.

Households have parents, children, twins and newborns, who share names, addresses and phone numbers. A third of the
names are made up, so that no list of the service contains them.
"""

import argparse
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from random import Random
from typing import Any, NamedTuple

from app.locality.names import SHORT_FORMS
from app.matching.weights import STRONG_GRADES, Grade
from benchmarks.finding.typos import add_errors, can_have_errors, folded_words
from benchmarks.matching.febrl import find_pairs, scores
from benchmarks.names import ENGLISH_NAMES, POPULATIONS, split_names
from benchmarks.register import REFERENCE_DATE
from benchmarks.report import table_head, table_row
from benchmarks.towns import STREET_NAMES, STREET_TYPES, TOWNS

Fields = dict[str, Any]
"""The fields of a patient by name."""
DENSITIES = ("complete", "partial", "sparse")
"""How much the records say: `partial` ones lack some of gender, phone number and e-mail address; `sparse` ones lack all
of them, as the public sets of Febrl do."""
SHARES_WITHOUT = {
    "patient_date_of_birth": 0.2,
    "patient_physical_address": 0.1,
    "patient_postal_code": 0.15,
    "patient_town": 0.03,
    "patient_first_name": 0.01,
}
"""Shares of records without a field, of each density."""
PERSONAL_SHARES_WITHOUT = {
    "complete": {"patient_mobile_number": 0.1, "patient_email_address": 0.5, "patient_gender": 0.02},
    "partial": {"patient_mobile_number": 0.5, "patient_email_address": 0.85, "patient_gender": 0.5},
    "sparse": {"patient_mobile_number": 1.0, "patient_email_address": 1.0, "patient_gender": 1.0},
}
SCAN_ERRORS = {"rn": "m", "m": "rn", "l": "1", "o": "0", "e": "c", "cl": "d", "u": "v", "i": "l", "s": "5"}
"""How a program misreads letters of a scanned form."""
SYLLABLES = split_names(
    """ba, be, bo, chi, da, dra, el, fa, gha, ha, hu, i, ja, ka, khe, ki, lo,
    lu, ma, me, mi, na, ne, o, pe, qua, ra, ri, sa, she, ta, tu, va, we"""
)
ABBREVIATIONS = {"Street": "St", "Road": "Rd", "Avenue": "Ave", "Flat": "Unit", "P O Box": "PO Box"}
TITLES = ("Mr", "Mrs.", "Dr", "Ms", "Prof.", "Mnr", "Mev")
UNKNOWN_NAMES = ("Unknown", "Baby", "N/A", "unknown male", "-")
MONTHS = 12


class Member(NamedTuple):
    """A person of a household, with the values that a careful clerk would write."""

    number: int
    household: int
    born: date
    is_unnamed: bool
    """Whether the person is a newborn without a first name of its own."""
    fields: Fields


class Record(NamedTuple):
    """A registration of a member."""

    unique_id: str
    member: Member
    fields: Fields


def run(arguments: argparse.Namespace) -> None:
    """Print how many pairs of each register of families a scan finds, and whom it takes for one person by mistake."""
    columns = ["density", "seed", "grade", "pairs", "precision", "recall", "F1", "mistakes"]
    print(*table_head(columns), sep="\n")
    for seed in arguments.seeds:
        for density in DENSITIES:
            records = {one.unique_id: one for one in FamilyRegister(seed, density).records(arguments.households)}
            found = find_pairs({"unique_id": one.unique_id, **one.fields} for one in records.values())
            for name, grades in (("certain", {Grade.CERTAIN}), ("probable or better", STRONG_GRADES)):
                graded = {pair for pair, grade in found.items() if grade in grades}
                kinds = Counter(_mistake(*(records[unique_id].member for unique_id in pair)) for pair in graded)
                mistakes = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()) if kind)
                print(
                    table_row([density, str(seed), name, *scores(graded, [*records]), mistakes or "none"]), flush=True
                )


def _mistake(one: Member, other: Member) -> str:
    """Return what two members are to each other, or an empty text if they are one person."""
    if one.number == other.number:
        return ""
    if one.household != other.household:
        return "strangers"
    if one.born == other.born:
        return "twins"
    return "newborns" if one.is_unnamed or other.is_unnamed else "relatives"


class FamilyRegister:
    """Generates households and registers their members as hurried clerks do. The same seed gives the same register."""

    def __init__(self, seed: int, density: str) -> None:
        self._random = Random(f"{seed} {density}")
        self._missing = {**SHARES_WITHOUT, **PERSONAL_SHARES_WITHOUT[density]}
        self._members = 0
        self._last_names: list[str] = []

    def records(self, households: int) -> Iterator[Record]:
        """Yield the records of all members of `households` households."""
        for household in range(households):
            for member in self._household(household):
                yield Record(f"rec-{member.number}-0", member, self._drop(dict(member.fields)))
                copies = self._random.choices((0, 1, 2, 3), (65, 25, 7, 3))[0]
                for copy in range(1, copies + 1):
                    yield Record(f"rec-{member.number}-{copy}", member, self._drop(self._again(member)))

    def _happens(self, chance: float) -> bool:
        return self._random.random() < chance

    def _household(self, household: int) -> list[Member]:
        random = self._random
        home, last = self._contact(), self._last_name()
        born = REFERENCE_DATE - timedelta(days=random.randint(22 * 365, 80 * 365))
        mother = self._member(household, "Female", last, born, home)
        members = [mother]
        if self._happens(0.5):
            years = timedelta(days=random.randint(-8 * 365, 8 * 365))
            own_last = last if self._happens(0.7) else self._last_name()
            members.append(self._member(household, "Male", own_last, born + years, home | self._phone()))
        child_born = born + timedelta(days=random.randint(18 * 365, 30 * 365))
        for _ in range(random.choices((0, 1, 2, 3, 4), (30, 25, 25, 15, 5))[0]):
            if child_born > REFERENCE_DATE:
                break
            members += self._children(household, last, child_born, home)
            child_born += timedelta(days=random.randint(300, 5 * 365))
        if self._happens(0.05):
            newborn = date(2026, 10, random.randint(1, 31))
            if (newborn - born).days < 46 * 365:
                members.append(self._newborn(household, mother, newborn))
        if self._happens(0.1):  # a namesake elsewhere, of another age
            other = self._member(household, "Female", last, self._random_birth(), self._contact())
            name = mother.fields["patient_first_name"]
            members.append(other._replace(fields={**other.fields, "patient_first_name": name}))
        return members

    def _children(self, household: int, last: str, born: date, home: Fields) -> list[Member]:
        gender = self._random.choice(("Female", "Male"))
        contact = home if self._happens(0.8) else self._contact()
        if self._happens(0.4):
            contact = contact | self._phone()
        children = [self._member(household, gender, last, born, contact)]
        if self._happens(0.06):
            twin_gender = gender if self._happens(0.67) else self._random.choice(("Female", "Male"))
            first = children[0].fields["patient_first_name"]
            while True:
                twin = self._member(household, twin_gender, last, born, contact)
                if set(twin.fields["patient_first_name"].split()).isdisjoint(first.split()):
                    break
                self._members -= 1
            children.append(twin)
        return children

    def _newborn(self, household: int, mother: Member, born: date) -> Member:
        first = mother.fields["patient_first_name"]
        member = self._member(household, self._random.choice(("Female", "Male")), "", born, {})
        name = self._random.choice(("Baby", "Baby Girl", "Baby Boy", f"Baby of {first}", f"{first} Baby", first))
        own = {"patient_first_name": name, "patient_date_of_birth": born, "patient_email_address": None}
        own["patient_gender"] = member.fields["patient_gender"]
        return member._replace(is_unnamed=True, fields={**mother.fields, **own})

    def _member(self, household: int, gender: str, last: str, born: date, contact: Fields) -> Member:
        self._members += 1
        first = self._first_name(gender)
        fields = {
            "patient_first_name": first,
            "patient_last_name": last,
            "patient_date_of_birth": born,
            "patient_gender": gender,
            "patient_email_address": self._email(first, last),
            **contact,
        }
        return Member(self._members, household, born, is_unnamed=False, fields=fields)

    def _random_birth(self) -> date:
        return REFERENCE_DATE - timedelta(days=self._random.randint(0, 90 * 365))

    def _made_up(self) -> str:
        return "".join(self._random.choice(SYLLABLES) for _ in range(self._random.randint(2, 4))).title()

    def _population(self) -> Any:
        populations = list(POPULATIONS.values())
        return self._random.choices(populations, [population.share for population in populations])[0]

    def _first_name(self, gender: str) -> str:
        if self._happens(0.33):
            return self._made_up()
        population = self._population()
        names = population.female_names if gender == "Female" else population.male_names
        first = str(self._random.choice(names))
        return f"{first} {self._random.choice(ENGLISH_NAMES[gender])}" if self._happens(0.2) else first

    def _last_name(self) -> str:
        if self._last_names and self._happens(0.3):
            return self._random.choice(self._last_names)  # frequent ones
        last = self._made_up() if self._happens(0.33) else str(self._random.choice(self._population().last_names))
        self._last_names.append(last)
        return last

    def _home(self) -> Fields:
        random = self._random
        town = random.choices(TOWNS, [town.population_thousands for town in TOWNS])[0]
        street = random.choice(STREET_NAMES) if self._happens(0.5) else self._made_up()
        if self._happens(0.15):  # as in villages and townships
            number = random.randint(1, 3000)
            address = random.choice((f"Stand {number}", f"{street} Location", f"P O Box {number}"))
        else:
            address = f"{random.randint(1, 300)} {street} {random.choice(STREET_TYPES)}"
        return {
            "patient_physical_address": address,
            "patient_address_line_1": f"Flat {random.randint(1, 40)}" if self._happens(0.15) else None,
            "patient_town": town.name,
            "patient_postal_code": town.postal_code,
            "patient_province": town.province,
        }

    def _phone(self) -> Fields:
        network = self._random.choice((72, 82, 83, 61, 79))
        return {"patient_mobile_number": f"0{network}{self._random.randint(1_000_000, 9_999_999)}"}

    def _contact(self) -> Fields:
        return self._home() | self._phone()

    def _email(self, first: str, last: str) -> str:
        name = f"{first.split(maxsplit=1)[0]}.{last}".lower().replace(" ", "")
        letters = "".join(character for character in name if character.isascii())
        return f"{letters}{self._random.randint(1, 99)}@example.org"

    def _drop(self, fields: Fields) -> Fields:
        for name, share in self._missing.items():
            if self._happens(share):
                fields[name] = None
        if self._happens(0.005):
            fields["patient_first_name"] = self._random.choice(UNKNOWN_NAMES)
        if self._happens(0.01) and fields["patient_mobile_number"]:
            fields["patient_mobile_number"] = "0000000000"
        return {name: value for name, value in fields.items() if value is not None}

    def _again(self, member: Member) -> Fields:
        """Return another registration of a member, years earlier or later."""
        random, fields = self._random, dict(member.fields)
        for change, chance in self._changes.items():
            if self._happens(chance):
                change(self, fields, member)
        for name, chance in (
            ("patient_first_name", 0.2),
            ("patient_last_name", 0.15),
            ("patient_physical_address", 0.25),
            ("patient_town", 0.08),
        ):
            if self._happens(chance) and can_have_errors(fields[name]):
                is_long = max(map(len, folded_words(fields[name]))) > 5  # noqa: PLR2004  # letters for two errors
                count = 2 if is_long and self._happens(0.2) else 1
                fields[name] = add_errors(fields[name], count, random)
        return fields

    def _use_short_form(self, fields: Fields, _: Member) -> None:
        first = fields["patient_first_name"].split()[0]
        forms = sorted(SHORT_FORMS.get(first.lower(), ())) or [first[: self._random.randint(3, 6)]]
        fields["patient_first_name"] = self._random.choice(forms).title()

    def _use_one_name(self, fields: Fields, _: Member) -> None:
        fields["patient_first_name"] = self._random.choice(fields["patient_first_name"].split())

    def _add_name(self, fields: Fields, _: Member) -> None:
        fields["patient_first_name"] += f" {self._first_name(self._random.choice(('Female', 'Male')))}"

    def _use_other_name(self, fields: Fields, member: Member) -> None:
        fields["patient_first_name"] = self._first_name(member.fields["patient_gender"])

    def _add_title(self, fields: Fields, _: Member) -> None:
        fields["patient_first_name"] = f"{self._random.choice(TITLES)} {fields['patient_first_name']}"

    def _use_initial(self, fields: Fields, _: Member) -> None:
        fields["patient_first_name"] = fields["patient_first_name"][0]

    def _swap_names(self, fields: Fields, _: Member) -> None:
        names = fields["patient_last_name"], fields["patient_first_name"]
        fields["patient_first_name"], fields["patient_last_name"] = names

    def _marry(self, fields: Fields, member: Member) -> None:
        if member.fields["patient_gender"] == "Female" and (REFERENCE_DATE - member.born).days > 18 * 365:
            last = self._last_name()
            fields["patient_last_name"] = last if self._happens(0.8) else f"{fields['patient_last_name']}-{last}"

    def _move(self, fields: Fields, _: Member) -> None:
        fields.update(self._home())

    def _write_address_otherwise(self, fields: Fields, _: Member) -> None:
        address = fields["patient_physical_address"]
        for long, short in ABBREVIATIONS.items():
            address = address.replace(long, short)
        fields["patient_physical_address"] = address
        if fields["patient_address_line_1"] and self._happens(0.5):
            fields["patient_physical_address"] = f"{fields['patient_address_line_1']}, {address}"
            fields["patient_address_line_1"] = None

    def _change_phone(self, fields: Fields, _: Member) -> None:
        fields.update(self._phone())

    def _change_email(self, fields: Fields, _: Member) -> None:
        fields["patient_email_address"] = self._email(fields["patient_first_name"], self._made_up())

    def _mistake_gender(self, fields: Fields, _: Member) -> None:
        fields["patient_gender"] = {"Female": "Male", "Male": "Female"}[fields["patient_gender"]]

    def _misread(self, fields: Fields, _: Member) -> None:
        name = self._random.choice(("patient_first_name", "patient_last_name", "patient_physical_address"))
        wrong = [letters for letters in SCAN_ERRORS if letters in fields[name]]
        if wrong:
            letters = self._random.choice(wrong)
            fields[name] = fields[name].replace(letters, SCAN_ERRORS[letters], 1)

    def _mistake_date(self, fields: Fields, member: Member) -> None:
        born = member.born
        kind = self._random.choice(("swapped", "digit", "digits", "year", "placeholder"))
        if kind == "swapped" and born.day <= MONTHS:
            born = date(born.year, born.day, born.month)
        elif kind == "digit":
            born += self._random.choice((-1, 1)) * timedelta(days=self._random.choice((1, 10)))
        elif kind == "digits":
            tens, ones = divmod(born.year % 100, 10)
            born = date(born.year // 100 * 100 + 10 * ones + tens, born.month, min(born.day, 28))
        elif kind == "year":
            born = date(born.year + self._random.choice((-1, 1)), born.month, min(born.day, 28))
        else:
            born = date(born.year, 1, 1)
        fields["patient_date_of_birth"] = min(born, REFERENCE_DATE)

    _changes: dict[Callable[["FamilyRegister", Fields, Member], None], float] = {  # noqa: RUF012  # never changed
        _use_short_form: 0.12,
        _use_one_name: 0.15,
        _add_name: 0.05,
        _use_other_name: 0.02,
        _add_title: 0.06,
        _use_initial: 0.02,
        _marry: 0.08,
        _swap_names: 0.03,
        _move: 0.12,
        _write_address_otherwise: 0.4,
        _change_phone: 0.25,
        _change_email: 0.3,
        _mistake_gender: 0.01,
        _misread: 0.06,
        _mistake_date: 0.15,
    }
