"""Routes that describe the service and its callers: probes, metrics, permissions, the OpenAPI document."""
