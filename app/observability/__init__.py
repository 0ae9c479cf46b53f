"""What operators see: log lines, and whether the service lives and is ready."""
