"""Benchmarks: the service and its peers, on one machine in one run (see README.md)."""
