"""HTTP: middleware, problem responses and strict JSON."""
