"""Whether two patients are one person: comparison, weights, and candidates for a comparison."""
