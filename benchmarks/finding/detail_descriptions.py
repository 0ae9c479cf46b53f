"""Descriptions by other details than names: dates of birth, places, numbers, ids, e-mail addresses and profiles."""

from collections.abc import Callable
from datetime import date
from random import Random

from benchmarks.finding import queries
from benchmarks.finding.facts import Fact, name_facts
from benchmarks.finding.subjects import Describe, Description, Subject
from benchmarks.finding.typos import add_errors, can_have_errors, folded_words
from benchmarks.folding import fold_text
from benchmarks.register import doctor_names, hospital_names

HOSPITAL_NAMES, DOCTOR_NAMES = hospital_names(), doctor_names()
MONTHS = [date(2000, month, 1).strftime("%B") for month in range(1, 13)]
AFRIKAANS_MONTHS = [
    *("Januarie", "Februarie", "Maart", "April", "Mei", "Junie"),
    *("Julie", "Augustus", "September", "Oktober", "November", "Desember"),
]

GERMAN_MONTHS = [
    *("Januar", "Februar", "März", "April", "Mai", "Juni"),
    *("Juli", "August", "September", "Oktober", "November", "Dezember"),
]
PORTUGUESE_MONTHS = [
    *("janeiro", "fevereiro", "março", "abril", "maio", "junho"),
    *("julho", "agosto", "setembro", "outubro", "novembro", "dezembro"),
]
PROVINCE_ABBREVIATIONS = {
    "Eastern Cape": "EC",
    "Free State": "FS",
    "Gauteng": "GP",
    "KwaZulu-Natal": "KZN",
    "Limpopo": "LP",
    "Mpumalanga": "MP",
    "North West": "NW",
    "Northern Cape": "NC",
    "Western Cape": "WC",
}


def plain(template: str, *kinds: str) -> Describe:
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
            "abbreviated": PROVINCE_ABBREVIATIONS.get(subject.patient.patient_province or ""),
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


def with_date(template: str, *, names: str = "last", kind: str = "date of birth") -> Describe:
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
        languages = {"month": MONTHS, "maand": AFRIKAANS_MONTHS, "monat": GERMAN_MONTHS, "mes": PORTUGUESE_MONTHS}
        values = {"age": age, **{name: months[born.month - 1] for name, months in languages.items()}}
        text = born.strftime(template.format(**values, names=getattr(subject, names)))
        value = {"date of birth": 10, "month of birth": 7, "year of birth": 4}
        fact_kind = kind.partition(",")[0]
        fact = Fact(fact_kind, born.isoformat()[: value[fact_kind]])
        return Description(text, [*(name_facts(getattr(subject, names)) if "{names}" in template else []), fact])

    return describe


def wrong_date(change: Callable[[date, Random], date | None]) -> Describe:
    def describe(subject: Subject) -> Description | None:
        born = subject.born
        other = born and change(born, subject.random)
        if born is None or other is None or other == born or not subject.first:
            return None
        text = f"{subject.name} {other:%d/%m/%Y}"
        facts = [*subject.names, Fact("date of birth", born.isoformat())]
        return Description(text, facts, [*subject.names, Fact("date of birth", other.isoformat())])

    return describe


def another_day(born: date, random: Random) -> date | None:
    return born.replace(day=random.choice([day for day in range(1, 29) if day != born.day]))


def day_and_month_swapped(born: date, _random: Random) -> date | None:
    return born.replace(month=born.day, day=born.month) if born.day <= 12 else None  # noqa: PLR2004  # months


def another_year(born: date, random: Random) -> date | None:
    digits = list(str(born.year))
    at = random.choice((2, 3))
    digits[at] = random.choice([digit for digit in "0123456789" if digit != digits[at]])
    year = int("".join(digits))
    return born.replace(year=year) if year <= 2026 and (born.month, born.day) != (2, 29) else None  # noqa: PLR2004


def wrong_names_right_date(subject: Subject) -> Description | None:
    born = subject.born
    if born is None or not subject.first:
        return None
    first, last = subject.misspell(subject.first.split()[0], 2), subject.misspell(subject.last, 2)
    if first is None or last is None:
        return None
    return Description(f"{first} {last} {born:%d/%m/%Y}", [Fact("date of birth", born.isoformat()), *subject.names])


def with_beginnings(subject: Subject) -> Description | None:
    born = subject.born
    if born is None or len(subject.first) < 4 or len(subject.last) < 4:  # noqa: PLR2004  # letters
        return None
    text = f"{subject.first[:3].strip()} {subject.last[:3].strip()} {born:%d/%m/%Y}"
    return Description(text, [Fact("date of birth", born.isoformat()), Fact("initial", fold_text(subject.first[0]))])


def with_initial(subject: Subject) -> Description | None:
    born = subject.born
    if born is None or not subject.first:
        return None
    facts = [
        *name_facts(subject.last),
        Fact("initial", fold_text(subject.first[0])),
        Fact("date of birth", born.isoformat()),
    ]
    return Description(f"{subject.first[0]} {subject.last} {born:%Y-%m-%d}", facts)


def with_misspelled_town(subject: Subject) -> Description | None:
    """Return the last name with a town that has an error."""
    town = subject.patient.patient_town
    text = subject.misspell(town) if town else None
    return Description(f"{subject.last} {text}", [*name_facts(subject.last), Fact("town", str(town))]) if text else None


def with_many_words(subject: Subject) -> Description | None:
    if not subject.first or subject.patient.patient_region is None:
        return None
    hospital = HOSPITAL_NAMES[subject.registered.hospital_ids[0]]
    text = f"{subject.name} {subject.patient.patient_town} {subject.patient.patient_region} {hospital} patient file"
    return Description(text, [*subject.names, Fact("town", subject.patient.patient_town or "")])


def with_mobile(template: str, *, fact_kind: str = "mobile", with_name: bool = True) -> Describe:
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


def other_spelling(subject: Subject) -> Description | None:
    text = queries.reformatted_mobile(subject.patient, subject.random)
    stored = subject.patient.patient_mobile_number or ""
    return Description(text, [Fact("mobile", queries.national_number(stored))]) if text else None


def with_id(template: str, *, part: str = "whole") -> Describe:
    def describe(subject: Subject) -> Description | None:
        unique_id = subject.patient.unique_id
        shown = {"whole": unique_id, "beginning": unique_id[:20], "ending": unique_id[-8:]}[part]
        text = template.format(id=shown, upper=shown.upper(), last=subject.last)
        return Description(text, [Fact("id", unique_id)])

    return describe


def with_email(change: Callable[[str, Random], str], kind: str = "email") -> Describe:
    def describe(subject: Subject) -> Description | None:
        email = subject.patient.patient_email_address
        if email is None:
            return None
        value = email.lower() if kind == "email" else email.lower().partition("@")[0]
        return Description(change(email, subject.random), [Fact(kind, value)])

    return describe


def misspelled_email(email: str, random: Random) -> str:
    local_part, _, domain = email.partition("@")
    return f"{add_errors(local_part, 1, random)}@{domain}" if can_have_errors(local_part) else email.upper()


def with_profile(template: str) -> Describe:
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
