"""Verifies that the journal is complete: checks its hash chains, and compares records with their journal entries."""
