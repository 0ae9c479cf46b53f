"""Imports of patients over HTTP: many records in one request and one transaction."""
