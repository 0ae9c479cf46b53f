"""The search of FHIR resources: parameters, their values, and the SQL conditions that they stand for."""
