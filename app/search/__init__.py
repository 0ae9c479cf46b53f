"""Search: parsing the search text, expanding its words with the vocabulary, and ranking the patients that match."""
