"""Names of hospitals, doctors and profiles, folded for filters and orderings, and split into words for the search.

The new columns rewrite the three tables, which nobody can use meanwhile: a few seconds for a million profiles.
"""

from alembic import op

revision = "20261130_01"
down_revision = "20261129_05"

FOLDED_COLUMNS = {
    "doctors": ("doctor_first_name", "doctor_last_name"),
    "hospitals": ("hospital_name",),
    "profiles": ("email", "first_name", "last_name"),
}
SEARCH_COLUMNS = {
    "doctors": ("doctor_search", "spellings(doctor_last_name, doctor_first_name, NULL, NULL)"),
    "hospitals": ("hospital_search", "spellings(hospital_name, NULL, NULL, NULL)"),
}


def upgrade() -> None:
    for table, names in FOLDED_COLUMNS.items():
        columns = [f'{name}_folded text COLLATE "C" GENERATED ALWAYS AS (fold({name})) STORED' for name in names]
        if table in SEARCH_COLUMNS:
            name, words = SEARCH_COLUMNS[table]
            columns.append(f"{name} tsvector GENERATED ALWAYS AS ({words}) STORED")
        # in one statement: each by itself would rewrite the table
        op.execute(f"ALTER TABLE {table} {', '.join(f'ADD COLUMN {column}' for column in columns)}")


def downgrade() -> None:
    for table, names in FOLDED_COLUMNS.items():
        for name in names:
            op.drop_column(table, f"{name}_folded")
    for table, (name, _) in SEARCH_COLUMNS.items():
        op.drop_column(table, name)
