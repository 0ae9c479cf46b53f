"""The tables: patients, profiles, hospitals, doctors, their links, and the ids that are not to be used again."""

import sqlalchemy as sa
from alembic import op

revision = "20261122_01"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "doctors",
        sa.Column("unique_id", sa.Text(collation="C"), nullable=False),
        sa.Column("version", sa.BigInteger(), server_default="1", nullable=False),
        sa.Column("doctor_first_name", sa.Text(collation="pg_c_utf8"), nullable=False),
        sa.Column("doctor_last_name", sa.Text(collation="pg_c_utf8"), nullable=True),
        sa.Column(
            "date_created", sa.DateTime(timezone=True), server_default=sa.text("statement_timestamp()"), nullable=False
        ),
        sa.Column(
            "last_updated", sa.DateTime(timezone=True), server_default=sa.text("statement_timestamp()"), nullable=False
        ),
        sa.CheckConstraint("char_length(doctor_first_name) <= 150", name=op.f("ck_doctors_doctor_first_name_length")),
        sa.CheckConstraint("char_length(doctor_last_name) <= 150", name=op.f("ck_doctors_doctor_last_name_length")),
        sa.CheckConstraint("char_length(unique_id) <= 64", name=op.f("ck_doctors_unique_id")),
        sa.PrimaryKeyConstraint("unique_id", name=op.f("pk_doctors")),
    )
    op.create_table(
        "hospitals",
        sa.Column("unique_id", sa.Text(collation="C"), nullable=False),
        sa.Column("version", sa.BigInteger(), server_default="1", nullable=False),
        sa.Column("hospital_name", sa.Text(collation="pg_c_utf8"), nullable=False),
        sa.Column(
            "date_created", sa.DateTime(timezone=True), server_default=sa.text("statement_timestamp()"), nullable=False
        ),
        sa.Column(
            "last_updated", sa.DateTime(timezone=True), server_default=sa.text("statement_timestamp()"), nullable=False
        ),
        sa.CheckConstraint("char_length(hospital_name) <= 255", name=op.f("ck_hospitals_hospital_name_length")),
        sa.CheckConstraint("char_length(unique_id) <= 64", name=op.f("ck_hospitals_unique_id")),
        sa.PrimaryKeyConstraint("unique_id", name=op.f("pk_hospitals")),
    )
    op.create_table(
        "profiles",
        sa.Column("unique_id", sa.Text(collation="C"), nullable=False),
        sa.Column("version", sa.BigInteger(), server_default="1", nullable=False),
        sa.Column("email", sa.Text(collation="pg_c_utf8"), nullable=True),
        sa.Column("first_name", sa.Text(collation="pg_c_utf8"), nullable=True),
        sa.Column("last_name", sa.Text(collation="pg_c_utf8"), nullable=True),
        sa.Column(
            "date_created", sa.DateTime(timezone=True), server_default=sa.text("statement_timestamp()"), nullable=False
        ),
        sa.Column(
            "last_updated", sa.DateTime(timezone=True), server_default=sa.text("statement_timestamp()"), nullable=False
        ),
        sa.CheckConstraint("char_length(email) <= 254", name=op.f("ck_profiles_email_length")),
        sa.CheckConstraint("char_length(first_name) <= 150", name=op.f("ck_profiles_first_name_length")),
        sa.CheckConstraint("char_length(last_name) <= 150", name=op.f("ck_profiles_last_name_length")),
        sa.CheckConstraint("char_length(unique_id) <= 64", name=op.f("ck_profiles_unique_id")),
        sa.PrimaryKeyConstraint("unique_id", name=op.f("pk_profiles")),
    )
    op.create_table(
        "retired_ids",
        sa.Column("resource", sa.Text(collation="C"), nullable=False),
        sa.Column("unique_id", sa.Text(collation="C"), nullable=False),
        sa.PrimaryKeyConstraint("resource", "unique_id", name=op.f("pk_retired_ids")),
    )
    op.create_table(
        "patients",
        sa.Column("unique_id", sa.Text(collation="C"), nullable=False),
        sa.Column("version", sa.BigInteger(), server_default="1", nullable=False),
        sa.Column("profile_id", sa.Text(collation="C"), nullable=True),
        sa.Column("patient_email_address", sa.Text(collation="pg_c_utf8"), nullable=True),
        sa.Column("patient_mobile_number", sa.Text(collation="pg_c_utf8"), nullable=True),
        sa.Column(
            "patient_mobile_digits",
            sa.Text(collation="C"),
            sa.Computed("regexp_replace(patient_mobile_number, '[^0-9]', '', 'g')", persisted=True),
            nullable=True,
        ),
        sa.Column("patient_title", sa.Text(collation="pg_c_utf8"), nullable=True),
        sa.Column("patient_first_name", sa.Text(collation="pg_c_utf8"), nullable=True),
        sa.Column("patient_initials", sa.Text(collation="pg_c_utf8"), nullable=True),
        sa.Column("patient_last_name", sa.Text(collation="pg_c_utf8"), nullable=True),
        sa.Column("patient_date_of_birth", sa.Date(), nullable=True),
        sa.Column("patient_gender", sa.Text(collation="C"), nullable=True),
        sa.Column("patient_race", sa.Text(collation="pg_c_utf8"), nullable=True),
        sa.Column("patient_physical_address", sa.Text(collation="pg_c_utf8"), nullable=True),
        sa.Column("patient_address_line_1", sa.Text(collation="pg_c_utf8"), nullable=True),
        sa.Column("patient_town", sa.Text(collation="pg_c_utf8"), nullable=True),
        sa.Column("patient_region", sa.Text(collation="pg_c_utf8"), nullable=True),
        sa.Column("patient_province", sa.Text(collation="pg_c_utf8"), nullable=True),
        sa.Column("patient_country", sa.Text(collation="pg_c_utf8"), nullable=True),
        sa.Column("patient_postal_code", sa.Text(collation="pg_c_utf8"), nullable=True),
        sa.Column("patient_latitude", sa.Numeric(precision=9, scale=6), nullable=True),
        sa.Column("patient_longitude", sa.Numeric(precision=9, scale=6), nullable=True),
        sa.Column("patient_access_medical_care", sa.Text(collation="pg_c_utf8"), nullable=True),
        sa.Column(
            "date_created", sa.DateTime(timezone=True), server_default=sa.text("statement_timestamp()"), nullable=False
        ),
        sa.Column(
            "last_updated", sa.DateTime(timezone=True), server_default=sa.text("statement_timestamp()"), nullable=False
        ),
        sa.CheckConstraint(
            "patient_gender IN ('Male', 'Female', 'Other', 'Unknown')", name=op.f("ck_patients_patient_gender")
        ),
        sa.CheckConstraint(
            "char_length(patient_access_medical_care) <= 255",
            name=op.f("ck_patients_patient_access_medical_care_length"),
        ),
        sa.CheckConstraint(
            "char_length(patient_address_line_1) <= 255", name=op.f("ck_patients_patient_address_line_1_length")
        ),
        sa.CheckConstraint("char_length(patient_country) <= 150", name=op.f("ck_patients_patient_country_length")),
        sa.CheckConstraint(
            "char_length(patient_email_address) <= 254", name=op.f("ck_patients_patient_email_address_length")
        ),
        sa.CheckConstraint(
            "char_length(patient_first_name) <= 150", name=op.f("ck_patients_patient_first_name_length")
        ),
        sa.CheckConstraint("char_length(patient_initials) <= 20", name=op.f("ck_patients_patient_initials_length")),
        sa.CheckConstraint("char_length(patient_last_name) <= 150", name=op.f("ck_patients_patient_last_name_length")),
        sa.CheckConstraint(
            "char_length(patient_mobile_number) <= 40", name=op.f("ck_patients_patient_mobile_number_length")
        ),
        sa.CheckConstraint(
            "char_length(patient_physical_address) <= 500", name=op.f("ck_patients_patient_physical_address_length")
        ),
        sa.CheckConstraint(
            "char_length(patient_postal_code) <= 20", name=op.f("ck_patients_patient_postal_code_length")
        ),
        sa.CheckConstraint("char_length(patient_province) <= 150", name=op.f("ck_patients_patient_province_length")),
        sa.CheckConstraint("char_length(patient_race) <= 100", name=op.f("ck_patients_patient_race_length")),
        sa.CheckConstraint("char_length(patient_region) <= 150", name=op.f("ck_patients_patient_region_length")),
        sa.CheckConstraint("char_length(patient_title) <= 50", name=op.f("ck_patients_patient_title_length")),
        sa.CheckConstraint("char_length(patient_town) <= 150", name=op.f("ck_patients_patient_town_length")),
        sa.CheckConstraint(
            "patient_first_name IS NOT NULL OR patient_last_name IS NOT NULL", name=op.f("ck_patients_named")
        ),
        sa.CheckConstraint("patient_latitude BETWEEN -90 AND 90", name=op.f("ck_patients_patient_latitude")),
        sa.CheckConstraint("patient_longitude BETWEEN -180 AND 180", name=op.f("ck_patients_patient_longitude")),
        sa.ForeignKeyConstraint(
            ["profile_id"], ["profiles.unique_id"], name=op.f("fk_patients_profile_id"), ondelete="RESTRICT"
        ),
        sa.CheckConstraint("char_length(unique_id) <= 64", name=op.f("ck_patients_unique_id")),
        sa.PrimaryKeyConstraint("unique_id", name=op.f("pk_patients")),
    )
    op.create_index(op.f("ix_patients_profile_id"), "patients", ["profile_id"], unique=False)
    op.create_table(
        "patient_doctors",
        sa.Column("patient_id", sa.Text(collation="C"), nullable=False),
        sa.Column("doctor_id", sa.Text(collation="C"), nullable=False),
        sa.ForeignKeyConstraint(
            ["doctor_id"], ["doctors.unique_id"], name=op.f("fk_patient_doctors_doctor_id"), ondelete="RESTRICT"
        ),
        sa.ForeignKeyConstraint(
            ["patient_id"], ["patients.unique_id"], name=op.f("fk_patient_doctors_patient_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("patient_id", "doctor_id", name=op.f("pk_patient_doctors")),
    )
    op.create_index(
        op.f("ix_patient_doctors_doctor_id_patient_id"), "patient_doctors", ["doctor_id", "patient_id"], unique=False
    )
    op.create_table(
        "patient_hospitals",
        sa.Column("patient_id", sa.Text(collation="C"), nullable=False),
        sa.Column("hospital_id", sa.Text(collation="C"), nullable=False),
        sa.ForeignKeyConstraint(
            ["hospital_id"], ["hospitals.unique_id"], name=op.f("fk_patient_hospitals_hospital_id"), ondelete="RESTRICT"
        ),
        sa.ForeignKeyConstraint(
            ["patient_id"], ["patients.unique_id"], name=op.f("fk_patient_hospitals_patient_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("patient_id", "hospital_id", name=op.f("pk_patient_hospitals")),
    )
    op.create_index(
        op.f("ix_patient_hospitals_hospital_id_patient_id"),
        "patient_hospitals",
        ["hospital_id", "patient_id"],
        unique=False,
    )


def downgrade() -> None:
    op.drop_index(op.f("ix_patient_hospitals_hospital_id_patient_id"), table_name="patient_hospitals")
    op.drop_table("patient_hospitals")
    op.drop_index(op.f("ix_patient_doctors_doctor_id_patient_id"), table_name="patient_doctors")
    op.drop_table("patient_doctors")
    op.drop_index(op.f("ix_patients_profile_id"), table_name="patients")
    op.drop_table("patients")
    op.drop_table("retired_ids")
    op.drop_table("profiles")
    op.drop_table("hospitals")
    op.drop_table("doctors")
