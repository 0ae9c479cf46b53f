"""How fast patients are found in registers of every size, and how well."""
