"""Fixtures of patients of two hospitals."""

from tests.hospital_scope.conftest import command, scoped_clients, serving_url

__all__ = ["command", "scoped_clients", "serving_url"]
