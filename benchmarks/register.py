"""A register of fictitious patients, as a clinic group in South Africa has them, which is reproducible by its seed."""

from bisect import bisect
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import accumulate
from random import Random
from typing import Generic, NamedTuple, TypeVar

from benchmarks.folding import fold_text
from benchmarks.names import ENGLISH_NAMES, POPULATIONS, Population
from benchmarks.towns import STREET_NAMES, STREET_TYPES, TOWNS

T = TypeVar("T")

HOSPITAL_COUNT = 200
DOCTOR_COUNT = 2000
REFERENCE_DATE = date(2026, 11, 1)
"""The fixed current date of the register, so that it is the same whenever it is created."""
REGISTER_START = datetime(2021, 11, 1, 6, tzinfo=UTC)
REGISTER_DURATION = timedelta(days=5 * 365)


class Profile(NamedTuple):
    """A row of the table `profiles`, with each value as text."""

    unique_id: str
    email: str | None
    first_name: str | None
    last_name: str | None
    date_created: str
    last_updated: str


class Patient(NamedTuple):
    """A row of the table `patients`, with each value as text."""

    unique_id: str
    profile_id: str | None
    patient_email_address: str | None
    patient_mobile_number: str | None
    patient_title: str | None
    patient_first_name: str | None
    patient_initials: str | None
    patient_last_name: str
    patient_date_of_birth: str | None
    patient_gender: str | None
    patient_race: str | None
    patient_physical_address: str | None
    patient_address_line_1: str | None
    patient_town: str | None
    patient_region: str | None
    patient_province: str | None
    patient_country: str | None
    patient_postal_code: str | None
    patient_latitude: str | None
    patient_longitude: str | None
    patient_access_medical_care: str | None
    date_created: str
    last_updated: str


class RegisteredPatient(NamedTuple):
    """A patient with everything that is written along with it."""

    patient: Patient
    profile: Profile | None
    """None if the patient has no profile, or shares another patient's, such as a parent's account."""
    hospital_ids: Sequence[str]
    doctor_ids: Sequence[str]


class _WeightedChoice(Generic[T]):
    """Draws items by their weights."""

    def __init__(self, weights: Iterable[tuple[T, float]]) -> None:
        pairs = list(weights)
        self._items = [item for item, _ in pairs]
        self._cumulative_weights = list(accumulate(weight for _, weight in pairs))

    def draw(self, random: Random) -> T:
        return self._items[bisect(self._cumulative_weights, random.random() * self._cumulative_weights[-1])]


def _zipf_choice(items: Iterable[T], rank_offset: float) -> _WeightedChoice[T]:
    """Return a choice with the first items drawn most often (Zipf's law); a greater `rank_offset` flattens it."""
    return _WeightedChoice((item, 1 / (rank + rank_offset)) for rank, item in enumerate(items))


_ENGLISH_FIRST_NAMES = {gender: _zipf_choice(names, 8) for gender, names in ENGLISH_NAMES.items()}


class _PopulationNames:
    """The name distributions of one population group."""

    def __init__(self, population: Population) -> None:
        self.race = population.race
        self.first_names = {
            "Female": _zipf_choice(population.female_names, 8),
            "Male": _zipf_choice(population.male_names, 8),
        }
        self.second_first_names = _ENGLISH_FIRST_NAMES if population.race == "Black African" else self.first_names
        self.last_names = _zipf_choice(population.last_names, 8)


_POPULATION_NAMES = _WeightedChoice((_PopulationNames(people), people.share) for people in POPULATIONS.values())
_GENDERS = _WeightedChoice([("Female", 52), ("Male", 46.5), ("Other", 0.5), ("Unknown", 1)])
_AGE_RANGES = _WeightedChoice(
    ((years, years + 10), weight)
    for years, weight in zip(range(0, 100, 10), (16, 13, 15, 17, 13, 10, 8, 5, 2.5, 0.5), strict=True)
)
_TOWNS = _WeightedChoice((place, place.population_thousands) for place in TOWNS)
_STREET_NAMES = _zipf_choice(STREET_NAMES, 4)
_MOBILE_SPELLINGS = _WeightedChoice(
    [
        ("0{0}{1}{2}", 45),
        ("0{0} {1} {2}", 22),
        ("+27{0}{1}{2}", 14),
        ("+27 {0} {1} {2}", 10),
        ("0{0}-{1}-{2}", 4),
        ("(0{0}) {1}-{2}", 2),
        ("+27 (0){0} {1} {2}", 1),
        ("27{0}{1}{2}", 1),
        ("0{0}.{1}.{2}", 1),
    ]
)
_MOBILE_NETWORKS = ("60", "61", "62", "63", "71", "72", "73", "74", "76", "78", "79", "81", "82", "83", "84")
_EMAIL_FORMS = ("{0}.{1}", "{0}{1}", "{1}.{0}", "{0}_{1}")
_EMAIL_DOMAINS = ("example.com", "example.org", "example.net", "mail.example.com", "post.example.org")
_HOSPITAL_TYPES = ("Provincial Hospital", "District Hospital", "Clinic", "Day Hospital", "Medi-Care Centre")

_BASE32 = "0123456789abcdefghjkmnpqrstvwxyz"
_BASE32_PAIRS = [first + second for first in _BASE32 for second in _BASE32]


def _identifier_at(prefix: str, timestamp: datetime, random: Random) -> str:
    """Return an id in the service's format (`app.identifiers`) for a given time."""
    number = int(timestamp.timestamp() * 1000) << 80 | random.getrandbits(80)
    return prefix + "".join([_BASE32_PAIRS[number >> shift & 1023] for shift in range(120, -1, -10)])


def _ascii_letters(name: str) -> str:
    """Return a name in the form used in an e-mail address."""
    return "".join(character for character in fold_text(name) if "a" <= character <= "z")


def hospital_names() -> dict[str, str]:
    """Return the hospitals' names by their ids."""
    random = Random(HOSPITAL_COUNT)
    towns = _zipf_choice((place.name for place in TOWNS), 20)
    return {
        f"hos{number:03d}": f"{towns.draw(random)} {random.choice(_HOSPITAL_TYPES)} {number}"
        for number in range(1, HOSPITAL_COUNT + 1)
    }


def doctor_names() -> dict[str, tuple[str, str]]:
    """Return the doctors' first and last names by their ids."""
    random = Random(DOCTOR_COUNT)
    names_by_id = {}
    for number in range(1, DOCTOR_COUNT + 1):
        names = _POPULATION_NAMES.draw(random)
        gender = random.choice(("Female", "Male"))
        names_by_id[f"doc{number:04d}"] = (names.first_names[gender].draw(random), names.last_names.draw(random))
    return names_by_id


class _RegisterGenerator:
    """Draws one patient after another."""

    def __init__(self, count: int, seed: int) -> None:
        self._random = Random(seed)
        self._step = REGISTER_DURATION / count
        self._hospitals = _zipf_choice(hospital_names(), 40)
        self._doctors = _zipf_choice(doctor_names(), 400)
        self._ascii_names: dict[str, str] = {}

    def patients(self, count: int) -> Iterator[RegisteredPatient]:
        parent: Profile | None = None
        for number in range(count):
            registered = self._patient(REGISTER_START + self._step * (number + self._random.random()), parent)
            parent = registered.profile  # families register together
            yield registered

    def _patient(self, created: datetime, parent: Profile | None) -> RegisteredPatient:
        random = self._random
        names = _POPULATION_NAMES.draw(random)
        gender = _GENDERS.draw(random)
        first, last = self._name(names, gender)
        birth_date = self._date_of_birth(created)
        email = self._email(first, last, birth_date)
        town = _TOWNS.draw(random)
        age = REFERENCE_DATE.year - birth_date.year
        timestamps = self._timestamps(created)
        profile, profile_id = self._profile(created, (email, first, last, *timestamps), parent if age < 18 else None)
        has_details = random.random() < 0.8
        patient = Patient(
            unique_id=_identifier_at("pat_", created, random),
            profile_id=profile_id,
            patient_email_address=email,
            patient_mobile_number=self._mobile() if random.random() < 0.9 else None,
            patient_title=self._title(gender, age),
            patient_first_name=first,
            patient_initials="".join([name[0] for name in first.replace("-", " ").split()]) if first else None,
            patient_last_name=last,
            patient_date_of_birth=birth_date.isoformat() if random.random() < 0.985 else None,
            patient_gender=gender,
            patient_race=names.race if random.random() < 0.9 else None,
            patient_physical_address=self._street() if has_details else None,
            patient_address_line_1=f"Flat {random.randint(1, 90)}" if random.random() < 0.2 else None,
            patient_town=town.name,
            patient_region=town.region if has_details else None,
            patient_province=town.province,
            patient_country=town.country,
            patient_postal_code=town.postal_code,
            patient_latitude=f"{town.latitude + random.gauss(0, 0.04):.6f}" if has_details else None,
            patient_longitude=f"{town.longitude + random.gauss(0, 0.04):.6f}" if has_details else None,
            patient_access_medical_care="Private" if random.random() < 0.18 else "Public",
            date_created=timestamps[0],
            last_updated=timestamps[1],
        )
        return RegisteredPatient(
            patient, profile, self._draw_one_or_two(self._hospitals), self._draw_one_or_two(self._doctors)
        )

    def _name(self, names: _PopulationNames, gender: str) -> tuple[str | None, str]:
        random = self._random
        if gender not in names.first_names:
            gender = random.choice(("Female", "Male"))
        last = names.last_names.draw(random)
        chance = random.random()
        if chance < 0.005:
            return None, last
        first = names.first_names[gender].draw(random)
        if chance < 0.2:
            first = f"{first} {names.second_first_names[gender].draw(random)}"
        elif chance < 0.28:
            first = names.second_first_names[gender].draw(random)
        if chance > 0.98:
            last = f"{last}-{names.last_names.draw(random)}"
        return first, last

    def _date_of_birth(self, created: datetime) -> date:
        """Return a date of birth before the registration."""
        min_age, max_age = _AGE_RANGES.draw(self._random)
        days = int((min_age + (max_age - min_age) * self._random.random()) * 365.25)
        return created.date() - timedelta(days=days)

    def _email(self, first: str | None, last: str, birth_date: date) -> str | None:
        random = self._random
        if first is None or random.random() < 0.4:
            return None
        parts = [self._cached_ascii_letters(name) for name in (first, last)]
        number = str(birth_date.year % 100) if random.random() < 0.5 else ""
        return f"{random.choice(_EMAIL_FORMS).format(*parts)}{number}@{random.choice(_EMAIL_DOMAINS)}"

    def _cached_ascii_letters(self, name: str) -> str:
        ascii_name = self._ascii_names.get(name)
        if ascii_name is None:
            ascii_name = self._ascii_names[name] = _ascii_letters(name)
        return ascii_name

    def _mobile(self) -> str:
        random = self._random
        digits = f"{random.getrandbits(32) % 10**7:07d}"
        return _MOBILE_SPELLINGS.draw(random).format(random.choice(_MOBILE_NETWORKS), digits[:3], digits[3:])

    def _title(self, gender: str, age: int) -> str | None:
        chance = self._random.random()
        if age < 16 or chance < 0.15:
            return None
        if chance < 0.17:
            return "Dr."
        if chance < 0.175:
            return "Prof."
        if gender == "Male":
            return "Mr."
        return ("Ms." if chance < 0.5 else "Mrs.") if gender == "Female" else None

    def _street(self) -> str:
        random = self._random
        return f"{random.randint(1, 400)} {_STREET_NAMES.draw(random)} {random.choice(STREET_TYPES)}"

    def _timestamps(self, created: datetime) -> tuple[str, str]:
        random = self._random
        updated = created
        if random.random() < 0.4:
            updated += (REGISTER_START + REGISTER_DURATION - created) * random.random()
        return created.isoformat(), updated.isoformat()

    def _profile(
        self, created: datetime, values: tuple[str | None, str | None, str, str, str], parent: Profile | None
    ) -> tuple[Profile | None, str | None]:
        chance = self._random.random()
        if chance < 0.12:
            return None, None
        if chance < 0.3 and parent is not None:
            return None, parent.unique_id
        profile = Profile(_identifier_at("prof_", created, self._random), *values)
        return profile, profile.unique_id

    def _draw_one_or_two(self, choice: _WeightedChoice[str]) -> Sequence[str]:
        first = choice.draw(self._random)
        second = choice.draw(self._random)
        return (first,) if self._random.random() < 0.5 or first == second else (first, second)


def generate_patients(count: int, seed: int = 1) -> Iterator[RegisteredPatient]:
    """Generate `count` patients in the order of their ids, registered over five years."""
    return _RegisterGenerator(count, seed).patients(count)
