"""The change feed: numbers changes, reads them, waits for new ones, and removes old ones."""
