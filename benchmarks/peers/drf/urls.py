from django.db.models import QuerySet
from django.urls import path
from rest_framework.pagination import LimitOffsetPagination
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ModelViewSet

from benchmarks.peers.drf.models import Patient
from benchmarks.peers.drf.serializers import PatientSerializer


class ArrayPagination(LimitOffsetPagination):
    """Returns records, from the first or after an id, without the framework's count, which would cost another query."""

    default_limit = None

    def paginate_queryset(self, queryset: QuerySet, request: Request, view: object = None) -> list[Patient] | None:  # noqa: ARG002
        limit = self.get_limit(request)
        if (after := request.query_params.get("after")) is not None:
            queryset = queryset.filter(unique_id__gt=after)
        return None if limit is None else list(queryset[:limit])

    def get_paginated_response(self, data: object) -> Response:
        return Response(data)


class PatientViewSet(ModelViewSet):
    queryset = Patient.objects.select_related("patient_profile").prefetch_related("patient_hospital", "patient_doctor")
    serializer_class = PatientSerializer
    pagination_class = ArrayPagination
    lookup_field = "unique_id"

    def update(self, request: Request, *args: object, **kwargs: object) -> Response:
        """Update partially, because the contract's PUT sends five fields and leaves the others unchanged."""
        return super().update(request, *args, **{**kwargs, "partial": True})


urlpatterns = [
    path("patients/patients/", PatientViewSet.as_view({"get": "list", "post": "create"})),
    path("patients/patients/<str:unique_id>/", PatientViewSet.as_view({"get": "retrieve", "put": "update"})),
]
