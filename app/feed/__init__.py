"""The change feed over HTTP: pages, long polls and streams of changes."""
