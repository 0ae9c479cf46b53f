"""Telephone numbers: all the digits under which one number may be written.

What is stored is what people wrote, and beside it the digits alone. The other spellings are worked out when somebody
asks: nothing that is stored depends on the default country, so it may change.
"""

import re
from itertools import product

import phonenumbers
from phonenumbers.phonemetadata import PhoneMetadata
from phonenumbers.phonenumberutil import ValidationResult

REGIONS = phonenumbers.SUPPORTED_REGIONS
"""The countries whose numbers can be told, by ISO 3166-1."""


def digits_of(number: str) -> str:
    """The ASCII digits of a number."""
    return re.sub("[^0-9]", "", number)


def spellings(number: str, region: str) -> list[str]:
    """The digits of all spellings of a number, its own among them; a number without a country's code is of `region`.

    Of +27 82 123 4567: with 27 or 0027 before it, with and without the 0 after that, and if the region is South Africa,
    0821234567 and 821234567. What is no whole number has its own spelling only.
    """
    try:
        parsed = phonenumbers.parse(number, region)
    except phonenumbers.NumberParseException:
        return [digits_of(number)]
    if phonenumbers.is_possible_number_with_reason(parsed) != ValidationResult.IS_POSSIBLE:
        return [digits_of(number)]
    national = phonenumbers.national_significant_number(parsed)
    prefixes = _prefixes(parsed.country_code or 0, region)
    return sorted({digits_of(number), *(f"{prefix}{national}" for prefix in prefixes)})


def beginnings(number: str, region: str) -> list[str]:
    """The digits with which a number may begin that somebody has typed, or begun to: 082 is 2782 too."""
    digits = digits_of(number)
    prefixes = _prefixes(phonenumbers.country_code_for_region(region), region)
    typed = max((prefix for prefix in prefixes if digits.startswith(prefix)), key=len)  # "" at the least
    begun = {f"{prefix}{digits.removeprefix(typed)}" for prefix in prefixes if prefix} if typed else set()
    return sorted({digits, *begun, *spellings(number, region)})


def _prefixes(code: int, region: str) -> set[str]:
    """What may stand before the national part of a number with this country's code."""
    trunk = phonenumbers.ndd_prefix_for_region(phonenumbers.region_code_for_country_code(code), strip_non_digits=True)
    metadata = PhoneMetadata.metadata_for_region(region)
    abroad = (metadata.preferred_international_prefix or metadata.international_prefix) if metadata else None
    exits = ["", abroad] if abroad and abroad.isdecimal() else [""]
    found = {f"{exit_}{code}{inner}" for exit_, inner in product(exits, {"", trunk or ""})}
    if code == phonenumbers.country_code_for_region(region):
        found |= {"", trunk or ""}
    return found
