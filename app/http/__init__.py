"""HTTP: middleware, problem responses, query parameters and strict JSON."""
