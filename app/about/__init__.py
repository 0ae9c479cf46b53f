"""What the service says about itself and about its callers: probes, metrics, and the permissions of a caller."""
