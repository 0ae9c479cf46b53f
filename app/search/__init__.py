"""Patient search: finds the patients that match the terms of a search text and similar words, and orders them."""
