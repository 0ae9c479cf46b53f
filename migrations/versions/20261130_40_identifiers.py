"""Identifiers of patients: a column, a table by which patients are found and that holds uniqueness, and the types.

Triggers fill the table with the rights of its owner, so that an older version of the service, whose role has no rights
to it, can still write patients.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "20261130_40"
down_revision = "20261130_31"

TYPES = (
    ("za_id", "za.idnr", "register", "ZA"),
    ("passport", None, "register", None),
    ("asylum", None, "none", None),
    ("medical_aid", None, "none", None),
    ("birth_certificate", None, "none", None),
    ("folder", None, "hospital", None),
    ("other", None, "none", None),
)
"""Name, checker, uniqueness and country. Families share asylum files and medical aids."""
# a function of its own, because an import that replaces the table of patients calls it without triggers
ROWS = """
CREATE FUNCTION public.patient_identifier_rows(owner_id text, identifiers jsonb)
RETURNS TABLE (value text, type text, country text, scope text, patient_id text, hospital_id text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY SELECT entry.normalized, entry.type, coalesce(entry.country, ''),
        CASE identifier_types.uniqueness
            WHEN 'register' THEN '' WHEN 'hospital' THEN coalesce(entry.hospital_id, owner_id) ELSE owner_id
        END,
        owner_id, entry.hospital_id
    FROM jsonb_to_recordset(identifiers) AS entry(normalized text, type text, country text, hospital_id text)
    LEFT JOIN public.identifier_types ON identifier_types.name = entry.type
    -- all transactions add them in the same order, so that they cannot deadlock
    ORDER BY 1, 2, 3, 4;
END $$
"""
INDEX = """
CREATE FUNCTION public.index_patient_identifiers() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF TG_OP <> 'INSERT' THEN
        DELETE FROM public.patient_identifiers WHERE patient_id = OLD.unique_id;
    END IF;
    IF TG_OP <> 'DELETE' THEN
        INSERT INTO public.patient_identifiers
        SELECT * FROM public.patient_identifier_rows(NEW.unique_id, NEW.patient_identifiers);
    END IF;
    RETURN NULL;
END $$
"""
_CHANGED = "OLD.patient_identifiers IS DISTINCT FROM NEW.patient_identifiers"
_INDEX = "EXECUTE FUNCTION index_patient_identifiers()"
TRIGGERS = {
    "index_identifiers_after_insert": "AFTER INSERT ON patients FOR EACH ROW "
    f"WHEN (NEW.patient_identifiers IS NOT NULL) {_INDEX}",
    "index_identifiers_after_update": f"AFTER UPDATE ON patients FOR EACH ROW WHEN ({_CHANGED}) {_INDEX}",
    "index_identifiers_after_delete": "AFTER DELETE ON patients FOR EACH ROW "
    f"WHEN (OLD.patient_identifiers IS NOT NULL) {_INDEX}",
    "compare_after_identifiers": f"AFTER UPDATE ON patients FOR EACH ROW WHEN ({_CHANGED}) "
    "EXECUTE FUNCTION compare_changed_patient()",
}
FUNCTIONS = {"index_patient_identifiers()": INDEX, "patient_identifier_rows(text, jsonb)": ROWS}


def upgrade() -> None:
    id_text = sa.Text(collation="C")
    types = op.create_table(
        "identifier_types",
        sa.Column("name", id_text, nullable=False),
        sa.Column("checker", id_text, nullable=True),
        sa.Column("uniqueness", id_text, nullable=False),
        sa.Column("country", id_text, nullable=True),
        sa.CheckConstraint("name ~ '^[a-z][a-z0-9_]{0,39}$'", name=op.f("ck_identifier_types_name")),
        sa.CheckConstraint(
            "uniqueness IN ('none', 'register', 'hospital')", name=op.f("ck_identifier_types_uniqueness")
        ),
        sa.CheckConstraint("country ~ '^[A-Z]{2}$'", name=op.f("ck_identifier_types_country")),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_identifier_types")),
    )
    op.bulk_insert(
        types, [dict(zip(("name", "checker", "uniqueness", "country"), each, strict=True)) for each in TYPES]
    )
    op.create_table(
        "patient_identifiers",
        sa.Column("value", id_text, nullable=False),
        sa.Column("type", id_text, nullable=False),
        sa.Column("country", id_text, nullable=False),
        sa.Column("scope", id_text, nullable=False),
        sa.Column("patient_id", id_text, nullable=False),
        sa.Column("hospital_id", id_text, nullable=True),
        sa.PrimaryKeyConstraint("value", "type", "country", "scope", name=op.f("pk_patient_identifiers")),
        sa.ForeignKeyConstraint(
            ["hospital_id"],
            ["hospitals.unique_id"],
            name=op.f("fk_patient_identifiers_hospital_id"),
            ondelete="RESTRICT",
        ),
    )
    op.create_index(op.f("ix_patient_identifiers_patient_id"), "patient_identifiers", ["patient_id"])
    op.create_index(
        op.f("ix_patient_identifiers_hospital_id_patient_id"), "patient_identifiers", ["hospital_id", "patient_id"]
    )
    op.add_column("patients", sa.Column("patient_identifiers", JSONB(), nullable=True))
    # statistics would keep values of erased patients
    op.execute("ALTER TABLE patients ALTER COLUMN patient_identifiers SET STATISTICS 0")
    op.execute("ALTER TABLE patient_identifiers ALTER COLUMN value SET STATISTICS 0")
    op.execute(ROWS)
    op.execute(INDEX)
    op.execute("REVOKE EXECUTE ON FUNCTION index_patient_identifiers() FROM PUBLIC")
    for name, trigger in TRIGGERS.items():
        op.execute(f"CREATE TRIGGER {name} {trigger}")


def downgrade() -> None:
    for name in TRIGGERS:
        op.execute(f"DROP TRIGGER {name} ON patients")
    for signature in FUNCTIONS:
        op.execute(f"DROP FUNCTION {signature}")
    op.drop_column("patients", "patient_identifiers")
    op.drop_table("patient_identifiers")
    op.drop_table("identifier_types")
