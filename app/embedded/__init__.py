"""The embedded PostgreSQL server, for laptops and tests."""
