"""The mapping between records and FHIR R4 resources: PostgreSQL writes the resources, and this package reads them."""
