"""Agreement of patients with the terms of a search text: its conditions, the points it adds, and their weights."""
