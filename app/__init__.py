"""Patients API: a small, fast, trustworthy microservice that keeps a clinic group's patients."""
