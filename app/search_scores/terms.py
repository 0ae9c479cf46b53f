"""The terms of a search with everything that the vocabulary and the stored records say about them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Self

from app.search_scores.conditions import MATCH_COLUMNS
from app.search_scores.weights import INITIAL_PERCENT, WEIGHTS
from app.search_text.parser import MIN_ENDING_DIGITS, MIN_LONE_ENDING_DIGITS, Term
from app.vocabulary.expansion import CLOSE_MATCHES, ExpandedWord

COMPLETE_NUMBER_DIGITS = 9
"""Number of digits from which a number is compared as a whole, and not with the ends of numbers."""


class Probe(NamedTuple):
    """What the database knows about a term before the search."""

    places: Sequence[str] = ()
    """Towns, regions and so on of visible patients that consist of the word, and of adjacent words."""
    hospitals: Sequence[str] = ()
    """Ids of the hospitals that have the word in their names, or as their ids."""
    ids: Sequence[str] = ()
    """Ids of the visible patients that have the term as their id, or as its beginning or ending."""
    phrases: Sequence[str] = ()
    """The word, alone and with adjacent words: phrases that are no known places, but may be one with an error."""


class SearchTerm(NamedTuple):
    """A term of a search text, ready to be searched."""

    word: str
    """The typed word, or nothing."""
    is_short: bool
    """Whether the word is so short that an index helps little (`ExpandedWord.is_short`)."""
    expanded: ExpandedWord | None
    values: Mapping[str, Any]
    """The values of `TERM_COLUMNS`, as JSON values or dates, without those that are null."""
    factor: int = 100
    """The factor for the points, in percent, as long as it is not known how many patients have the word."""
    identifiers: Sequence[str] = ()
    """Ids of hospitals or doctors that the term may be."""
    phrases: Sequence[str] = ()
    """What may be a place with an error."""

    @classmethod
    def from_parsed(cls, term: Term, expanded: ExpandedWord | None, probe: Probe, *, has_words: bool) -> Self:
        """Return a parsed term with its expanded word and the result of its probe.

        `has_words` is whether the search text has words. Beside them, fewer digits and longer periods are searched.
        """
        is_short = expanded is not None and expanded.is_short
        values = {
            "ids": list(probe.ids),
            "gender": term.gender,
            "places": list(probe.places),
            "hospitals": list(probe.hospitals),
            **dict(_word_values(expanded)),
            **dict(_birth_values(term, has_words=has_words)),
            **dict(_number_values(term, has_words=has_words)),
            **dict(_email_values(term)),
        }
        present = {name: value for name, value in values.items() if value}
        factor = INITIAL_PERCENT if expanded is not None and expanded.is_initial else 100
        identifiers = () if is_short else term.identifiers
        return cls(term.word, is_short, expanded, present, factor, identifiers, probe.phrases)

    @property
    def is_name(self) -> bool:
        """Whether the term can only be a word of a name."""
        return self.expanded is not None and not self.values.keys() & {
            "places",
            "hospitals",
            "gender",
            "ids",
            "first_day",
        }

    @property
    def highest_weight(self) -> int:
        """The points of a patient that agrees with the term as well as possible."""
        weights = {
            "email": "same e-mail address",
            "days": "same date of birth",
            "near_days": "same date of birth",
            "ids": "same id",
            "match_close": "same word",
            "first_day": "born in this period",
            "ending": "end of the mobile number",
        }
        return max(
            [WEIGHTS[weight] for value, weight in weights.items() if value in self.values],
            default=WEIGHTS["same mobile number"],
        )


def _word_values(expanded: ExpandedWord | None) -> Iterator[tuple[str, Any]]:
    if expanded is not None:
        yield from ((column, expanded.any_of((match_kind,))) for match_kind, column in MATCH_COLUMNS.items())
        yield "match_close", expanded.any_of(CLOSE_MATCHES)
        if not expanded.is_short:
            yield "word", expanded.folded


def _birth_values(term: Term, *, has_words: bool) -> Iterator[tuple[str, Any]]:
    yield "days", list(term.birth.days)
    yield "near_days", list(term.birth.near_days)
    if term.birth.period is not None and (has_words or not term.digits):
        yield from (("first_day", term.birth.period.first), ("last_day", term.birth.period.last))
        wide = term.birth.period.widened
        yield from (("first_near_day", wide.first), ("last_near_day", wide.last))


def _number_values(term: Term, *, has_words: bool) -> Iterator[tuple[str, Any]]:
    if not (digits := term.digits):
        return
    half = len(digits) // 2
    yield "digits", digits
    if len(digits) >= MIN_ENDING_DIGITS or (digits.startswith("0") and len(digits) > 1):
        yield "prefixes", list(term.prefixes)
    if len(digits) >= COMPLETE_NUMBER_DIGITS:
        yield "first_halves", [prefix[: max(1, len(prefix) - half)] for prefix in term.prefixes]
        yield "last_half", digits[-half:][::-1]
        yield "similar_numbers", _similar_numbers(digits[-COMPLETE_NUMBER_DIGITS:])
    elif len(digits) >= (MIN_ENDING_DIGITS if has_words else MIN_LONE_ENDING_DIGITS):
        yield "ending", digits[::-1]


def _similar_numbers(digits: str) -> list[str]:
    """Return LIKE patterns of mobile numbers that end with the digits, apart from one error.

    One digit is wrong, missing or added, or two adjacent digits are swapped.
    """
    wrong = [f"%{digits[:at]}_{digits[at + 1 :]}" for at in range(len(digits))]
    missing = [f"%{digits[:at]}{digits[at + 1 :]}" for at in range(len(digits))]
    added = [f"%{digits[:at]}_{digits[at:]}" for at in range(1, len(digits))]
    swapped = [f"%{digits[:at]}{digits[at + 1]}{digits[at]}{digits[at + 2 :]}" for at in range(len(digits) - 1)]
    return [*wrong, *missing, *added, *swapped]


def _email_values(term: Term) -> Iterator[tuple[str, Any]]:
    if email := term.email.casefold():
        yield "email", email
        at = email.find("@")
        # the @ of an address that is recognized by its domain is missing, which is one error
        middle = (at + 1 if at >= 0 else len(email)) // 2
        yield "local_part", email[: at + 1]
        # without the letters in the middle, which may be swapped
        yield "first_email_half", email[: middle - 1]
        yield "last_email_half", email[middle + 1 :][::-1]
