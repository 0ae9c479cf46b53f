"""The identifiers that others give to patients: identity numbers, passports, folders of hospitals. docs/identifiers.md.

`resolving` checks identifiers, converts them to their stored form, and unites those of two patients. `changes` replaces
those of a patient. `finding` has the conditions by which lists and searches find patients by their identifiers.
"""
