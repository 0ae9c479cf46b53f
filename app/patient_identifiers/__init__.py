"""The identifiers that others give to patients: identity numbers, passports, folders of hospitals. docs/identifiers.md.

`resolve` checks identifiers and brings them into the form in which they are stored. `patient_ids` finds their patients,
and `united` unites the identifiers of two patients.
"""
