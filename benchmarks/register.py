"""A register of fictitious patients as a clinic group in South Africa has them; the same again for the same seed."""

from bisect import bisect
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import accumulate
from random import Random
from typing import Generic, NamedTuple, TypeVar

from benchmarks.folding import folded
from benchmarks.names import ENGLISH_NAMES, PEOPLES, People
from benchmarks.places import PLACES, STREET_KINDS, STREETS

T = TypeVar("T")

HOSPITALS = 200
DOCTORS = 2000
TODAY = date(2026, 11, 1)
"""The register's own: a register that is made tomorrow is the same."""
OPENED = datetime(2021, 11, 1, 6, tzinfo=UTC)
OPEN_FOR = timedelta(days=5 * 365)


class Profile(NamedTuple):
    """A row of the table `profiles`, each value as text."""

    unique_id: str
    email: str | None
    first_name: str | None
    last_name: str | None
    date_created: str
    last_updated: str


class Patient(NamedTuple):
    """A row of the table `patients`, each value as text."""

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


class Registered(NamedTuple):
    """A patient with everything that is written along with it."""

    patient: Patient
    profile: Profile | None
    """None where there is none, or another patient's: a parent's account."""
    hospital_ids: Sequence[str]
    doctor_ids: Sequence[str]


class _Lot(Generic[T]):
    """Something to draw, some of it more often."""

    def __init__(self, weights: Iterable[tuple[T, float]]) -> None:
        pairs = list(weights)
        self._items = [item for item, _ in pairs]
        self._sums = list(accumulate(weight for _, weight in pairs))

    def draw(self, random: Random) -> T:
        return self._items[bisect(self._sums, random.random() * self._sums[-1])]


def _ranked(items: Iterable[T], head: float) -> _Lot[T]:
    """A lot in which the first are drawn most often, as in Zipf's law; the less so, the greater `head`."""
    return _Lot((item, 1 / (rank + head)) for rank, item in enumerate(items))


_ENGLISH = {gender: _ranked(names, 8) for gender, names in ENGLISH_NAMES.items()}


class _Names:
    """The lots of one people."""

    def __init__(self, people: People) -> None:
        self.race = people.race
        self.first = {"Female": _ranked(people.female, 8), "Male": _ranked(people.male, 8)}
        self.second = _ENGLISH if people.race == "Black African" else self.first
        self.last = _ranked(people.last, 8)


_NAMES = _Lot((_Names(people), people.share) for people in PEOPLES.values())
_GENDERS = _Lot([("Female", 52), ("Male", 46.5), ("Other", 0.5), ("Unknown", 1)])
_AGES = _Lot(
    ((years, years + 10), weight)
    for years, weight in zip(range(0, 100, 10), (16, 13, 15, 17, 13, 10, 8, 5, 2.5, 0.5), strict=True)
)
_PLACES = _Lot((place, place.thousands) for place in PLACES)
_STREETS = _ranked(STREETS, 4)
_MOBILE_SPELLINGS = _Lot(
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
_HOSPITAL_KINDS = ("Provincial Hospital", "District Hospital", "Clinic", "Day Hospital", "Medi-Care Centre")

_BASE32 = "0123456789abcdefghjkmnpqrstvwxyz"
_PAIRS = [first + second for first in _BASE32 for second in _BASE32]


def _identifier(prefix: str, moment: datetime, random: Random) -> str:
    """An id as the service makes them (`app.resource.identifiers`), but of a given moment."""
    number = int(moment.timestamp() * 1000) << 80 | random.getrandbits(80)
    return prefix + "".join([_PAIRS[number >> shift & 1023] for shift in range(120, -1, -10)])


def _plain(name: str) -> str:
    """A name as it stands in an e-mail address."""
    return "".join(character for character in folded(name) if "a" <= character <= "z")


def hospitals() -> dict[str, str]:
    """The hospitals' names by their ids."""
    random = Random(HOSPITALS)
    lot = _ranked((place.town for place in PLACES), 20)
    return {
        f"hos{number:03d}": f"{lot.draw(random)} {random.choice(_HOSPITAL_KINDS)} {number}"
        for number in range(1, HOSPITALS + 1)
    }


def doctors() -> dict[str, tuple[str, str]]:
    """The doctors' first and last names by their ids."""
    random = Random(DOCTORS)
    found = {}
    for number in range(1, DOCTORS + 1):
        names = _NAMES.draw(random)
        gender = random.choice(("Female", "Male"))
        found[f"doc{number:04d}"] = (names.first[gender].draw(random), names.last.draw(random))
    return found


class _Register:
    """Draws one patient after another."""

    def __init__(self, count: int, seed: int) -> None:
        self._random = Random(seed)
        self._step = OPEN_FOR / count
        self._hospitals = _ranked(hospitals(), 40)
        self._doctors = _ranked(doctors(), 400)
        self._plain: dict[str, str] = {}

    def patients(self, count: int) -> Iterator[Registered]:
        parent: Profile | None = None
        for number in range(count):
            registered = self._patient(OPENED + self._step * (number + self._random.random()), parent)
            parent = registered.profile  # families come together
            yield registered

    def _patient(self, created: datetime, parent: Profile | None) -> Registered:
        random = self._random
        names = _NAMES.draw(random)
        gender = _GENDERS.draw(random)
        first, last = self._name(names, gender)
        born = self._date_of_birth(created)
        email = self._email(first, last, born)
        place = _PLACES.draw(random)
        age = TODAY.year - born.year
        moments = self._moments(created)
        profile, profile_id = self._profile(created, (email, first, last, *moments), parent if age < 18 else None)
        detailed = random.random() < 0.8
        patient = Patient(
            unique_id=_identifier("pat_", created, random),
            profile_id=profile_id,
            patient_email_address=email,
            patient_mobile_number=self._mobile() if random.random() < 0.9 else None,
            patient_title=self._title(gender, age),
            patient_first_name=first,
            patient_initials="".join([name[0] for name in first.replace("-", " ").split()]) if first else None,
            patient_last_name=last,
            patient_date_of_birth=born.isoformat() if random.random() < 0.985 else None,
            patient_gender=gender,
            patient_race=names.race if random.random() < 0.9 else None,
            patient_physical_address=self._street() if detailed else None,
            patient_address_line_1=f"Flat {random.randint(1, 90)}" if random.random() < 0.2 else None,
            patient_town=place.town,
            patient_region=place.region if detailed else None,
            patient_province=place.province,
            patient_country=place.country,
            patient_postal_code=place.postal_code,
            patient_latitude=f"{place.latitude + random.gauss(0, 0.04):.6f}" if detailed else None,
            patient_longitude=f"{place.longitude + random.gauss(0, 0.04):.6f}" if detailed else None,
            patient_access_medical_care="Private" if random.random() < 0.18 else "Public",
            date_created=moments[0],
            last_updated=moments[1],
        )
        return Registered(patient, profile, self._one_or_two(self._hospitals), self._one_or_two(self._doctors))

    def _name(self, names: _Names, gender: str) -> tuple[str | None, str]:
        random = self._random
        if gender not in names.first:
            gender = random.choice(("Female", "Male"))
        last = names.last.draw(random)
        chance = random.random()
        if chance < 0.005:
            return None, last
        first = names.first[gender].draw(random)
        if chance < 0.2:
            first = f"{first} {names.second[gender].draw(random)}"
        elif chance < 0.28:
            first = names.second[gender].draw(random)
        if chance > 0.98:
            last = f"{last}-{names.last.draw(random)}"
        return first, last

    def _date_of_birth(self, created: datetime) -> date:
        """Nobody is registered before birth."""
        least, most = _AGES.draw(self._random)
        days = int((least + (most - least) * self._random.random()) * 365.25)
        return created.date() - timedelta(days=days)

    def _email(self, first: str | None, last: str, born: date) -> str | None:
        random = self._random
        if first is None or random.random() < 0.4:
            return None
        parts = [self._cached_plain(name) for name in (first, last)]
        number = str(born.year % 100) if random.random() < 0.5 else ""
        return f"{random.choice(_EMAIL_FORMS).format(*parts)}{number}@{random.choice(_EMAIL_DOMAINS)}"

    def _cached_plain(self, name: str) -> str:
        plain = self._plain.get(name)
        if plain is None:
            plain = self._plain[name] = _plain(name)
        return plain

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
        return f"{random.randint(1, 400)} {_STREETS.draw(random)} {random.choice(STREET_KINDS)}"

    def _moments(self, created: datetime) -> tuple[str, str]:
        random = self._random
        updated = created
        if random.random() < 0.4:
            updated += (OPENED + OPEN_FOR - created) * random.random()
        return created.isoformat(), updated.isoformat()

    def _profile(
        self, created: datetime, values: tuple[str | None, str | None, str, str, str], parent: Profile | None
    ) -> tuple[Profile | None, str | None]:
        chance = self._random.random()
        if chance < 0.12:
            return None, None
        if chance < 0.3 and parent is not None:
            return None, parent.unique_id
        profile = Profile(_identifier("prof_", created, self._random), *values)
        return profile, profile.unique_id

    def _one_or_two(self, lot: _Lot[str]) -> Sequence[str]:
        first = lot.draw(self._random)
        second = lot.draw(self._random)
        return (first,) if self._random.random() < 0.5 or first == second else (first, second)


def patients(count: int, seed: int = 1) -> Iterator[Registered]:
    """Draw `count` patients in the order of their ids, registered over five years."""
    return _Register(count, seed).patients(count)
