"""The parameters of lists of names, such as hospitals, which can be searched by the words of the names."""

from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field

from app.fields.types import validation_error
from app.listing.pagination import ListParameters
from app.listing.query import ListQuery
from app.locality import Locality
from app.search_text.parser import MAX_NAME_LIST_WORDS, MAX_SEARCH_CHARACTERS, parse_words


def _check_word_count(text: str) -> str:
    if len(parse_words(text)) > MAX_NAME_LIST_WORDS:
        raise validation_error("search_words", f"Must have at most {MAX_NAME_LIST_WORDS} words")
    return text


class NameListParameters(ListParameters):
    """The parameters of a list that can be searched by the words of a name."""

    search_column: ClassVar[str]
    """Name of the generated column with the words by which a record is found (database function `spellings`)."""

    search: Annotated[str, Field(max_length=MAX_SEARCH_CHARACTERS), AfterValidator(_check_word_count)] | None = None
    """Words, or beginnings of words, that the name contains, in any order. Case and accents are ignored."""

    def to_query(self, locality: Locality) -> ListQuery:
        """Return the list query that these parameters ask for. A record must match all words of the search text."""
        query = super().to_query(locality)
        words = parse_words(self.search or "")
        return query._replace(filters={**query.filters, f"{self.search_column}__words": words}) if words else query
