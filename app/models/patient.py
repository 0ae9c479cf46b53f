from datetime import date
from decimal import Decimal
from typing import Any

from sqlalchemy import (
    CheckConstraint,
    Column,
    Computed,
    Date,
    ForeignKey,
    Index,
    Numeric,
    Table,
    Text,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB, TSVECTOR
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import ID_TEXT, NO_FASTUPDATE, Base, Resource, folded_column, text_column


class Patient(Resource):
    """A patient. The columns have the names of the fields in the API contract."""

    __tablename__ = "patients"
    __table_args__ = (
        CheckConstraint("patient_first_name IS NOT NULL OR patient_last_name IS NOT NULL", name="named"),
        CheckConstraint("patient_gender IN ('Male', 'Female', 'Other', 'Unknown')", name="patient_gender"),
        CheckConstraint("patient_latitude BETWEEN -90 AND 90", name="patient_latitude"),
        CheckConstraint("patient_longitude BETWEEN -180 AND 180", name="patient_longitude"),
    )

    profile_id: Mapped[str | None] = mapped_column(
        ID_TEXT, ForeignKey("profiles.unique_id", ondelete="RESTRICT"), index=True
    )
    patient_email_address: Mapped[str | None] = text_column(254)
    patient_mobile_number: Mapped[str | None] = text_column(40)
    patient_mobile_digits: Mapped[str | None] = mapped_column(
        Text(collation="C"), Computed("regexp_replace(patient_mobile_number, '[^0-9]', '', 'g')", persisted=True)
    )
    """The digits of the mobile number without other characters, because people write the same number in many ways
    (`app.fields.phones`)."""
    patient_title: Mapped[str | None] = text_column(50)
    patient_first_name: Mapped[str | None] = text_column(150)
    patient_initials: Mapped[str | None] = text_column(20)
    patient_last_name: Mapped[str | None] = text_column(150)
    patient_date_of_birth: Mapped[date | None] = mapped_column(Date)
    patient_gender: Mapped[str | None] = mapped_column(Text(collation="C"))
    patient_race: Mapped[str | None] = text_column(100)
    patient_physical_address: Mapped[str | None] = text_column(500)
    patient_address_line_1: Mapped[str | None] = text_column(255)
    patient_town: Mapped[str | None] = text_column(150)
    patient_region: Mapped[str | None] = text_column(150)
    patient_province: Mapped[str | None] = text_column(150)
    patient_country: Mapped[str | None] = text_column(150)
    patient_postal_code: Mapped[str | None] = text_column(20)
    patient_latitude: Mapped[Decimal | None] = mapped_column(Numeric(9, 6))
    patient_longitude: Mapped[Decimal | None] = mapped_column(Numeric(9, 6))
    patient_access_medical_care: Mapped[str | None] = text_column(255)
    patient_identifiers: Mapped[list[dict[str, Any]] | None] = mapped_column(JSONB)
    """The patient's identifiers (`app.patient_identifiers`), sorted, or null if there are none. Triggers write them to
    the table `patient_identifiers`, too."""
    patient_last_name_folded: Mapped[str | None] = folded_column("patient_last_name")
    patient_first_name_folded: Mapped[str | None] = folded_column("patient_first_name")
    patient_email_address_folded: Mapped[str | None] = folded_column("patient_email_address")
    patient_town_folded: Mapped[str | None] = folded_column("patient_town")
    patient_region_folded: Mapped[str | None] = folded_column("patient_region")
    patient_postal_code_folded: Mapped[str | None] = folded_column("patient_postal_code")
    patient_province_folded: Mapped[str | None] = folded_column("patient_province")
    patient_country_folded: Mapped[str | None] = folded_column("patient_country")
    patient_race_folded: Mapped[str | None] = folded_column("patient_race")
    patient_access_medical_care_folded: Mapped[str | None] = folded_column("patient_access_medical_care")
    patient_search: Mapped[str | None] = mapped_column(
        TSVECTOR,
        Computed("spellings(patient_last_name, patient_first_name, patient_initials, patient_title)", persisted=True),
    )
    """The case- and accent-folded words by which a search finds the patient: `o`, `brien` and `obrien` for O'Brien."""


_PATIENT_COLUMNS = Patient.__table__.c
Index(
    "ix_patients_patient_search", _PATIENT_COLUMNS.patient_search, postgresql_using="gin", postgresql_with=NO_FASTUPDATE
)
# sort columns, and filters with many distinct values: with these indexes, a page is one range of an index
for _name in (
    "patient_last_name_folded",
    "patient_first_name_folded",
    "patient_date_of_birth",
    "date_created",
    "last_updated",
    "patient_mobile_digits",
    "patient_email_address_folded",
    "patient_town_folded",
    "patient_region_folded",
    "patient_postal_code_folded",
):
    Index(None, _PATIENT_COLUMNS[_name], _PATIENT_COLUMNS.unique_id)
# filters with few distinct values: these indexes are small, and a scan of the primary key soon finds frequent values
for _name in (
    "patient_province_folded",
    "patient_country_folded",
    "patient_race_folded",
    "patient_access_medical_care_folded",
    "patient_gender",
):
    Index(None, _PATIENT_COLUMNS[_name])
# the house number and the beginning of the street, by which `app.matching.candidates` finds neighbours
Index(
    "ix_patients_left_fold_patient_physical_address_8",
    func.left(func.fold(_PATIENT_COLUMNS.patient_physical_address), text("8")),
)
# filters by time: a page in the order of ids is taken from the first ids of each month
for _name in ("date_created", "last_updated"):
    Index(
        f"ix_patients_month_of_{_name}_unique_id_{_name}",
        func.month_of(_PATIENT_COLUMNS[_name]),
        _PATIENT_COLUMNS.unique_id,
        _PATIENT_COLUMNS[_name],
    )


# the ends of values: a search finds numbers by their last digits, e-mail addresses after a typing error, and ids
Index("ix_patients_reverse_patient_mobile_digits", func.reverse(_PATIENT_COLUMNS.patient_mobile_digits))
Index("ix_patients_reverse_patient_email_address_folded", func.reverse(_PATIENT_COLUMNS.patient_email_address_folded))
Index("ix_patients_reverse_lower_unique_id", func.reverse(func.lower(_PATIENT_COLUMNS.unique_id)))


def _link_table(name: str, target_table: str, target_key: str) -> Table:
    """Return a table of links from patients to the records in `target_table`.

    The links of a patient are deleted with the patient. A record that a patient is linked to cannot be deleted.
    """
    return Table(
        name,
        Base.metadata,
        Column("patient_id", ID_TEXT, ForeignKey("patients.unique_id", ondelete="CASCADE"), primary_key=True),
        Column(target_key, ID_TEXT, ForeignKey(f"{target_table}.unique_id", ondelete="RESTRICT"), primary_key=True),
        Index(None, target_key, "patient_id"),
    )


patient_hospitals = _link_table("patient_hospitals", "hospitals", "hospital_id")
patient_doctors = _link_table("patient_doctors", "doctors", "doctor_id")
