from collections.abc import Iterable
from typing import Any, ClassVar

from django.db import models, transaction
from rest_framework import serializers

from app import contract
from benchmarks.peers.drf.models import Doctor, Hospital, Patient, Profile


class ProfileSerializer(serializers.ModelSerializer):
    class Meta:
        model = Profile
        fields = ("unique_id", "email", "first_name", "last_name")
        # its own validator refuses existing ids, which here name the profile to change
        extra_kwargs: ClassVar[dict[str, Any]] = {"unique_id": {"validators": []}}


class HospitalSerializer(serializers.ModelSerializer):
    class Meta:
        model = Hospital
        fields = ("unique_id", "hospital_name")


class DoctorSerializer(serializers.ModelSerializer):
    class Meta:
        model = Doctor
        fields = ("unique_id", "doctor_first_name")


def _existing_records(model: type[models.Model], ids: Iterable[str]) -> list[models.Model]:
    """Fetch all records in one query, where the framework's own field for many keys has one query for each."""
    requested_ids = set(ids)
    records = list(model.objects.filter(unique_id__in=requested_ids))
    if len(records) < len(requested_ids):
        raise serializers.ValidationError("There is none of this unique_id.")
    return records


def _id_list_field() -> Any:
    return serializers.ListField(child=serializers.CharField(max_length=64), write_only=True, required=False)


class PatientSerializer(serializers.ModelSerializer):
    patient_profile = ProfileSerializer(required=False, allow_null=True)
    patient_hospital = HospitalSerializer(many=True, read_only=True)
    patient_doctor = DoctorSerializer(many=True, read_only=True)
    hospital_ids = _id_list_field()
    doctor_ids = _id_list_field()

    class Meta:
        model = Patient
        fields = (*contract.PATIENT, "hospital_ids", "doctor_ids")
        read_only_fields = ("unique_id", "date_created", "last_updated")

    def validate_hospital_ids(self, ids: list[str]) -> list[models.Model]:
        return _existing_records(Hospital, ids)

    def validate_doctor_ids(self, ids: list[str]) -> list[models.Model]:
        return _existing_records(Doctor, ids)

    @transaction.atomic
    def create(self, validated_data: dict[str, Any]) -> Patient:
        hospitals = validated_data.pop("hospital_ids", [])
        doctors = validated_data.pop("doctor_ids", [])
        _upsert_profile(validated_data)
        patient: Patient = Patient.objects.create(**validated_data)
        patient.patient_hospital.add(*hospitals)
        patient.patient_doctor.add(*doctors)
        return patient

    @transaction.atomic
    def update(self, instance: Patient, validated_data: dict[str, Any]) -> Patient:
        hospitals = validated_data.pop("hospital_ids", None)
        doctors = validated_data.pop("doctor_ids", None)
        _upsert_profile(validated_data)
        for name, value in validated_data.items():
            setattr(instance, name, value)
        instance.save()
        if hospitals is not None:
            instance.patient_hospital.set(hospitals)
        if doctors is not None:
            instance.patient_doctor.set(doctors)
        return instance


def _upsert_profile(validated_data: dict[str, Any]) -> None:
    """Write the nested profile, and replace the data by the saved profile."""
    profile = validated_data.get("patient_profile")
    if profile is not None:
        unique_id = profile.pop("unique_id")
        validated_data["patient_profile"], _ = Profile.objects.update_or_create(unique_id=unique_id, defaults=profile)
