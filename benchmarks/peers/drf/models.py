"""Models on the service's own tables."""

from django.db import models

from app import contract
from app.identifiers import new_identifier


def _patient_id() -> str:
    return new_identifier("pat")


class Record(models.Model):
    unique_id = models.CharField(primary_key=True, max_length=64)
    date_created = models.DateTimeField(auto_now_add=True)
    last_updated = models.DateTimeField(auto_now=True)

    class Meta:
        abstract = True
        managed = False
        ordering = ("unique_id",)


class Profile(Record):
    email = models.EmailField(null=True)
    first_name = models.CharField(max_length=150, null=True)
    last_name = models.CharField(max_length=150, null=True)

    class Meta(Record.Meta):
        db_table = "profiles"


class Hospital(Record):
    hospital_name = models.CharField(max_length=255)

    class Meta(Record.Meta):
        db_table = "hospitals"


class Doctor(Record):
    doctor_first_name = models.CharField(max_length=150)
    doctor_last_name = models.CharField(max_length=150, null=True)

    class Meta(Record.Meta):
        db_table = "doctors"


class Patient(Record):
    class Gender(models.TextChoices):
        MALE = "Male"
        FEMALE = "Female"
        OTHER = "Other"
        UNKNOWN = "Unknown"

    unique_id = models.CharField(primary_key=True, max_length=64, default=_patient_id)
    patient_profile = models.ForeignKey(Profile, models.PROTECT, null=True, db_column="profile_id")
    patient_email_address = models.EmailField(null=True)
    patient_mobile_number = models.CharField(max_length=40, null=True)
    patient_title = models.CharField(max_length=50, null=True)
    patient_first_name = models.CharField(max_length=150, null=True)
    patient_initials = models.CharField(max_length=20, null=True)
    patient_last_name = models.CharField(max_length=150, null=True)
    patient_date_of_birth = models.DateField(null=True)
    patient_gender = models.CharField(max_length=7, choices=Gender.choices, null=True)
    patient_race = models.CharField(max_length=100, null=True)
    patient_physical_address = models.CharField(max_length=500, null=True)
    patient_address_line_1 = models.CharField(max_length=255, null=True)
    patient_town = models.CharField(max_length=150, null=True)
    patient_region = models.CharField(max_length=150, null=True)
    patient_province = models.CharField(max_length=150, null=True)
    patient_country = models.CharField(max_length=150, null=True)
    patient_postal_code = models.CharField(max_length=20, null=True)
    patient_latitude = models.DecimalField(max_digits=9, decimal_places=6, null=True)
    patient_longitude = models.DecimalField(max_digits=9, decimal_places=6, null=True)
    patient_access_medical_care = models.CharField(max_length=255, null=True)
    patient_hospital = models.ManyToManyField(Hospital, db_table="patient_hospitals")
    patient_doctor = models.ManyToManyField(Doctor, db_table="patient_doctors")

    class Meta(Record.Meta):
        db_table = "patients"


for _name in contract.PATIENT:
    if not hasattr(Patient, _name):  # a field that the former service did not have
        Patient.add_to_class(_name, models.TextField(null=True))
