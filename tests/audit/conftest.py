"""Fixtures for tests of the audit: principals with and without a hospital scope, and commands."""

from tests.hospital_scope.conftest import command, deleted_records, scoped_clients, serving_url

__all__ = ["command", "deleted_records", "scoped_clients", "serving_url"]
