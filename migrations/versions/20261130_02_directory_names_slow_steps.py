"""Indexes for the filters, orderings and searches of hospitals, doctors and profiles."""

from typing import Any

from alembic import op

revision = "20261130_02"
down_revision = "20261130_01"

SORT_COLUMNS = {
    "doctors": ("doctor_first_name_folded", "doctor_last_name_folded"),
    "hospitals": ("hospital_name_folded",),
    "profiles": ("email_folded", "first_name_folded", "last_name_folded"),
}
INDEXES: list[tuple[str, str, list[str], dict[str, Any]]] = [
    *(
        (f"ix_{table}_{name}_unique_id", table, [name, "unique_id"], {})
        for table, names in SORT_COLUMNS.items()
        for name in names
    ),
    *(
        (f"ix_{table}_{name}", table, [name], {"postgresql_using": "gin", "postgresql_with": {"fastupdate": "off"}})
        for table, name in (("doctors", "doctor_search"), ("hospitals", "hospital_search"))
    ),
]


def upgrade() -> None:
    with op.get_context().autocommit_block():
        for name, table, columns, options in INDEXES:
            op.drop_index(op.f(name), table, if_exists=True, postgresql_concurrently=True)
            op.create_index(op.f(name), table, columns, if_not_exists=True, postgresql_concurrently=True, **options)


def downgrade() -> None:
    for name, table, _, _ in INDEXES:
        op.drop_index(op.f(name), table)
