"""Patients API: a small, fast, trustworthy microservice that stores the patients of a group of clinics."""
