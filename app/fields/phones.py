"""Telephone numbers: all digit strings that are spellings of one number.

The database stores the number as it was written, and its digits. The other spellings are computed for each query:
nothing that is stored depends on the default country, so the default can change.
"""

import re
from itertools import product

import phonenumbers
from phonenumbers.phonemetadata import PhoneMetadata
from phonenumbers.phonenumberutil import ValidationResult


def ascii_digits(number: str) -> str:
    """Return the ASCII digits of a number."""
    return re.sub("[^0-9]", "", number)


def equivalent_numbers(number: str, region: str) -> list[str]:
    """Return the digits of all spellings of a number, including its own; one without a country code is of `region`.

    For +27 82 123 4567: with 27 or 0027 in front, with and without a 0 after that, and if the region is South Africa,
    0821234567 and 821234567. Text that is not a complete number has only its own spelling.
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
    """Return the digit strings that a number may begin with if its start is typed as `number`: 082 is also 2782."""
    digits = ascii_digits(number)
    prefixes = _dialing_prefixes(phonenumbers.country_code_for_region(region), region)
    matched_prefix = max((prefix for prefix in prefixes if digits.startswith(prefix)), key=len)  # "" always matches
    alternatives = (
        {f"{prefix}{digits.removeprefix(matched_prefix)}" for prefix in prefixes if prefix} if matched_prefix else set()
    )
    return sorted({digits, *alternatives, *equivalent_numbers(number, region)})


def _dialing_prefixes(country_code: int, region: str) -> set[str]:
    """Return the digits that may precede the national part of a number with this country code."""
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
