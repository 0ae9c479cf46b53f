"""How many records a filter or a search finds, told only as far as the audit can say whom the number tells of.

A count that is no look at anybody would be a way around the audit: filters find a date of birth by bisection. So each
number depends on no other records than those whose ids are put on record with it. Up to `COUNTED_EXACTLY` these are all
that were found. Beyond, the number is estimated from a sample of one more than that, those with the lowest hashes of
their ids: the larger the list, the closer together the hashes lie (k minimum values; Bar-Yossef et al., 2002).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import BigInteger, Select, func, literal_column, select

COUNTED_EXACTLY = 1000
"""Records of a filtered list that are counted one by one; beyond, the estimate is some 3 % away, one standard error."""
DIGITS = 2
"""Of an estimate; more would pretend to know them."""
HASHES = 2**64


class Counted(NamedTuple):
    """How many records a list has."""

    number: int
    ids: Sequence[str] = ()
    """Of a list that is filtered or searched, those that the number tells of: whoever else there is changes nothing."""


def sample(rows: Select[Any]) -> Select[Any]:
    """Hashes and ids of the records by which to count those whose `unique_id` is selected by `rows`."""
    found = rows.subquery("found")
    key = func.hashtextextended(found.c.unique_id, literal_column("0"), type_=BigInteger).label("hash")
    return select(key, found.c.unique_id).order_by(key).limit(literal_column(str(COUNTED_EXACTLY + 1)))


def counted(found: Sequence[tuple[int, str]]) -> Counted:
    """What a statement of `sample` found comes to."""
    ids = [unique_id for _, unique_id in found]
    if len(found) <= COUNTED_EXACTLY:
        return Counted(len(found), ids)
    highest, _ = found[-1]  # of signed hashes
    share = (highest + HASHES // 2 + 1) / HASHES
    estimate = int(COUNTED_EXACTLY / share)
    return Counted(max(COUNTED_EXACTLY, round(estimate, DIGITS - len(str(estimate)))), ids)
