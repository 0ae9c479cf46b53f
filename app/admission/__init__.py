"""Admission of expensive work: how much of it runs concurrently, in total and for each principal."""
