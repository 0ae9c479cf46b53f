"""Filters of the list, with values that match patients of the register."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from random import Random

from benchmarks.finding.queries import reformatted_mobile
from benchmarks.register import RegisteredPatient

FilterValues = Mapping[str, str | list[str]]
Filter = Callable[[RegisteredPatient, Random], FilterValues | None]
"""Returns parameters that match a patient, and others too, or None if the patient lacks the required values."""

EQUALITY_FILTERS = (
    *("profile_id", "patient_first_name", "patient_last_name", "patient_town", "patient_region", "patient_province"),
    *("patient_country", "patient_race", "patient_access_medical_care", "patient_gender", "patient_postal_code"),
    *("patient_email_address", "patient_date_of_birth"),
)
"""Filters by the patient's own value as it is stored."""
RANGE_FILTERS = (
    *("patient_date_of_birth__gte", "patient_date_of_birth__lte"),
    *("date_created__gte", "date_created__lt", "last_updated__gte", "last_updated__lt"),
)
"""Filters by one end of a range."""
MONTH_LENGTH = timedelta(days=30)


def _equality_filter(name: str) -> Filter:
    def values(registered: RegisteredPatient, _random: Random) -> FilterValues | None:
        value = getattr(registered.patient, name)
        return None if value is None else {name: value}

    return values


def _hospital_filter(registered: RegisteredPatient, _random: Random) -> FilterValues:
    return {"hospital_id": registered.hospital_ids[0]}


def _doctor_filter(registered: RegisteredPatient, _random: Random) -> FilterValues:
    return {"doctor_id": registered.doctor_ids[0]}


def _two_hospitals_filter(registered: RegisteredPatient, random: Random) -> FilterValues:
    return {"hospital_id": [registered.hospital_ids[0], f"hos{random.randint(1, 200):03d}"]}


def _mobile_filter(registered: RegisteredPatient, random: Random) -> FilterValues | None:
    number = reformatted_mobile(registered.patient, random)
    return None if number is None else {"patient_mobile_number": number}


def _last_name_prefix_filter(registered: RegisteredPatient, _random: Random) -> FilterValues:
    return {"patient_last_name__startswith": registered.patient.patient_last_name[:3]}


def _range_filter(parameter: str) -> Filter:
    """Return a filter for the range that begins, or ends, with the patient's own value."""
    name, _, _ = parameter.partition("__")

    def values(registered: RegisteredPatient, _random: Random) -> FilterValues | None:
        value = getattr(registered.patient, name)
        return (
            None if value is None else {parameter: value if name == "patient_date_of_birth" else _utc_timestamp(value)}
        )

    return values


def _birth_year_filter(registered: RegisteredPatient, _random: Random) -> FilterValues | None:
    birth_date = registered.patient.patient_date_of_birth
    if birth_date is None:
        return None
    year = birth_date[:4]
    return {"patient_date_of_birth__gte": f"{year}-01-01", "patient_date_of_birth__lte": f"{year}-12-31"}


def _utc_timestamp(stored: str) -> str:
    return datetime.fromisoformat(stored).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _month_filter(name: str) -> Filter:
    """Return a filter for the month that begins with the patient's own timestamp."""

    def values(registered: RegisteredPatient, _random: Random) -> FilterValues:
        stored = getattr(registered.patient, name)
        end = (datetime.fromisoformat(stored) + MONTH_LENGTH).isoformat()
        return {f"{name}__gte": _utc_timestamp(stored), f"{name}__lt": _utc_timestamp(end)}

    return values


def _combined_filter(*filters: Filter) -> Filter:
    def values(registered: RegisteredPatient, random: Random) -> FilterValues | None:
        combined: dict[str, str | list[str]] = {}
        for part_filter in filters:
            parameters = part_filter(registered, random)
            if parameters is None:
                return None
            combined |= parameters
        return combined

    return values


def _filter_with_parameter(other: Filter, name: str, value: str) -> Filter:
    return _combined_filter(other, lambda _registered, _random: {name: value})


FILTERS: Mapping[str, Filter] = {
    "hospital_id": _hospital_filter,
    "doctor_id": _doctor_filter,
    **{name: _equality_filter(name) for name in EQUALITY_FILTERS},
    "patient_mobile_number": _mobile_filter,
    "patient_last_name__startswith": _last_name_prefix_filter,
    **{parameter: _range_filter(parameter) for parameter in RANGE_FILTERS},
    "patient_date_of_birth__gte, __lte": _birth_year_filter,
    "date_created__gte, __lt": _month_filter("date_created"),
    "last_updated__gte, __lt": _month_filter("last_updated"),
}
"""Each filter by itself, and both ends of each range."""

FILTER_COMBINATIONS: Mapping[str, Filter] = {
    "two of hospital_id": _two_hospitals_filter,
    "hospital_id, patient_gender": _combined_filter(_hospital_filter, _equality_filter("patient_gender")),
    "patient_town, born in a year": _combined_filter(_equality_filter("patient_town"), _birth_year_filter),
    "patient_race, patient_last_name": _combined_filter(
        _equality_filter("patient_race"), _equality_filter("patient_last_name")
    ),
    "hospital_id by last name": _filter_with_parameter(_hospital_filter, "ordering", "patient_last_name"),
    "patient_town by -last_updated": _filter_with_parameter(
        _equality_filter("patient_town"), "ordering", "-last_updated"
    ),
    "patient_gender by date of birth": _filter_with_parameter(
        _equality_filter("patient_gender"), "ordering", "patient_date_of_birth"
    ),
}
"""Typical combinations."""
