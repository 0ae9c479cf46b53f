"""The URIs that the mapping defines or uses: identifier systems and extensions. They never change."""

UNIQUE_ID_SYSTEM = "urn:patients-api:unique-id"
"""System of the identifier that contains the `unique_id` of a record."""
IDENTIFIER_SYSTEM_PREFIX = "urn:patients-api:identifier:"
"""Beginning of the systems of other identifiers. The rest is the name of the type, such as `za_id`."""

COUNTRY_EXTENSION = "urn:patients-api:extension:country"
"""The country that issued an identifier."""
TEXT_EXTENSIONS = {
    "urn:patients-api:extension:race": "patient_race",
    "urn:patients-api:extension:access-to-medical-care": "patient_access_medical_care",
}
"""The extensions of a Patient that are texts, each with the field that it represents."""
HOSPITAL_EXTENSION = "urn:patients-api:extension:hospital"
"""A hospital of a patient, besides the one in `managingOrganization`."""
PROFILE_EXTENSION = "urn:patients-api:extension:profile"
INITIALS_EXTENSION = "urn:patients-api:extension:initials"
ADDRESS_LINE_1_EXTENSION = "urn:patients-api:extension:address-line-1"
"""Marks the only line of an address as the second line. The first line is unknown then."""
GEOLOCATION_EXTENSION = "http://hl7.org/fhir/StructureDefinition/geolocation"
MATCH_GRADE_EXTENSION = "http://hl7.org/fhir/StructureDefinition/match-grade"
