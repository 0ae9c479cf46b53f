"""What the service says about itself and about its callers: probes, metrics, permissions, the OpenAPI document."""
