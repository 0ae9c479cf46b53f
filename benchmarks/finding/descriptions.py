"""Descriptions that staff at a front desk type for a patient, each with the facts that it is true about."""

from collections.abc import Mapping
from datetime import date, timedelta

from benchmarks.finding import detail_descriptions as details
from benchmarks.finding import name_descriptions as names
from benchmarks.finding import queries
from benchmarks.finding.facts import Fact
from benchmarks.finding.subjects import Describe, Description, Subject

DESCRIPTIONS: Mapping[str, Describe] = {
    "first and last name": details.plain("{name}"),
    "last name, first name": details.plain("{last}, {first}"),
    "all capitals": details.plain("{upper}"),
    "without accents": names.without_accents,
    "title and name": details.plain("Mrs {name}"),
    "Afrikaans title and name": details.plain("Mev. {name}"),
    "title and last name": details.plain("Mr {last}"),
    "name and jnr": details.plain("{name} jnr"),
    "Prof and name": details.plain("Prof {name}"),
    "baby of": details.plain("b/o {name}"),
    "short form": names.short_form,
    "name for a short form": names.long_form,
    "sounds alike": names.sound_alike,
    "first and last name in one word": names.in_one_word,
    "last name in one word": names.last_name_joined,
    "last name in two words": names.last_name_split,
    "first names in one word": names.first_names_joined,
    "vd": names.van_der("vd "),
    "v/d": names.van_der("v/d "),
    "vd in one word": names.van_der("vd"),
    "an initial more": names.with_more("{first} {letter} {last}"),
    "a first name more": names.with_more("{first} {english} {last}"),
    "a second last name": names.with_more("{first} {last} {other}"),
    "a second last name, hyphenated": names.with_more("{first} {last}-{other}"),
    "one error": names.misspelled(1),
    "two errors": names.misspelled(2),
    "two errors, one in each name": names.misspelled_both,
    "two errors in the last name": names.misspelled_last,
    "three letters of both names and date of birth": details.with_beginnings,
    "initial, last name and date of birth": details.with_initial,
    "nine or more words": details.with_many_words,
    "name and town": details.plain("{name} {town}", "town"),
    "town and last name": details.plain("{town} {last}", "town"),
    "last name and a misspelled town": details.with_misspelled_town,
    "name and region": details.plain("{name} {region}", "region"),
    "name and province": details.plain("{name} {province}", "province"),
    "name and abbreviated province": details.plain("{name} {abbreviated}", "province"),
    "name and street": details.plain("{name} {street}", "street"),
    "name and address": details.plain("{name}, {address}, {town}", "street", "town"),
    "name and postal code": details.plain("{name} {code}", "postal code"),
    "name and hospital": details.plain("{name} {hospital}", "hospital"),
    "name and hospital id": details.plain("{name} {hospital_id}", "hospital"),
    "name and doctor": details.plain("{name} dr {doctor}", "doctor"),
    "name and gender letter": details.plain("{name} {gender}", "gender"),
    "name and the number of a twin": details.plain("{name} twin 2"),
    "name and gender": details.plain("{name} {gender_word}", "gender"),
    "name label": details.plain("name: {first} surname: {last}"),
    "17/05/1990": details.with_date("{names} %d/%m/%Y"),
    "17/05/90": details.with_date("{names} %d/%m/%y"),
    "17.5.1990": details.with_date("%-d.%-m.%Y {names}"),
    "1990-05-17": details.with_date("{names} %Y-%m-%d"),
    "17 May 1990": details.with_date("{names} %-d {month} %Y"),
    "17 Mei 1990": details.with_date("{names} %-d {maand} %Y"),
    "17. Mai 1990": details.with_date("{names} %-d. {monat} %Y"),
    "17 de maio de 1990": details.with_date("{names} %-d de {mes} de %Y"),
    "1990-05-17T00:00:00Z": details.with_date("{names} %Y-%m-%dT00:00:00Z"),
    "name joined to 17051990": details.with_date("{names}%d%m%Y"),
    "name joined to a year": details.with_date("{names}%Y", names="name", kind="year of birth"),
    "name and '90": details.with_date("{names} '%y", names="name", kind="year of birth"),
    "May 17, 1990": details.with_date("{names} {month} %-d, %Y"),
    "17 05 1990": details.with_date("{names} %d %m %Y"),
    "17051990": details.with_date("{names} %d%m%Y"),
    "19900517": details.with_date("{names} %Y%m%d"),
    "05/17/1990": details.with_date("{names} %m/%d/%Y", kind="date of birth, month first"),
    "identity number": details.with_date("{names} %y%m%d5009087"),
    "identity number in groups": details.with_date("%y%m%d 5009 08 7 {names}"),
    "DOB19900517": details.with_date("{names} DOB%Y%m%d"),
    "dob and date": details.with_date("{names} dob: %d/%m/%Y"),
    "date alone": details.with_date("%d/%m/%Y", names="name"),
    "name and year": details.with_date("{names} %Y", names="name", kind="year of birth"),
    "name, born and year": details.with_date("{names} born %Y", names="name", kind="year of birth"),
    "name and 05/1990": details.with_date("{names} %m/%Y", names="name", kind="month of birth"),
    "name and May 1990": details.with_date("{names} {month} %Y", names="name", kind="month of birth"),
    "name and 45 years": details.with_date("{names} {age} years", names="name"),
    "name and 45y": details.with_date("{names} {age}y", names="name"),
    "another day": details.wrong_date(details.another_day),
    "day and month swapped": details.wrong_date(details.day_and_month_swapped),
    "one digit of the year": details.wrong_date(details.another_year),
    "two errors in both names, and date of birth": details.wrong_names_right_date,
    "mobile in another spelling": details.other_spelling,
    "mobile label": details.with_mobile("tel: 0{d}", with_name=False),
    "mobile with dashes and no-break spaces": details.with_mobile(
        "0{d[0]}{d[1]}\u2013{d[2]}{d[3]}{d[4]}\u00a0{d[5]}{d[6]}{d[7]}{d[8]}", with_name=False
    ),
    "last name joined to mobile": details.with_mobile("{last}0{d}"),
    "name and last four digits": details.with_mobile("{name} {d[5]}{d[6]}{d[7]}{d[8]}", fact_kind="last four"),
    "last six digits": details.with_mobile(
        "{d[3]}{d[4]}{d[5]}{d[6]}{d[7]}{d[8]}", fact_kind="last six", with_name=False
    ),
    "name and mobile with a wrong digit": details.with_mobile("{name} 0{wrong}"),
    "name and mobile with swapped digits": details.with_mobile("{name} 0{swapped}"),
    "last name and two mobiles": details.with_mobile("{last} {other} 0{d}"),
    "id": details.with_id("{id}"),
    "id in capitals": details.with_id("{upper}"),
    "id in punctuation": details.with_id("#{id}."),
    "id label": details.with_id("ID: {id}"),
    "beginning of the id": details.with_id("{id}", part="beginning"),
    "end of the id": details.with_id("{id}", part="ending"),
    "last name and end of the id": details.with_id("{last} {id}", part="ending"),
    "e-mail address": details.with_email(lambda email, _: email.upper()),
    "part before the @": details.with_email(lambda email, _: email.partition("@")[0] + "@", "local part"),
    "part before the @, other domain": details.with_email(
        lambda email, _: email.partition("@")[0] + "@gmail.com", "local part"
    ),
    "e-mail address with blanks": details.with_email(lambda email, _: email.replace("@", " @ ")),
    "e-mail address without @": details.with_email(lambda email, _: email.replace("@", "")),
    "e-mail address with a blank for @": details.with_email(lambda email, _: email.replace("@", " ")),
    "e-mail address as it is spoken": details.with_email(
        lambda email, _: email.replace("@", " at ").replace(".", " dot ")
    ),
    "e-mail address with an error": details.with_email(details.misspelled_email),
    "first name and profile's e-mail address": details.with_profile("{first} {email}"),
    "first name and profile's names": details.with_profile("{first} {parent}"),
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
            change = random.choice((details.another_day, details.day_and_month_swapped, details.another_year))
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
