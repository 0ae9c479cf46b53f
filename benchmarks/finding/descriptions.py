"""Descriptions that staff at a front desk type for a patient, each with the facts that it is true about."""

from collections.abc import Callable, Mapping, Sequence
from datetime import date, timedelta
from random import Random
from typing import NamedTuple

from benchmarks.finding import queries
from benchmarks.finding.facts import SHORT_FORMS, Fact, Facts, name_facts
from benchmarks.finding.typos import MAX_ERROR_FREE_LENGTH, add_errors, can_have_errors, folded_words
from benchmarks.folding import fold_text
from benchmarks.names import ENGLISH_NAMES, POPULATIONS
from benchmarks.register import Patient, RegisteredPatient, doctor_names, hospital_names


class Description(NamedTuple):
    """A text that describes a patient."""

    text: str
    facts: Sequence[Fact]
    """What is true about the patient. Patients about whom all of it is true cannot be told apart."""
    as_typed: Sequence[Fact] = ()
    """What is typed, if it is not true, such as another date. The patient cannot be told apart from one who has it."""


class Subject:
    """The patient to describe, and the chance that decides how."""

    def __init__(self, registered: RegisteredPatient, facts: Facts, random: Random) -> None:
        self.registered, self.facts, self.random = registered, facts, random
        self.patient: Patient = registered.patient
        self.first = self.patient.patient_first_name or ""
        self.last = self.patient.patient_last_name
        self.name = f"{self.first} {self.last}".strip()

    @property
    def names(self) -> list[Fact]:
        return name_facts(self.name)

    @property
    def born(self) -> date | None:
        written = self.patient.patient_date_of_birth
        return date.fromisoformat(written) if written else None

    def misspell(self, text: str, count: int = 1) -> str | None:
        has_room = any(len(word) > count + MAX_ERROR_FREE_LENGTH for word in folded_words(text))
        return add_errors(text, count, self.random) if has_room else None


Describe = Callable[[Subject], Description | None]
"""Returns a description, or None if the patient lacks what it needs."""

HOSPITAL_NAMES, DOCTOR_NAMES = hospital_names(), doctor_names()
MONTHS = [date(2000, month, 1).strftime("%B") for month in range(1, 13)]
AFRIKAANS_MONTHS = [
    *("Januarie", "Februarie", "Maart", "April", "Mei", "Junie"),
    *("Julie", "Augustus", "September", "Oktober", "November", "Desember"),
]
SOUND_ALIKE_LETTERS = (
    *(("ph", "f"), ("f", "ph"), ("ck", "k"), ("c", "k"), ("k", "c"), ("th", "t"), ("y", "i"), ("i", "y")),
    *(("ei", "ai"), ("ey", "ay"), ("ll", "l"), ("mm", "m"), ("nn", "n"), ("ss", "s"), ("tt", "t"), ("w", "v")),
    *(("ie", "y"), ("ou", "u"), ("oo", "u"), ("sch", "sh"), ("hl", "shl"), ("dt", "t"), ("ae", "e"), ("z", "s")),
)
OTHER_LAST_NAMES = POPULATIONS["Zulu"].last_names + POPULATIONS["English"].last_names


def _plain(template: str, *kinds: str) -> Describe:
    """Return descriptions of the form of `template`, with the names, and the patient's fields of the facts' kinds."""

    def describe(subject: Subject) -> Description | None:
        values = {
            "first": subject.first,
            "last": subject.last,
            "name": subject.name,
            "upper": subject.name.upper(),
            "town": subject.patient.patient_town,
            "region": subject.patient.patient_region,
            "province": subject.patient.patient_province,
            "street": (subject.patient.patient_physical_address or "").partition(" ")[2] or None,
            "address": subject.patient.patient_physical_address,
            "code": subject.patient.patient_postal_code,
            "hospital": HOSPITAL_NAMES[subject.registered.hospital_ids[0]],
            "hospital_id": subject.registered.hospital_ids[0],
            "doctor": DOCTOR_NAMES[subject.registered.doctor_ids[0]][1],
            "gender": (subject.patient.patient_gender or "")[:1] or None,
            "gender_word": (subject.patient.patient_gender or "").lower() or None,
        }
        if not subject.first or any(value is None and f"{{{name}" in template for name, value in values.items()):
            return None
        if "{gender" in template and values["gender"] not in ("M", "F"):
            return None
        own = {
            "town": values["town"],
            "region": values["region"],
            "province": values["province"],
            "street": values["street"],
            "postal code": values["code"],
            "hospital": subject.registered.hospital_ids[0],
            "doctor": subject.registered.doctor_ids[0],
            "gender": subject.patient.patient_gender,
        }
        names = (
            name_facts(subject.last)
            if "{name" not in template and "{first" not in template and "{upper" not in template
            else subject.names
        )
        text = template.format(**values)
        return Description(text, [*names, *(Fact(kind, str(own[kind])) for kind in kinds)])

    return describe


def _dated(template: str, *, names: str = "last", kind: str = "date of birth") -> Describe:
    """Return descriptions with the date of birth in the form of `template`."""

    def describe(subject: Subject) -> Description | None:
        born = subject.born
        if born is None or not subject.first:
            return None
        today = date.today()  # noqa: DTZ011  # as the person at the desk counts
        age = today.year - born.year - ((today.month, today.day) < (born.month, born.day))
        if "{age" in template and age < 2:  # noqa: PLR2004  # a baby's age is told in months
            return None
        if "%y" in template and born.year < 1927:  # noqa: PLR2004  # two digits mean another century
            return None
        if "month first" in kind and born.day <= 12:  # noqa: PLR2004  # the day is first if it can be a month
            return None
        values = {"month": MONTHS[born.month - 1], "maand": AFRIKAANS_MONTHS[born.month - 1], "age": age}
        text = born.strftime(template.format(**values, names=getattr(subject, names)))
        value = {"date of birth": 10, "month of birth": 7, "year of birth": 4}
        fact_kind = kind.partition(",")[0]
        fact = Fact(fact_kind, born.isoformat()[: value[fact_kind]])
        return Description(text, [*(name_facts(getattr(subject, names)) if "{names}" in template else []), fact])

    return describe


def _wrong_date(change: Callable[[date, Random], date | None]) -> Describe:
    def describe(subject: Subject) -> Description | None:
        born = subject.born
        other = born and change(born, subject.random)
        if born is None or other is None or other == born or not subject.first:
            return None
        text = f"{subject.name} {other:%d/%m/%Y}"
        facts = [*subject.names, Fact("date of birth", born.isoformat())]
        return Description(text, facts, [*subject.names, Fact("date of birth", other.isoformat())])

    return describe


def _another_day(born: date, random: Random) -> date | None:
    return born.replace(day=random.choice([day for day in range(1, 29) if day != born.day]))


def _swapped(born: date, _random: Random) -> date | None:
    return born.replace(month=born.day, day=born.month) if born.day <= 12 else None  # noqa: PLR2004  # months


def _another_year(born: date, random: Random) -> date | None:
    digits = list(str(born.year))
    at = random.choice((2, 3))
    digits[at] = random.choice([digit for digit in "0123456789" if digit != digits[at]])
    year = int("".join(digits))
    return born.replace(year=year) if year <= 2026 and (born.month, born.day) != (2, 29) else None  # noqa: PLR2004


def _wrong_names_right_date(subject: Subject) -> Description | None:
    born = subject.born
    if born is None or not subject.first:
        return None
    first, last = subject.misspell(subject.first.split()[0], 2), subject.misspell(subject.last, 2)
    if first is None or last is None:
        return None
    return Description(f"{first} {last} {born:%d/%m/%Y}", [Fact("date of birth", born.isoformat()), *subject.names])


def _misspelled(count: int) -> Describe:
    def describe(subject: Subject) -> Description | None:
        text = subject.misspell(subject.name, count) if subject.first else None
        return Description(text, subject.names, name_facts(text)) if text else None

    return describe


def _misspelled_last(subject: Subject) -> Description | None:
    text = subject.misspell(subject.last, 2) if len(subject.last) > 5 else None  # noqa: PLR2004  # letters
    return Description(f"{subject.first} {text}", subject.names) if text and subject.first else None


def _misspelled_both(subject: Subject) -> Description | None:
    first, last = subject.misspell(subject.first) if subject.first else None, subject.misspell(subject.last)
    return Description(f"{first} {last}", subject.names, name_facts(f"{first} {last}")) if first and last else None


def _short_form(subject: Subject) -> Description | None:
    short = SHORT_FORMS.get(subject.first)
    if short is None or subject.facts.count_patients([*name_facts(subject.last), Fact("short form", short)]) > 1:
        return None
    return Description(f"{short} {subject.last}", subject.names, name_facts(f"{short} {subject.last}"))


def _long_form(subject: Subject) -> Description | None:
    forms = [name for name, short in SHORT_FORMS.items() if short == subject.first]
    text = f"{forms[0]} {subject.last}" if forms else None
    return Description(text, subject.names, name_facts(text)) if text else None


def _sound_alike(subject: Subject) -> Description | None:
    plain = fold_text(subject.name)
    changes = [(old, new) for old, new in SOUND_ALIKE_LETTERS if old in plain]
    if not subject.first or len(changes) < 2:  # noqa: PLR2004  # one is a typing error
        return None
    text = plain
    for old, new in subject.random.sample(changes, 2):
        text = text.replace(old, new, 1)
    return Description(text, subject.names, name_facts(text)) if folded_words(text) != folded_words(plain) else None


def _in_one_word(subject: Subject) -> Description | None:
    return (
        Description(fold_text(f"{subject.first}{subject.last}").replace(" ", ""), subject.names)
        if (
            subject.first and len(subject.name.split()) == 2  # noqa: PLR2004  # words
        )
        else None
    )


def _last_name_joined(subject: Subject) -> Description | None:
    if " " not in subject.last or not subject.first:
        return None
    return Description(f"{subject.first} {subject.last.replace(' ', '')}", subject.names)


def _last_name_split(subject: Subject) -> Description | None:
    if len(subject.last) < 6 or not subject.last.isalpha() or not subject.first:  # noqa: PLR2004  # letters
        return None
    at = subject.random.randint(2, len(subject.last) - 3)
    return Description(f"{subject.first} {subject.last[:at]} {subject.last[at:]}", subject.names)


def _first_names_joined(subject: Subject) -> Description | None:
    return (
        Description(f"{subject.first.replace(' ', '').replace('-', '')} {subject.last}", subject.names)
        if " " in subject.first or "-" in subject.first
        else None
    )


def _van_der(spelling: str) -> Describe:
    def describe(subject: Subject) -> Description | None:
        if not subject.last.lower().startswith("van der ") or not subject.first:
            return None
        return Description(f"{subject.first} {spelling}{subject.last[8:]}", subject.names)

    return describe


def _without_accents(subject: Subject) -> Description | None:
    plain = fold_text(subject.name)
    return Description(plain, subject.names) if subject.first and plain != subject.name.lower() else None


def _with_more(template: str) -> Describe:
    """Return descriptions with a name that the record lacks."""

    def describe(subject: Subject) -> Description | None:
        if not subject.first or " " in subject.first:
            return None
        other = subject.random.choice([name for name in OTHER_LAST_NAMES if name != subject.last])
        english = subject.random.choice(
            ENGLISH_NAMES["Female" if subject.patient.patient_gender == "Female" else "Male"]
        )
        values = {"first": subject.first, "last": subject.last, "other": other, "english": english, "letter": other[0]}
        kept = (subject.first, english if "{english}" in template else other, subject.last)
        # without one of the names, the text describes another patient as well
        as_typed = name_facts(f"{kept[0]} {kept[1]}" if "{other}" in template else f"{kept[1]} {kept[2]}")
        return Description(template.format(**values), subject.names, as_typed if "{letter}" not in template else ())

    return describe


def _beginnings(subject: Subject) -> Description | None:
    born = subject.born
    if born is None or len(subject.first) < 4 or len(subject.last) < 4:  # noqa: PLR2004  # letters
        return None
    text = f"{subject.first[:3].strip()} {subject.last[:3].strip()} {born:%d/%m/%Y}"
    return Description(text, [Fact("date of birth", born.isoformat()), Fact("initial", fold_text(subject.first[0]))])


def _initial(subject: Subject) -> Description | None:
    born = subject.born
    if born is None or not subject.first:
        return None
    facts = [
        *name_facts(subject.last),
        Fact("initial", fold_text(subject.first[0])),
        Fact("date of birth", born.isoformat()),
    ]
    return Description(f"{subject.first[0]} {subject.last} {born:%Y-%m-%d}", facts)


def _many_words(subject: Subject) -> Description | None:
    if not subject.first or subject.patient.patient_region is None:
        return None
    hospital = HOSPITAL_NAMES[subject.registered.hospital_ids[0]]
    text = f"{subject.name} {subject.patient.patient_town} {subject.patient.patient_region} {hospital} patient file"
    return Description(text, [*subject.names, Fact("town", subject.patient.patient_town or "")])


def _mobile(template: str, *, fact_kind: str = "mobile", with_name: bool = True) -> Describe:
    """Return descriptions with a mobile number, of which `d` are the nine national digits."""

    def describe(subject: Subject) -> Description | None:
        stored = subject.patient.patient_mobile_number
        if stored is None or not subject.first:
            return None
        d = queries.national_number(stored)
        at = subject.random.randint(2, 8)
        wrong = d[:at] + subject.random.choice([digit for digit in "0123456789" if digit != d[at]]) + d[at + 1 :]
        swap = subject.random.randint(2, 7)
        swapped = d[:swap] + d[swap + 1] + d[swap] + d[swap + 2 :]
        other = f"08{subject.random.randint(1, 4)}{subject.random.randint(0, 9_999_999):07}"
        text = template.format(d=d, wrong=wrong, swapped=swapped, other=other, name=subject.name, last=subject.last)
        value = {"mobile": d, "last four": d[-4:], "last six": d[-6:]}[fact_kind]
        names = subject.names if "{name" in template else name_facts(subject.last) if with_name else []
        return Description(text, [*names, Fact(fact_kind, value)])

    return describe


def _other_spelling(subject: Subject) -> Description | None:
    text = queries.reformatted_mobile(subject.patient, subject.random)
    stored = subject.patient.patient_mobile_number or ""
    return Description(text, [Fact("mobile", queries.national_number(stored))]) if text else None


def _id(template: str, *, part: str = "whole") -> Describe:
    def describe(subject: Subject) -> Description | None:
        unique_id = subject.patient.unique_id
        shown = {"whole": unique_id, "beginning": unique_id[:20], "ending": unique_id[-8:]}[part]
        text = template.format(id=shown, upper=shown.upper(), last=subject.last)
        return Description(text, [Fact("id", unique_id)])

    return describe


def _email(change: Callable[[str, Random], str], kind: str = "email") -> Describe:
    def describe(subject: Subject) -> Description | None:
        email = subject.patient.patient_email_address
        if email is None:
            return None
        value = email.lower() if kind == "email" else email.lower().partition("@")[0]
        return Description(change(email, subject.random), [Fact(kind, value)])

    return describe


def _misspelled_email(email: str, random: Random) -> str:
    local_part, _, domain = email.partition("@")
    return f"{add_errors(local_part, 1, random)}@{domain}" if can_have_errors(local_part) else email.upper()


def _profile(template: str) -> Describe:
    """Return descriptions of a patient by the account that it shares, such as a parent's."""

    def describe(subject: Subject) -> Description | None:
        profile = subject.facts.profiles.get(subject.patient.profile_id or "")
        if profile is None or subject.registered.profile is not None or not subject.first:
            return None
        if not profile.first_name or not profile.email:
            return None
        text = template.format(
            first=subject.first,
            last=profile.last_name,
            email=profile.email,
            parent=f"{profile.first_name} {profile.last_name}",
        )
        own = [] if "{first" not in template else name_facts(subject.first)
        shared = (
            [Fact("profile email", profile.email.lower())]
            if "{email" in template
            else [Fact("profile word", word) for word in folded_words(f"{profile.first_name} {profile.last_name}")]
        )
        return Description(text, [*own, *shared])

    return describe


def _title(template: str) -> Describe:
    return _plain(template)


DESCRIPTIONS: Mapping[str, Describe] = {
    "first and last name": _plain("{name}"),
    "last name, first name": _plain("{last}, {first}"),
    "all capitals": _plain("{upper}"),
    "without accents": _without_accents,
    "title and name": _title("Mrs {name}"),
    "Afrikaans title and name": _title("Mev. {name}"),
    "title and last name": _plain("Mr {last}"),
    "name and jnr": _title("{name} jnr"),
    "Prof and name": _title("Prof {name}"),
    "baby of": _title("b/o {name}"),
    "short form": _short_form,
    "name for a short form": _long_form,
    "sounds alike": _sound_alike,
    "first and last name in one word": _in_one_word,
    "last name in one word": _last_name_joined,
    "last name in two words": _last_name_split,
    "first names in one word": _first_names_joined,
    "vd": _van_der("vd "),
    "v/d": _van_der("v/d "),
    "vd in one word": _van_der("vd"),
    "an initial more": _with_more("{first} {letter} {last}"),
    "a first name more": _with_more("{first} {english} {last}"),
    "a second last name": _with_more("{first} {last} {other}"),
    "a second last name, hyphenated": _with_more("{first} {last}-{other}"),
    "one error": _misspelled(1),
    "two errors": _misspelled(2),
    "two errors, one in each name": _misspelled_both,
    "two errors in the last name": _misspelled_last,
    "three letters of both names and date of birth": _beginnings,
    "initial, last name and date of birth": _initial,
    "nine or more words": _many_words,
    "name and town": _plain("{name} {town}", "town"),
    "town and last name": _plain("{town} {last}", "town"),
    "name and region": _plain("{name} {region}", "region"),
    "name and province": _plain("{name} {province}", "province"),
    "name and street": _plain("{name} {street}", "street"),
    "name and address": _plain("{name}, {address}, {town}", "street", "town"),
    "name and postal code": _plain("{name} {code}", "postal code"),
    "name and hospital": _plain("{name} {hospital}", "hospital"),
    "name and hospital id": _plain("{name} {hospital_id}", "hospital"),
    "name and doctor": _plain("{name} dr {doctor}", "doctor"),
    "name and gender letter": _plain("{name} {gender}", "gender"),
    "name and gender": _plain("{name} {gender_word}", "gender"),
    "name label": _plain("name: {first} surname: {last}"),
    "17/05/1990": _dated("{names} %d/%m/%Y"),
    "17/05/90": _dated("{names} %d/%m/%y"),
    "17.5.1990": _dated("%-d.%-m.%Y {names}"),
    "1990-05-17": _dated("{names} %Y-%m-%d"),
    "17 May 1990": _dated("{names} %-d {month} %Y"),
    "17 Mei 1990": _dated("{names} %-d {maand} %Y"),
    "May 17, 1990": _dated("{names} {month} %-d, %Y"),
    "17 05 1990": _dated("{names} %d %m %Y"),
    "17051990": _dated("{names} %d%m%Y"),
    "19900517": _dated("{names} %Y%m%d"),
    "05/17/1990": _dated("{names} %m/%d/%Y", kind="date of birth, month first"),
    "dob and date": _dated("{names} dob: %d/%m/%Y"),
    "date alone": _dated("%d/%m/%Y", names="name"),
    "name and year": _dated("{names} %Y", names="name", kind="year of birth"),
    "name, born and year": _dated("{names} born %Y", names="name", kind="year of birth"),
    "name and 05/1990": _dated("{names} %m/%Y", names="name", kind="month of birth"),
    "name and May 1990": _dated("{names} {month} %Y", names="name", kind="month of birth"),
    "name and 45 years": _dated("{names} {age} years", names="name"),
    "name and 45y": _dated("{names} {age}y", names="name"),
    "another day": _wrong_date(_another_day),
    "day and month swapped": _wrong_date(_swapped),
    "one digit of the year": _wrong_date(_another_year),
    "two errors in both names, and date of birth": _wrong_names_right_date,
    "mobile in another spelling": _other_spelling,
    "mobile label": _mobile("tel: 0{d}", with_name=False),
    "mobile with dashes and no-break spaces": _mobile(
        "0{d[0]}{d[1]}\u2013{d[2]}{d[3]}{d[4]}\u00a0{d[5]}{d[6]}{d[7]}{d[8]}", with_name=False
    ),
    "name and last four digits": _mobile("{name} {d[5]}{d[6]}{d[7]}{d[8]}", fact_kind="last four"),
    "last six digits": _mobile("{d[3]}{d[4]}{d[5]}{d[6]}{d[7]}{d[8]}", fact_kind="last six", with_name=False),
    "name and mobile with a wrong digit": _mobile("{name} 0{wrong}"),
    "name and mobile with swapped digits": _mobile("{name} 0{swapped}"),
    "last name and two mobiles": _mobile("{last} {other} 0{d}"),
    "id": _id("{id}"),
    "id in capitals": _id("{upper}"),
    "id in punctuation": _id("#{id}."),
    "id label": _id("ID: {id}"),
    "beginning of the id": _id("{id}", part="beginning"),
    "end of the id": _id("{id}", part="ending"),
    "last name and end of the id": _id("{last} {id}", part="ending"),
    "e-mail address": _email(lambda email, _: email.upper()),
    "part before the @": _email(lambda email, _: email.partition("@")[0] + "@", "local part"),
    "part before the @, other domain": _email(lambda email, _: email.partition("@")[0] + "@gmail.com", "local part"),
    "e-mail address with an error": _email(_misspelled_email),
    "first name and profile's e-mail address": _profile("{first} {email}"),
    "first name and profile's names": _profile("{first} {parent}"),
}
"""The kinds of descriptions."""


def corrupted(subject: Subject) -> Description | None:
    """Return a description with one to three errors in the names, the date of birth, the number or the town."""
    born, random, patient = subject.born, subject.random, subject.patient
    if born is None or not subject.first or patient.patient_mobile_number is None:
        return None
    values = {
        "first": subject.first.split()[0],
        "last": subject.last,
        "born": f"{born:%d/%m/%Y}",
        "mobile": f"0{queries.national_number(patient.patient_mobile_number)}",
        "town": patient.patient_town or "",
    }
    used = ["first", "last", "born", random.choice(("mobile", "town"))]
    for _ in range(random.randint(1, 3)):
        name = random.choice(used)
        value = values[name]
        if name == "born":
            change = random.choice((_another_day, _swapped, _another_year))
            other = change(born, random)
            values[name] = f"{other:%d/%m/%Y}" if other else value
        elif name == "mobile":
            at = random.randint(2, 9)
            values[name] = value[:at] + random.choice("0123456789") + value[at + 1 :]
        else:
            values[name] = subject.misspell(value) or value
    return Description(
        " ".join(values[name] for name in used), [*subject.names, Fact("date of birth", born.isoformat())]
    )


def nobody(subject: Subject) -> Description | None:
    """Return a description of a person who is not on file."""
    random = subject.random
    syllables = ("bra", "quo", "zel", "fin", "dor", "wex", "ulm", "pry", "gau", "tiv", "hox", "jer", "skal", "nuv")
    first, last = ("".join(random.choices(syllables, k=3)).title() for _ in range(2))
    born = date(1910, 1, 1) + timedelta(days=random.randint(0, 40_000))
    text = random.choice(
        (f"{first} {last}", f"{first} {last} {born:%d/%m/%Y}", f"{last} 0{random.randint(600_000_000, 849_999_999)}")
    )
    return Description(text, [])


FURTHER_DESCRIPTIONS: Mapping[str, Describe] = {"corrupted": corrupted, "nobody on file": nobody}
"""Descriptions that are judged in another way."""
