"""The documented weights of the score are those that the search uses."""

import re
from pathlib import Path

from app.search_scores import weights

SEARCH_PAGE = Path(__file__).parents[2] / "docs" / "search.md"


def test_the_page_has_the_weights_of_the_score() -> None:
    """The table of `docs/search.md` has exactly the weights of the score, highest first."""
    rows = re.findall(r"^\| ([^|]+) \| (-?\d+) \|$", SEARCH_PAGE.read_text(), re.MULTILINE)
    assert [(name, int(points)) for name, points in rows] == sorted(
        weights.WEIGHTS.items(), key=lambda weight: -weight[1]
    )
