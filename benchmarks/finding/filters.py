"""Filters of the list, with the values by which patients of the register are found."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from random import Random

from benchmarks.finding.queries import mobile_spelt_otherwise
from benchmarks.register import Registered

Values = Mapping[str, str | list[str]]
Filter = Callable[[Registered, Random], Values | None]
"""Makes parameters that describe a patient, and others too; None where the patient lacks what it takes."""

SAME = (
    *("profile_id", "patient_first_name", "patient_last_name", "patient_town", "patient_region", "patient_province"),
    *("patient_country", "patient_race", "patient_access_medical_care", "patient_gender", "patient_postal_code"),
    *("patient_email_address", "patient_date_of_birth"),
)
"""Filters by the patient's own value as it is stored."""
BOUNDS = (
    *("patient_date_of_birth__gte", "patient_date_of_birth__lte"),
    *("date_created__gte", "date_created__lt", "last_updated__gte", "last_updated__lt"),
)
"""Filters by one end of a range."""
MONTH = timedelta(days=30)


def _same(name: str) -> Filter:
    def values(registered: Registered, _random: Random) -> Values | None:
        value = getattr(registered.patient, name)
        return None if value is None else {name: value}

    return values


def _hospital(registered: Registered, _random: Random) -> Values:
    return {"hospital_id": registered.hospital_ids[0]}


def _doctor(registered: Registered, _random: Random) -> Values:
    return {"doctor_id": registered.doctor_ids[0]}


def _two_hospitals(registered: Registered, random: Random) -> Values:
    return {"hospital_id": [registered.hospital_ids[0], f"hos{random.randint(1, 200):03d}"]}


def _mobile(registered: Registered, random: Random) -> Values | None:
    typed = mobile_spelt_otherwise(registered.patient, random)
    return None if typed is None else {"patient_mobile_number": typed}


def _last_name_begins(registered: Registered, _random: Random) -> Values:
    return {"patient_last_name__startswith": registered.patient.patient_last_name[:3]}


def _bound(parameter: str) -> Filter:
    """From the patient's own value on, or up to it."""
    name, _, _ = parameter.partition("__")

    def values(registered: Registered, _random: Random) -> Values | None:
        value = getattr(registered.patient, name)
        return None if value is None else {parameter: value if name == "patient_date_of_birth" else _moment(value)}

    return values


def _born_in_year(registered: Registered, _random: Random) -> Values | None:
    born = registered.patient.patient_date_of_birth
    if born is None:
        return None
    year = born[:4]
    return {"patient_date_of_birth__gte": f"{year}-01-01", "patient_date_of_birth__lte": f"{year}-12-31"}


def _moment(stored: str) -> str:
    return datetime.fromisoformat(stored).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _in_month(name: str) -> Filter:
    """From the patient's own moment on, for a month."""

    def values(registered: Registered, _random: Random) -> Values:
        stored = getattr(registered.patient, name)
        end = (datetime.fromisoformat(stored) + MONTH).isoformat()
        return {f"{name}__gte": _moment(stored), f"{name}__lt": _moment(end)}

    return values


def _all_of(*filters: Filter) -> Filter:
    def values(registered: Registered, random: Random) -> Values | None:
        together: dict[str, str | list[str]] = {}
        for one in filters:
            found = one(registered, random)
            if found is None:
                return None
            together |= found
        return together

    return values


def _with(other: Filter, name: str, value: str) -> Filter:
    return _all_of(other, lambda _registered, _random: {name: value})


FILTERS: Mapping[str, Filter] = {
    "hospital_id": _hospital,
    "doctor_id": _doctor,
    **{name: _same(name) for name in SAME},
    "patient_mobile_number": _mobile,
    "patient_last_name__startswith": _last_name_begins,
    **{parameter: _bound(parameter) for parameter in BOUNDS},
    "patient_date_of_birth__gte, __lte": _born_in_year,
    "date_created__gte, __lt": _in_month("date_created"),
    "last_updated__gte, __lt": _in_month("last_updated"),
}
"""Each filter by itself, and both ends of each range."""

COMBINATIONS: Mapping[str, Filter] = {
    "two of hospital_id": _two_hospitals,
    "hospital_id, patient_gender": _all_of(_hospital, _same("patient_gender")),
    "patient_town, born in a year": _all_of(_same("patient_town"), _born_in_year),
    "patient_race, patient_last_name": _all_of(_same("patient_race"), _same("patient_last_name")),
    "hospital_id by last name": _with(_hospital, "ordering", "patient_last_name"),
    "patient_town by -last_updated": _with(_same("patient_town"), "ordering", "-last_updated"),
    "patient_gender by date of birth": _with(_same("patient_gender"), "ordering", "patient_date_of_birth"),
}
"""What people combine."""
