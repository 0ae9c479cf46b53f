"""Telephone numbers: finds all digit strings that are spellings of the same number.

The database stores each number twice: as it was written, and as digits only. The other spellings are computed for each
query. No stored value depends on the default country, so that the default can change.
"""

import re
from itertools import product

import phonenumbers
from phonenumbers.phonemetadata import PhoneMetadata
from phonenumbers.phonenumberutil import ValidationResult


def ascii_digits(number: str) -> str:
    """Return the ASCII digits of a telephone number, without all other characters."""
    return re.sub("[^0-9]", "", number)


def equivalent_numbers(number: str, region: str) -> list[str]:
    """Return the digits of all spellings of a telephone number, including those of `number` itself.

    A number without a country code belongs to `region`, such as `ZA`. For example, if `number` is +27 82 123 4567 and
    `region` is `ZA`, there are six spellings: 821234567, 0821234567, 27821234567, 270821234567, 0027821234567 and
    00270821234567. In another region, the spellings without 27 are omitted, and 00 is replaced by that region's prefix
    for international calls. For text that is not a complete number, only the digits of the text are returned.
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
    """Return the prefixes that a search for `number` must compare with the digits of stored telephone numbers.

    `number` may be only the beginning of a telephone number. For example, if a user in South Africa types 082, the
    prefixes include 082 and 2782.
    """
    digits = ascii_digits(number)
    prefixes = _dialing_prefixes(phonenumbers.country_code_for_region(region), region)
    matched_prefix = max((prefix for prefix in prefixes if digits.startswith(prefix)), key=len)  # "" always matches
    alternatives = (
        {f"{prefix}{digits.removeprefix(matched_prefix)}" for prefix in prefixes if prefix} if matched_prefix else set()
    )
    return sorted({digits, *alternatives, *equivalent_numbers(number, region)})


def _dialing_prefixes(country_code: int, region: str) -> set[str]:
    """Return the digit strings that people in `region` may write before the national part of a number."""
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
