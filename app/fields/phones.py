"""Telephone numbers: all the digits under which one number may be written.

What is stored is what people wrote, and beside it the digits alone. The other spellings are worked out when somebody
asks: nothing that is stored depends on the default country, so it may change.
"""

import re
from itertools import product

import phonenumbers
from phonenumbers.phonemetadata import PhoneMetadata
from phonenumbers.phonenumberutil import ValidationResult

SUPPORTED_REGIONS = phonenumbers.SUPPORTED_REGIONS
"""The countries whose numbers can be told, by ISO 3166-1."""


def ascii_digits(number: str) -> str:
    """The ASCII digits of a number."""
    return re.sub("[^0-9]", "", number)


def equivalent_numbers(number: str, region: str) -> list[str]:
    """The digits of all spellings of a number, its own among them; a number without a country's code is of `region`.

    Of +27 82 123 4567: with 27 or 0027 before it, with and without the 0 after that, and if the region is South Africa,
    0821234567 and 821234567. What is no whole number has its own spelling only.
    """
    try:
        parsed = phonenumbers.parse(number, region)
    except phonenumbers.NumberParseException:
        return [ascii_digits(number)]
    if phonenumbers.is_possible_number_with_reason(parsed) != ValidationResult.IS_POSSIBLE:
        return [ascii_digits(number)]
    national = phonenumbers.national_significant_number(parsed)
    prefixes = _dialing_prefixes(parsed.country_code or 0, region)
    return sorted({ascii_digits(number), *(f"{prefix}{national}" for prefix in prefixes)})


def number_prefixes(number: str, region: str) -> list[str]:
    """The digits with which a number may begin that somebody has typed, or begun to: 082 is 2782 too."""
    digits = ascii_digits(number)
    prefixes = _dialing_prefixes(phonenumbers.country_code_for_region(region), region)
    matched_prefix = max((prefix for prefix in prefixes if digits.startswith(prefix)), key=len)  # "" at the least
    alternatives = (
        {f"{prefix}{digits.removeprefix(matched_prefix)}" for prefix in prefixes if prefix} if matched_prefix else set()
    )
    return sorted({digits, *alternatives, *equivalent_numbers(number, region)})


def _dialing_prefixes(country_code: int, region: str) -> set[str]:
    """What may stand before the national part of a number with this country's code."""
    trunk_prefix = phonenumbers.ndd_prefix_for_region(
        phonenumbers.region_code_for_country_code(country_code), strip_non_digits=True
    )
    metadata = PhoneMetadata.metadata_for_region(region)
    exit_code = (metadata.preferred_international_prefix or metadata.international_prefix) if metadata else None
    exit_codes = ["", exit_code] if exit_code and exit_code.isdecimal() else [""]
    prefixes = {f"{exit_}{country_code}{inner}" for exit_, inner in product(exit_codes, {"", trunk_prefix or ""})}
    if country_code == phonenumbers.country_code_for_region(region):
        prefixes |= {"", trunk_prefix or ""}
    return prefixes
