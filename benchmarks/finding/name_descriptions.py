"""Descriptions by the names of a patient, as people write and misspell them."""

from benchmarks.finding.facts import SHORT_FORMS, Fact, name_facts
from benchmarks.finding.subjects import Describe, Description, Subject
from benchmarks.finding.typos import folded_words
from benchmarks.folding import fold_text
from benchmarks.names import ENGLISH_NAMES, POPULATIONS

SOUND_ALIKE_LETTERS = (
    *(("ph", "f"), ("f", "ph"), ("ck", "k"), ("c", "k"), ("k", "c"), ("th", "t"), ("y", "i"), ("i", "y")),
    *(("ei", "ai"), ("ey", "ay"), ("ll", "l"), ("mm", "m"), ("nn", "n"), ("ss", "s"), ("tt", "t"), ("w", "v")),
    *(("ie", "y"), ("ou", "u"), ("oo", "u"), ("sch", "sh"), ("hl", "shl"), ("dt", "t"), ("ae", "e"), ("z", "s")),
)
OTHER_LAST_NAMES = POPULATIONS["Zulu"].last_names + POPULATIONS["English"].last_names


def misspelled(count: int) -> Describe:
    def describe(subject: Subject) -> Description | None:
        text = subject.misspell(subject.name, count) if subject.first else None
        return Description(text, subject.names, name_facts(text)) if text else None

    return describe


def misspelled_last(subject: Subject) -> Description | None:
    text = subject.misspell(subject.last, 2) if len(subject.last) > 5 else None  # noqa: PLR2004  # letters
    return Description(f"{subject.first} {text}", subject.names) if text and subject.first else None


def misspelled_both(subject: Subject) -> Description | None:
    first, last = subject.misspell(subject.first) if subject.first else None, subject.misspell(subject.last)
    return Description(f"{first} {last}", subject.names, name_facts(f"{first} {last}")) if first and last else None


def short_form(subject: Subject) -> Description | None:
    short = SHORT_FORMS.get(subject.first)
    if short is None or subject.facts.count_patients([*name_facts(subject.last), Fact("short form", short)]) > 1:
        return None
    return Description(f"{short} {subject.last}", subject.names, name_facts(f"{short} {subject.last}"))


def long_form(subject: Subject) -> Description | None:
    forms = [name for name, short in SHORT_FORMS.items() if short == subject.first]
    text = f"{forms[0]} {subject.last}" if forms else None
    return Description(text, subject.names, name_facts(text)) if text else None


def sound_alike(subject: Subject) -> Description | None:
    plain = fold_text(subject.name)
    changes = [(old, new) for old, new in SOUND_ALIKE_LETTERS if old in plain]
    if not subject.first or len(changes) < 2:  # noqa: PLR2004  # one is a typing error
        return None
    text = plain
    for old, new in subject.random.sample(changes, 2):
        text = text.replace(old, new, 1)
    return Description(text, subject.names, name_facts(text)) if folded_words(text) != folded_words(plain) else None


def in_one_word(subject: Subject) -> Description | None:
    return (
        Description(fold_text(f"{subject.first}{subject.last}").replace(" ", ""), subject.names)
        if (
            subject.first and len(subject.name.split()) == 2  # noqa: PLR2004  # words
        )
        else None
    )


def last_name_joined(subject: Subject) -> Description | None:
    if " " not in subject.last or not subject.first:
        return None
    return Description(f"{subject.first} {subject.last.replace(' ', '')}", subject.names)


def last_name_split(subject: Subject) -> Description | None:
    if len(subject.last) < 6 or not subject.last.isalpha() or not subject.first:  # noqa: PLR2004  # letters
        return None
    at = subject.random.randint(2, len(subject.last) - 3)
    return Description(f"{subject.first} {subject.last[:at]} {subject.last[at:]}", subject.names)


def first_names_joined(subject: Subject) -> Description | None:
    return (
        Description(f"{subject.first.replace(' ', '').replace('-', '')} {subject.last}", subject.names)
        if " " in subject.first or "-" in subject.first
        else None
    )


def van_der(spelling: str) -> Describe:
    def describe(subject: Subject) -> Description | None:
        if not subject.last.lower().startswith("van der ") or not subject.first:
            return None
        return Description(f"{subject.first} {spelling}{subject.last[8:]}", subject.names)

    return describe


def without_accents(subject: Subject) -> Description | None:
    plain = fold_text(subject.name)
    return Description(plain, subject.names) if subject.first and plain != subject.name.lower() else None


def with_more(template: str) -> Describe:
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
