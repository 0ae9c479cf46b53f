"""The search box: what was typed, the words that are meant, and who is found, best match first."""
