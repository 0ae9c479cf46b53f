"""What was typed, as conditions on patients; and the parts of the list of who is found, best match first."""

from collections.abc import Iterator, Sequence
from functools import lru_cache, reduce
from itertools import chain, repeat
from operator import add
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Date, Integer, and_, bindparam, case, func, literal_column, not_, or_
from sqlalchemy.dialects.postgresql import TSQUERY

from app.db.base import ID, KEY
from app.models import Patient
from app.resource.finding import Part, begins_with
from app.resource.listing import MOST_STATEMENTS
from app.search.typed import Typed
from app.search.words import FAR, NEAR, Likeness, Meant

_PATIENT = Patient.__table__.c
_WORDS = _PATIENT.patient_search
MOST_BEGINNINGS = 12
"""Of a number; no country's plan has more than ten."""
MOST_DIFFERENT = 999
"""Letters; from here on names are as different as they can be, so that this never weighs as much as an error."""


class Shape(NamedTuple):
    """What a statement depends on, whatever was typed."""

    short: tuple[bool, ...] = ()
    """Of each word, whether it is short."""
    births: int = 0
    emails: int = 0
    identifiers: int = 0
    numbers: int = 0


def understood(typed: Typed, meant: Sequence[Meant]) -> tuple[Shape, dict[str, Any]]:
    """The shape of the statements about what was typed, and their parameters."""
    parameters: dict[str, Any] = {}
    for place, word in enumerate(meant):
        parameters |= {f"word_{place}_{likeness:d}": query for likeness, query in word.queries.items()}
    for reach, likenesses in _REACHES.items():
        for short in (False, True):
            queries = [f"({word.one_of(likenesses)})" for word in meant if word.is_short is short]
            parameters[f"all_{reach}_{short:d}"] = " & ".join(queries)
    parameters["letters"] = sum(word.letters for word in meant)
    for kind in ("births", "emails", "identifiers"):
        parameters |= {f"{kind}_{place}": value for place, value in enumerate(getattr(typed, kind))}
    for place, number in enumerate(typed.numbers):
        parameters[f"number_{place}"] = number.written
        # as many for all, so that they are asked by one statement
        digits = chain(number.digits, repeat(number.written))
        parameters |= {
            f"digits_{place}_{which}": value for which, value in zip(range(MOST_BEGINNINGS), digits, strict=False)
        }
    shape = Shape(
        tuple(word.is_short for word in meant),
        len(typed.births),
        len(typed.emails),
        len(typed.identifiers),
        len(typed.numbers),
    )
    return shape, parameters


_REACHES: dict[str, Sequence[Likeness]] = {"same": NEAR[:1], "near": NEAR[1:], "far": (*NEAR[1:], *FAR)}
"""How far words may be from what was typed; the same begin with it, too."""


def _matches(name: str) -> ColumnElement[bool]:
    return _WORDS.bool_op("@@")(bindparam(name, type_=TSQUERY))


def _all_words(shape: Shape, reach: str) -> list[ColumnElement[bool]]:
    """That each typed word is alike one of the patient's.

    Short ones are not looked up in the index where there are longer ones: half of all patients may have them.
    """
    found = []
    if not all(shape.short):
        found.append(_matches(f"all_{reach}_0"))
    if any(shape.short):
        short = _matches(f"all_{reach}_1")
        found.append(short.is_(literal_column("true")) if found else short)
    return found


def _others(shape: Shape) -> Iterator[ColumnElement[bool]]:
    """That the patient has all that was typed but words."""
    for place in range(shape.births):
        yield _PATIENT.patient_date_of_birth == bindparam(f"births_{place}", type_=Date)
    for place in range(shape.emails):
        beginning = func.fold(bindparam(f"emails_{place}", type_=KEY), type_=KEY)
        yield begins_with(_PATIENT.patient_email_address_folded, beginning)
    for place in range(shape.identifiers):
        yield _PATIENT.unique_id == bindparam(f"identifiers_{place}", type_=ID)
    for place in range(shape.numbers):
        digits = [bindparam(f"digits_{place}_{which}", type_=ID) for which in range(MOST_BEGINNINGS)]
        mobile = _PATIENT.patient_mobile_digits
        yield or_(
            *(begins_with(mobile, begun) for begun in digits),
            _PATIENT.unique_id == bindparam(f"number_{place}", type_=ID),
        )


def matching(shape: Shape, reach: str) -> list[ColumnElement[bool]]:
    """What holds of all who are found within a reach: the `same`, `near`, or `far`."""
    words = _all_words(shape, reach) if shape.short else []
    return [*words, *_others(shape)]


def _likeness(word: int) -> ColumnElement[int]:
    """How the patient's word that is most like a typed one is."""
    tiers = [(_matches(f"word_{word}_{likeness:d}"), literal_column(f"{likeness:d}", Integer)) for likeness in Likeness]
    return case(*tiers, else_=literal_column(f"{Likeness.TWO_ERRORS:d}", Integer))


def _difference() -> ColumnElement[int]:
    """How many letters the patient's names have more or fewer than was typed."""
    letters = [
        func.coalesce(func.char_length(name), 0) for name in (_PATIENT.patient_last_name, _PATIENT.patient_first_name)
    ]
    different = func.abs(letters[0] + letters[1] - bindparam("letters", type_=Integer), type_=Integer)
    return func.least(different, literal_column(str(MOST_DIFFERENT)), type_=Integer)


@lru_cache(MOST_STATEMENTS)
def parts(shape: Shape) -> tuple[list[Part], list[Part]]:
    """Who is found near, and who is found far, each best match first; no patient is in two of them.

    With one word a part for each likeness, in the order of `unique_id`. With several, those who have all as typed, by
    the difference in letters; then all others by rank: the likeness of their words in thousands, and the difference.
    """
    others = list(_others(shape))
    if not shape.short:
        return [Part(0, others)], []
    if len(shape.short) == 1:
        tiers = [_matches(f"word_0_{likeness:d}") for likeness in Likeness]
        each = [
            Part(number, (tier, *(not_(before) for before in tiers[:number]), *others), gathered=number > 0)
            for number, tier in enumerate(tiers)
        ]
        return each[: len(NEAR)], each[len(NEAR) :]
    same, near, far = (_all_words(shape, reach) for reach in _REACHES)
    difference = _difference()
    likeness = reduce(add, (_likeness(word) for word in range(len(shape.short))))
    rank = likeness * literal_column("1000") + difference
    rest = Part(2, (*far, not_(and_(*near)), *others), rank)
    if all(shape.short):  # initials: whoever is near has all as typed, and these are many
        return [Part(0, (*same, *others))], [rest]
    return [Part(0, (*same, *others), difference), Part(1, (*near, not_(and_(*same)), *others), rank)], [rest]
