"""Assumptions about the country and the languages of the patients, for data that leave them open."""

from typing import NamedTuple

from app.locality.short_forms import Groups


class Locality(NamedTuple):
    """The place where the service is used."""

    phone_region: str
    """The region, such as `ZA`, of telephone numbers without a country code."""
    short_forms: Groups
    """Short forms of the given names that are common there."""
