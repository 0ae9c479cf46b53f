"""Bringing records in from files, and out into files: whole registers, set by set."""
