"""People who look alike, and people who are registered several times, in seven populations.

Half of the persons are look-alikes who are different people: namesakes born on one day, twins, parents and
children with one name, cousins, residents of an institution, and patients with the phone number or e-mail address of a
clinic. The generator was written without looking at the weights and word lists of the service.
"""

from collections.abc import Callable, Iterator
from datetime import date, timedelta
from random import Random
from typing import Any, NamedTuple

from benchmarks.finding.typos import add_errors, can_have_errors
from benchmarks.matching.people import People
from benchmarks.matching.populations import PEOPLE
from benchmarks.register import REFERENCE_DATE

Fields = dict[str, Any]
"""The fields of a patient by name."""
CLERKS = {
    "thorough": {"patient_mobile_number": 0.05, "patient_email_address": 0.4, "patient_gender": 0.01},
    "ordinary": {
        "patient_date_of_birth": 0.05,
        "patient_mobile_number": 0.25,
        "patient_email_address": 0.75,
        "patient_gender": 0.05,
        "patient_physical_address": 0.15,
        "patient_postal_code": 0.3,
    },
    "hasty": {
        "patient_date_of_birth": 0.15,
        "patient_mobile_number": 0.6,
        "patient_email_address": 0.97,
        "patient_gender": 0.15,
        "patient_physical_address": 0.6,
        "patient_town": 0.3,
        "patient_postal_code": 0.7,
        "patient_province": 0.5,
    },
}
"""Shares of records without a field, by the habits of clerks."""
ADDRESS_FIELDS = (
    "patient_physical_address",
    "patient_address_line_1",
    "patient_town",
    "patient_postal_code",
    "patient_province",
)
NAMESAKE_FIELDS = ("patient_first_name", "patient_last_name", "patient_gender")
INSTITUTIONS = (
    "Sunnyside Old Age Home, 12 Park Road",
    "Westville Correctional Centre",
    "Dagahaley Camp Block C",
    "Men's Hostel 4, Station Road",
    "University Residence, 1 College Road",
    "Bethany Shelter",
)
MONTHS = 12


class Person(NamedTuple):
    """A person with the values that a careful clerk would write."""

    number: int
    group: int
    """The number of the group of look-alikes that the person belongs to."""
    situation: str
    """What the members of the group are to each other."""
    people: People
    fields: Fields


def _shared(draw: Callable[[], str]) -> str:
    """Return a name that two people have by chance."""
    while True:
        if (name := draw()) == draw():
            return name


class LookalikeRegister:
    """Generates groups of people and registers them as clerks do. The same seed gives the same register."""

    def __init__(self, seed: int, *, with_identifiers: bool) -> None:
        self._random = Random(f"lookalikes {seed}")
        self._with_identifiers = with_identifiers
        self._persons = 0
        self._groups = 0
        self._emails: set[str] = set()
        self._clinic_phones = [f"011{self._random.randint(2_000_000, 9_999_999)}" for _ in range(3)]
        self._clinic_emails = ["reception@clinic.example.org", "noemail@hospital.example.org", "info@ngo.example.org"]

    def records(self, groups: int) -> Iterator[tuple[str, Person, Fields]]:
        """Yield the id, the person and the fields of the records of `groups` groups."""
        situations = list(self._situations)
        for _ in range(groups):
            situation = self._random.choices(situations, [self._situations[one] for one in situations])[0]
            self._groups += 1
            people = self._random.choice(list(PEOPLE.values()))
            for person in situation(self, people):
                yield f"rec-{person.number}-0", person, self._write(dict(person.fields))
                for copy in range(1, 1 + self._random.choices((0, 1, 2, 3), (55, 32, 9, 4))[0]):
                    yield f"rec-{person.number}-{copy}", person, self._write(self._again(person))

    def _happens(self, chance: float) -> bool:
        return self._random.random() < chance

    # People

    def _person(self, people: People, situation: str, **fixed: Any) -> Person:
        gender = fixed.get("patient_gender") or self._random.choice(("Female", "Male"))
        first, last = self._first_name(people, gender), people.last_names.draw(self._random)
        fields = {
            "patient_first_name": first,
            "patient_last_name": last,
            "patient_gender": gender,
            "patient_date_of_birth": self._born(people, 0, 92),
            "patient_mobile_number": people.phone(self._random),
            **self._home(people),
            **fixed,
        }
        fields.setdefault("patient_email_address", self._email(fields))
        if self._with_identifiers and self._happens(0.6):
            identifier = {"type": "other", "value": str(self._random.randint(10**9, 10**10 - 1))}
            fields["patient_identifiers"] = [identifier]
        self._persons += 1
        return Person(self._persons, self._groups, situation, people, fields)

    def _first_name(self, people: People, gender: str) -> str:
        names = people.female_names if gender == "Female" else people.male_names
        first = names.draw(self._random)
        if not self._happens(people.second_name_share):
            return first
        if people is PEOPLE["Somali"]:  # the father's name
            return f"{first} {people.male_names.draw(self._random)}"
        return f"{first} {names.draw(self._random)}"

    def _born(self, people: People, youngest: int, oldest: int) -> date:
        born = REFERENCE_DATE - timedelta(days=self._random.randint(youngest * 365, oldest * 365))
        return date(born.year, 1, 1) if self._happens(people.new_year_share) else born

    def _home(self, people: People) -> Fields:
        random = self._random
        town, code, province = random.choice(people.towns)
        address = f"{random.randint(1, 400)} {random.choice(people.streets)}"
        if not address.split(maxsplit=1)[1].startswith(("Rua", "Avenida", "Block", "Section", "Zone", "Extension")):
            address += f" {random.choice(('Street', 'Road', 'Avenue'))}"
        flat = f"Flat {random.randint(1, 60)}" if self._happens(0.1) else None
        return dict(zip(ADDRESS_FIELDS, (address, flat, town, code, province), strict=True))

    def _email(self, fields: Fields) -> str:
        """Return an e-mail address that nobody else has: names, and a number if they are taken or by chance."""
        first = fields["patient_first_name"].split()[0]
        name = f"{first}.{fields['patient_last_name']}".lower().replace(" ", "")
        letters = "".join(character for character in name if character.isascii())
        number = self._random.choice(("", self._random.randint(1, 99)))
        while True:
            address = f"{letters}{number}@{self._random.choice(('mail.example.org', 'example.com', 'example.net'))}"
            if address not in self._emails:
                self._emails.add(address)
                return address
            number = self._random.randint(1, 9999)

    # Situations

    def _alone(self, people: People) -> list[Person]:
        return [self._person(people, "alone")]

    def _namesakes(self, people: People) -> list[Person]:
        """Return namesakes born on one day: names in proportion to how often two people share them."""
        one = self._person(people, "namesakes born on one day")
        gender = one.fields["patient_gender"]
        one.fields["patient_first_name"] = _shared(lambda: self._first_name(people, gender))
        one.fields["patient_last_name"] = _shared(lambda: people.last_names.draw(self._random))
        one.fields["patient_email_address"] = self._email(one.fields)
        fixed = {name: one.fields[name] for name in (*NAMESAKE_FIELDS, "patient_date_of_birth")}
        if self._happens(0.25):  # a large town
            fixed |= {name: one.fields[name] for name in ADDRESS_FIELDS[2:]}
        return [one, self._person(people, one.situation, **fixed)]

    def _namesakes_of_other_days(self, people: People) -> list[Person]:
        one, other = (person._replace(situation="namesakes") for person in self._namesakes(people))
        other.fields["patient_date_of_birth"] = self._born(people, 0, 92)
        return [one, other]

    def _household(self, fields: Fields) -> Fields:
        shared = {name: fields[name] for name in ADDRESS_FIELDS}
        if self._happens(0.7):
            shared["patient_mobile_number"] = fields["patient_mobile_number"]
        if self._happens(0.2):
            shared["patient_email_address"] = fields["patient_email_address"]
        return shared

    def _twins(self, people: People) -> list[Person]:
        one = self._person(people, "twins")
        born, last = one.fields["patient_date_of_birth"], one.fields["patient_last_name"]
        home = self._household(one.fields) | {"patient_last_name": last, "patient_date_of_birth": born}
        if self._happens(0.65):
            home["patient_gender"] = one.fields["patient_gender"]
        other = self._person(people, "twins", **home)
        first, *more = one.fields["patient_first_name"].split()
        if self._happens(0.3):  # names that are alike, such as Thandi and Thando
            names = self._random.choice(people.twins)
            for person, name in zip((one, other), names, strict=True):
                person.fields["patient_first_name"] = " ".join([name, *person.fields["patient_first_name"].split()[1:]])
        elif self._happens(0.05) or other.fields["patient_first_name"].split()[0] == first:
            other.fields["patient_first_name"] = " ".join([self._alike(first), *(more if self._happens(0.2) else [])])
        return [one, other]

    def _alike(self, first: str) -> str:
        vowels = [at for at, letter in enumerate(first) if letter in "aeiou" and at]
        if not vowels:
            return f"{first}a"
        at = vowels[-1]
        return first[:at] + self._random.choice([vowel for vowel in "aeiou" if vowel != first[at]]) + first[at + 1 :]

    def _parent_and_child(self, people: People) -> list[Person]:
        parent = self._person(people, "parents and children", patient_date_of_birth=self._born(people, 40, 90))
        fixed = {name: parent.fields[name] for name in NAMESAKE_FIELDS} | self._household(parent.fields)
        born = parent.fields["patient_date_of_birth"] + timedelta(days=self._random.randint(18 * 365, 38 * 365))
        if self._happens(people.new_year_share):
            born = date(born.year, 1, 1)
        child = self._person(people, parent.situation, **fixed, patient_date_of_birth=born)
        if self._happens(0.3):
            child.fields["patient_first_name"] += f" {self._first_name(people, fixed['patient_gender']).split()[0]}"
        return [parent, child]

    def _siblings(self, people: People) -> list[Person]:
        one = self._person(people, "siblings", patient_date_of_birth=self._born(people, 1, 60))
        fixed = {"patient_last_name": one.fields["patient_last_name"]} | self._household(one.fields)
        days = timedelta(days=self._random.randint(300, 2500))
        born = min(one.fields["patient_date_of_birth"] + days, REFERENCE_DATE)
        if self._happens(people.new_year_share):
            born = date(born.year, 1, 1)
        other = self._person(people, "siblings", **fixed, patient_date_of_birth=born)
        if self._happens(0.25):  # one first name before another, as Maria José and Maria Clara
            first = one.fields["patient_first_name"].split()[0]
            other.fields["patient_gender"] = gender = one.fields["patient_gender"]
            for person in (one, other):
                person.fields["patient_first_name"] = f"{first} {self._first_name(people, gender).split()[0]}"
        return [one, other]

    def _cousins(self, people: People) -> list[Person]:
        """Return cousins with one grandfather's name, of one age, some of them in one house."""
        one = self._person(people, "cousins")
        gender, born = one.fields["patient_gender"], one.fields["patient_date_of_birth"]
        first = one.fields["patient_first_name"].split()[0]
        fixed = {"patient_last_name": one.fields["patient_last_name"], "patient_gender": gender}
        if self._happens(0.4):
            fixed |= self._household(one.fields)
        days = self._random.randint(-900, 900)
        other_born = min(born + timedelta(days=days), REFERENCE_DATE)
        if people.new_year_share > 0.1 and self._happens(0.5):  # noqa: PLR2004  # a population without certificates
            born, other_born = date(born.year, 1, 1), date(other_born.year, 1, 1)
        fathers = [people.male_names.draw(self._random) for _ in range(2)]
        one.fields.update(patient_first_name=f"{first} {fathers[0]}", patient_date_of_birth=born)
        other = self._person(people, one.situation, **fixed, patient_date_of_birth=other_born)
        other.fields["patient_first_name"] = f"{first} {fathers[1]}"
        return [one, other]

    def _institution(self, people: People) -> list[Person]:
        """Return residents of an institution: one address, for some one phone number, and common names."""
        home = self._home(people) | {"patient_physical_address": self._random.choice(INSTITUTIONS)}
        phone, youngest = people.phone(self._random), self._random.choice((0, 16, 65))
        residents = []
        for _ in range(self._random.randint(4, 20)):
            fixed = home | ({"patient_mobile_number": phone} if self._happens(0.5) else {})
            born = self._born(people, youngest, youngest + 25)
            residents.append(self._person(people, "residents", **fixed, patient_date_of_birth=born))
        if self._happens(0.3):  # two of them have one name
            residents[1].fields.update({name: residents[0].fields[name] for name in NAMESAKE_FIELDS})
        return residents

    def _clinic_contact(self, people: People) -> list[Person]:
        """Return patients whose clerk writes the phone number or e-mail address of the clinic."""
        fixed = self._random.choice(
            (
                {"patient_mobile_number": self._random.choice(self._clinic_phones)},
                {"patient_email_address": self._random.choice(self._clinic_emails)},
            )
        )
        town = dict(zip(ADDRESS_FIELDS[2:], self._random.choice(people.towns), strict=True))
        return [
            self._person(people, "patients of a clinic", **fixed, **town) for _ in range(self._random.randint(3, 10))
        ]

    _situations: dict[Callable[["LookalikeRegister", People], list[Person]], float] = {  # noqa: RUF012  # never changed
        _alone: 700,
        _namesakes: 40,
        _namesakes_of_other_days: 40,
        _twins: 50,
        _parent_and_child: 40,
        _siblings: 50,
        _cousins: 30,
        _institution: 6,
        _clinic_contact: 12,
    }

    # Errors of clerks, and what changes in the life of a person

    def _write(self, fields: Fields) -> Fields:
        clerk = self._random.choices(list(CLERKS), (40, 40, 20))[0]
        for name, share in CLERKS[clerk].items():
            if self._happens(share):
                fields[name] = None
        if fields.get("patient_identifiers") and self._happens(0.3):
            del fields["patient_identifiers"]
        if clerk == "hasty" and self._happens(0.2):
            for name in ("patient_first_name", "patient_last_name"):
                fields[name] = fields[name].upper()
        return {name: value for name, value in fields.items() if value is not None}

    def _again(self, person: Person) -> Fields:
        """Return another registration of a person, months or years earlier or later."""
        random, fields, people = self._random, dict(person.fields), person.people
        for change, chance in self._changes.items():
            if self._happens(chance):
                change(self, fields, people)
        for name, chance in (
            ("patient_first_name", 0.1),
            ("patient_last_name", 0.1),
            ("patient_physical_address", 0.2),
        ):
            if self._happens(chance) and can_have_errors(fields[name]):
                fields[name] = add_errors(fields[name], 1, random)
        return fields

    def _spell_otherwise(self, fields: Fields, people: People) -> None:
        spellings = {word: group for group in people.spellings for word in group}
        for name in ("patient_first_name", "patient_last_name"):
            words = [self._random.choice(spellings.get(word, [word])) for word in fields[name].split()]
            fields[name] = " ".join(words)

    def _use_short_form(self, fields: Fields, people: People) -> None:
        first = fields["patient_first_name"].split()[0]
        fields["patient_first_name"] = self._random.choice(people.short_forms.get(first, [first]))

    def _use_one_name(self, fields: Fields, _: People) -> None:
        fields["patient_first_name"] = fields["patient_first_name"].split()[0]

    def _use_initials(self, fields: Fields, _: People) -> None:
        fields["patient_first_name"] = " ".join(name[0] for name in fields["patient_first_name"].split())

    def _swap_names(self, fields: Fields, _: People) -> None:
        names = fields["patient_last_name"], fields["patient_first_name"]
        fields["patient_first_name"], fields["patient_last_name"] = names

    def _shorten_last_name(self, fields: Fields, people: People) -> None:
        particles, _, last = fields["patient_last_name"].rpartition(" ")
        if people is PEOPLE["Portuguese"]:
            other = people.last_names.draw(self._random)
            fields["patient_last_name"] = last if particles else f"{other} {last}"
        elif particles:
            fields["patient_last_name"] = f"{particles.replace(' ', '').title()} {last}"

    def _marry(self, fields: Fields, people: People) -> None:
        if fields["patient_gender"] == "Female" and people not in (PEOPLE["Somali"], PEOPLE["Chinese"]):
            last = people.last_names.draw(self._random)
            fields["patient_last_name"] = last if self._happens(0.75) else f"{fields['patient_last_name']}-{last}"

    def _move(self, fields: Fields, people: People) -> None:
        fields.update(self._home(people))

    def _change_phone(self, fields: Fields, people: People) -> None:
        fields["patient_mobile_number"] = people.phone(self._random)

    def _change_email(self, fields: Fields, _: People) -> None:
        fields["patient_email_address"] = self._email(fields)

    def _mistake_gender(self, fields: Fields, _: People) -> None:
        fields["patient_gender"] = {"Female": "Male", "Male": "Female"}[fields["patient_gender"]]

    def _mistake_date(self, fields: Fields, _: People) -> None:
        born = fields["patient_date_of_birth"]
        kind = self._random.choice(("swapped", "day", "month", "year", "1 January"))
        if kind == "swapped" and born.day <= MONTHS:
            born = date(born.year, born.day, born.month)
        elif kind == "day":
            born += timedelta(days=self._random.choice((-10, -1, 1, 10)))
        elif kind == "month":
            born = date(born.year, born.month % MONTHS + 1, min(born.day, 28))
        elif kind == "year":
            born = date(born.year + self._random.choice((-10, -1, 1)), born.month, min(born.day, 28))
        elif kind == "1 January":
            born = date(born.year, 1, 1)
        fields["patient_date_of_birth"] = min(born, REFERENCE_DATE)

    _changes: dict[Callable[["LookalikeRegister", Fields, People], None], float] = {  # noqa: RUF012  # never changed
        _marry: 0.07,
        _move: 0.3,
        _change_phone: 0.3,
        _change_email: 0.25,
        _spell_otherwise: 0.3,
        _use_short_form: 0.12,
        _use_one_name: 0.2,
        _use_initials: 0.03,
        _shorten_last_name: 0.1,
        _swap_names: 0.03,
        _mistake_gender: 0.01,
        _mistake_date: 0.1,
    }
