"""The search of FHIR resources: parameters, their values, and the conditions that they are in SQL."""
