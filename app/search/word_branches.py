"""The tsqueries with which patients are found by the words of a search text: one by one, in pairs, all but one."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import combinations

from app.search_scores.terms import SearchTerm
from app.vocabulary.expansion import CLOSE_MATCHES, MatchKind

MAX_SINGLE_WORDS = 6
"""Maximum number of words that are searched one by one: the longest ones."""
MAX_PAIRED_WORDS = 4
"""Maximum number of words that are searched in pairs: the longest ones."""
MIN_PAIRED_LETTERS = 4
"""Minimum number of letters in words that are searched in pairs, if there are two. Shorter ones, such as van and der,
are in many names together."""
_SAME_KINDS = CLOSE_MATCHES[: MatchKind.ONE_EDIT]
_NEAR_KINDS = tuple(MatchKind)[: MatchKind.TWO_EDITS]
_FAR_KINDS = tuple(MatchKind)[: MatchKind.SUBSTRING]
"""A pair consists of a near word and a far word. Two far words would match too many patients, because hundreds of
frequent names may be two errors away from a word. The middle of a word is not searched: hundreds of names may contain
it."""


class WordBranches:
    """The queries of the branches that search words of names."""

    def __init__(self, terms: Sequence[SearchTerm]) -> None:
        words = {index: term.expanded for index, term in enumerate(terms) if term.expanded is not None}
        # what is known from addresses and hospitals matters in names only if there are no other words
        elsewhere = {index for index in words if terms[index].values.keys() & {"places", "hospitals"}}
        self._words = {index: word for index, word in words.items() if index not in elsewhere} or words
        self._selective = sorted(
            (index for index in self._words if not self._words[index].is_initial),
            key=lambda index: -len(self._words[index].folded),
        )

    @property
    def singles(self) -> Mapping[int, tuple[str, str]]:
        """Tsqueries for the words one by one, by the index of the term: the word itself, and all close matches."""
        words = ((index, self._words[index]) for index in self._selective[:MAX_SINGLE_WORDS])
        return {index: (word.any_of(_SAME_KINDS), word.any_of(CLOSE_MATCHES)) for index, word in words}

    @property
    def alone(self) -> str:
        """A tsquery for all similar words of the only word. It is empty if there are several."""
        return self._words[self._selective[0]].any_of(MatchKind) if len(self._selective) == 1 else ""

    def pairs(self, frequent: Collection[int]) -> list[tuple[str, str]]:
        """Return two tsqueries for each branch of several words. A patient must match both.

        The index finds patients that match both much faster than patients that match one query for both. `frequent` has
        the indexes of the terms that are frequent names. Such a word is complete, and no beginning of a longer one.
        """
        selective = self._selective
        same, close, near, far = (
            {
                index: self._words[index].any_of(
                    kind for kind in kinds if kind is not MatchKind.PREFIX or index not in frequent
                )
                for index in selective
            }
            for kinds in (_SAME_KINDS, CLOSE_MATCHES, _NEAR_KINDS, _FAR_KINDS)
        )
        long = [index for index in selective if len(self._words[index].folded) >= MIN_PAIRED_LETTERS]
        paired = long if len(long) > 1 else selective[:2]
        pairs = [
            pair
            for one, other in combinations(paired[:MAX_PAIRED_WORDS], 2)
            for pair in ((near[one], far[other]), (far[one], near[other]))
        ]
        if len(paired) > 2:  # noqa: PLR2004  # more than a pair
            pairs.append((far[paired[0]], _all_of(near[index] for index in paired[1:])))
        if 3 < len(paired) <= MAX_SINGLE_WORDS:  # noqa: PLR2004  # all but one are more than a pair
            for left_out in paired:
                first, *rest = (index for index in paired if index != left_out)
                pairs.append((close[first], _all_of(same[index] for index in rest)))
        return pairs


def _all_of(queries: Iterable[str]) -> str:
    return " & ".join(f"({query})" for query in queries)
