"""Patient search: parses the search text, finds similar words in patients' names, and ranks the matching patients."""
