"""The guide `docs/fhir.md` against the code: mapping, parameters, errors and interactions."""

import re
from pathlib import Path
from typing import get_args

from fastapi.routing import iter_route_contexts

from app.error_types import FhirErrorType
from app.fhir.routing import FhirRoute
from app.fhir_resources.patient_elements import PATIENT_ELEMENTS
from app.fhir_search.parameters import RESULT_PARAMETERS, SEARCH_PARAMETERS
from app.main import create_app
from app.patients.schemas import PatientFields
from app.settings import Settings

GUIDE = (Path(__file__).parents[2] / "docs/fhir.md").read_text()


def table_rows(heading: str) -> list[list[str]]:
    """Return the cells of the first table below a heading, without its head."""
    (table,) = re.findall(rf"^## {heading}\n.*?((?:^\|[^\n]*\n)+)", GUIDE, re.MULTILINE | re.DOTALL)
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


def test_the_guide_has_the_mapping() -> None:
    """The table maps each field of a patient to the element that errors name, and no other field."""
    documented = {field.strip("`"): element.strip("`") for field, element in table_rows("Mapping")}
    assert documented == PATIENT_ELEMENTS
    read_only = {"patient_hospital", "patient_doctor"}
    assert documented.keys() == PatientFields.model_fields.keys() - read_only | {"unique_id"}


def test_the_guide_has_the_search_parameters() -> None:
    """The table has each parameter of each resource type, with the modifiers that it has there."""
    documented: dict[str, dict[str, set[str]]] = {kind: {} for kind in SEARCH_PARAMETERS}
    for names, kinds, modifiers in table_rows("Search"):
        for name in re.findall(r"`([^`]+)`", names):
            for kind in SEARCH_PARAMETERS if kinds == "all" else re.findall(r"`(\w+)`", kinds):
                general, _, particular = modifiers.partition(";")
                found = set(re.findall(r"`:(\w+)`", general))
                found |= set(re.findall(r"`:(\w+)`", particular)) if f"`{kind}`" in particular else set()
                documented[kind][name] = found
    defined = {
        kind: {name: set(parameter.all_modifiers) for name, parameter in parameters.items()}
        for kind, parameters in SEARCH_PARAMETERS.items()
    }
    for kind in ("Practitioner",):
        documented[kind]["given"] -= {"missing"}  # a practitioner always has one
    assert documented == defined
    assert all(f"`{name}" in GUIDE for name in RESULT_PARAMETERS)


def test_the_guide_has_the_errors() -> None:
    """The table has exactly the codes that only requests for FHIR resources have."""
    assert {row[0].strip("`") for row in table_rows("Errors")} == set(get_args(FhirErrorType))


def test_the_guide_has_the_interactions() -> None:
    """The table has each route with its scope."""
    app = create_app(Settings.model_validate({"database_url": "postgresql://never-asked/"}))
    routes = {
        (method, str(route.path).replace("{unique_id}", "{id}"), str(route.original_route.required_scope))
        for route in iter_route_contexts(app.routes)
        if isinstance(route.original_route, FhirRoute) and route.original_route.required_scope
        for method in route.methods or ()
    }
    documented = {
        (method, path.partition("?")[0], scope.strip("`"))
        for _, requests, scope in table_rows("Interactions")
        for method, path in re.findall(r"`(GET|POST|PUT|DELETE) ([^`]+)`", requests)
    }
    searches = {("POST", f"/fhir/{kind}/_search", "directory:read") for kind in ("Practitioner", "Organization")}
    assert documented | searches == routes
