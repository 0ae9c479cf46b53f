"""Facts about patients, by which a description tells a patient apart from the others."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from benchmarks.finding.queries import national_number
from benchmarks.finding.typos import folded_words
from benchmarks.folding import fold_text
from benchmarks.register import Profile, RegisteredPatient

_SHORT_FORMS_TEXT = """
    Elizabeth Liz, Robert Bob, William Bill, Michael Mike, Catherine Cathy, Margaret Maggie, Susan Sue, Christopher
    Chris, Richard Dick, Nicholas Nick, Stephen Steve, Anthony Tony, Andrew Andy, Matthew Matt, Timothy Tim,
    Jennifer Jenny, Rebecca Becky, Jacobus Kobus, Hendrik Hennie, Petrus Piet, Gerhardus Gert,
    Nicolaas Klaas, Boitumelo Tumi, Sibusiso Sbu, Thandiwe Thandi, Thandeka Thandi, Nokuthula Thuli, Lebogang Lebo,
    Busisiwe Busi, Jabulani Jabu, Nompumelelo Mpume, Vusumuzi Vusi, Samantha Sam, Victoria Vicky, Samuel Sam, Joseph
    Joe, Daniel Danny, David Dave, James Jim, Thomas Tom, Tumelo Tumi, Keitumetse Tumi, Tshepiso Tshepo, Thandekile
    Thandi, Marthinus Tinus, Benjamin Ben, Patrick Paddy, Deborah Debbie, Jessica Jess
    """
SHORT_FORMS = dict(map(str.split, _SHORT_FORMS_TEXT.split(",")))
"""Names and their most common short form."""


class Fact(NamedTuple):
    """Something that a patient has, such as a word in its names or a date of birth."""

    kind: str
    value: str


class Facts:
    """The facts of all patients of a register."""

    def __init__(self, registered: Sequence[RegisteredPatient]) -> None:
        self.profiles = {one.profile.unique_id: one.profile for one in registered if one.profile is not None}
        self._owners: dict[Fact, set[int]] = defaultdict(set)
        for number, one in enumerate(registered):
            for fact in _facts_of(one, self.profiles):
                self._owners[fact].add(number)

    def count_patients(self, facts: Iterable[Fact]) -> int:
        """Return the number of patients that have all of these facts."""
        owners = sorted((self._owners.get(fact, set()) for fact in facts), key=len)
        return len(set.intersection(*owners)) if owners else 0


def name_facts(text: str | None) -> list[Fact]:
    """Return the facts that a patient's names contain the words of a text."""
    return [Fact("word", word) for word in folded_words(text or "")]


def _facts_of(registered: RegisteredPatient, profiles: dict[str, Profile]) -> Iterator[Fact]:
    patient = registered.patient
    first, mobile = patient.patient_first_name or "", national_number(patient.patient_mobile_number or "")
    born, email = patient.patient_date_of_birth or "", (patient.patient_email_address or "").lower()
    profile = profiles.get(patient.profile_id or "")
    account_words = folded_words(f"{profile.first_name or ''} {profile.last_name or ''}") if profile else []
    values: list[tuple[str, str | None]] = [
        ("id", patient.unique_id),
        *(("word", word) for word in folded_words(f"{first} {patient.patient_last_name}")),
        *(("short form", SHORT_FORMS.get(word)) for word in first.split()),
        ("initial", fold_text(first[:1])),
        ("date of birth", born),
        ("month of birth", born[:7]),
        ("year of birth", born[:4]),
        ("mobile", mobile),
        ("last four", mobile[-4:]),
        ("last six", mobile[-6:]),
        ("email", email),
        ("local part", email.partition("@")[0]),
        ("town", patient.patient_town),
        ("region", patient.patient_region),
        ("province", patient.patient_province),
        ("postal code", patient.patient_postal_code),
        ("gender", patient.patient_gender),
        ("street", (patient.patient_physical_address or "").partition(" ")[2]),
        *(("hospital", hospital_id) for hospital_id in registered.hospital_ids),
        *(("doctor", doctor_id) for doctor_id in registered.doctor_ids),
        ("profile email", (profile.email or "").lower() if profile else None),
        *(("profile word", word) for word in account_words),
    ]
    yield from (Fact(kind, value) for kind, value in values if value)
