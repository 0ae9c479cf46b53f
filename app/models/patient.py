from datetime import date
from decimal import Decimal

from sqlalchemy import CheckConstraint, Column, Computed, Date, ForeignKey, Index, Numeric, Table, Text
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import ID, Base, Resource, text_column


class Patient(Resource):
    """A patient. Columns are named as the contract names its fields."""

    __tablename__ = "patients"
    __table_args__ = (
        CheckConstraint("patient_first_name IS NOT NULL OR patient_last_name IS NOT NULL", name="named"),
        CheckConstraint("patient_gender IN ('Male', 'Female', 'Other', 'Unknown')", name="patient_gender"),
        CheckConstraint("patient_latitude BETWEEN -90 AND 90", name="patient_latitude"),
        CheckConstraint("patient_longitude BETWEEN -180 AND 180", name="patient_longitude"),
    )

    profile_id: Mapped[str | None] = mapped_column(
        ID, ForeignKey("profiles.unique_id", ondelete="RESTRICT"), index=True
    )
    patient_email_address: Mapped[str | None] = text_column(254)
    patient_mobile_number: Mapped[str | None] = text_column(40)
    patient_mobile_digits: Mapped[str | None] = mapped_column(
        Text(collation="C"), Computed("regexp_replace(patient_mobile_number, '[^0-9]', '', 'g')", persisted=True)
    )
    """The mobile number's digits alone, for search: people write one number in many ways."""
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


def _link(name: str, target: str, key: str) -> Table:
    """A link table: gone with its patient, and holding its target in the directory for as long as it is there."""
    return Table(
        name,
        Base.metadata,
        Column("patient_id", ID, ForeignKey("patients.unique_id", ondelete="CASCADE"), primary_key=True),
        Column(key, ID, ForeignKey(f"{target}.unique_id", ondelete="RESTRICT"), primary_key=True),
        Index(None, key, "patient_id"),
    )


patient_hospitals = _link("patient_hospitals", "hospitals", "hospital_id")
patient_doctors = _link("patient_doctors", "doctors", "doctor_id")
