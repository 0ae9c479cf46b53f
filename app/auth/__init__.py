"""Authentication and authorization: credentials, principals and scopes."""
