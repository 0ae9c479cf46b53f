"""The FHIR R4 interface: patients, hospitals and doctors as resources, over the services that the contract has."""
