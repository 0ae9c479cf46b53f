"""What the service assumes about the place where it is used, where data leave it open."""

from typing import NamedTuple

from app.locality.short_forms import Groups


class Locality(NamedTuple):
    """The place where the service is used."""

    phone_region: str
    """The region, such as `ZA`, of telephone numbers without a country code."""
    short_forms: Groups
    """Short forms of the given names that are common there."""
