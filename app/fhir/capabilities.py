"""The CapabilityStatement, made from the routes and the definitions of the search parameters."""

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from fastapi import Request, Response
from fastapi.routing import iter_route_contexts
from pydantic_core import to_json

from app.about.openapi import API_METADATA
from app.fhir.responses import fhir_response
from app.fhir.routing import FhirRoute, Interaction, base_url
from app.fhir_search.parameters import RESULT_PARAMETERS, SEARCH_PARAMETERS, SORT_COLUMNS
from app.http.outcomes import FHIR_MEDIA_TYPE

FHIR_VERSION = "4.0.1"
STATEMENT_DATE = "2026-11-30"
"""When the interface last changed. A statement must have a date."""
_OPERATION_DEFINITIONS = {"$match": "http://hl7.org/fhir/OperationDefinition/Patient-match"}
_NOT_INTERACTIONS = frozenset({"capabilities", "update-conditional"})
"""Codes of routes that a statement does not list as interactions, but expresses in another way."""
_FEATURES: dict[str, dict[str, Any]] = {
    "create": {"conditionalCreate": True},
    "update": {"updateCreate": True},
    "update-conditional": {"conditionalUpdate": True},
    "delete": {"conditionalDelete": "not-supported"},
    "read": {"versioning": "versioned", "readHistory": False, "conditionalRead": "not-match"},
    "vread": {"readHistory": True},
}
"""What a statement says of a resource type if it has a route with this code."""


async def read_capabilities(request: Request) -> Response:
    """Return the CapabilityStatement of the service."""
    found = {
        route.original_route.interaction
        for route in iter_route_contexts(request.app.routes)
        if isinstance(route.original_route, FhirRoute)
    }
    return fhir_response(_statement(frozenset(found), base_url(request)))


@lru_cache(8)
def _statement(interactions: frozenset[Interaction], base: str) -> bytes:
    by_type = {
        name: [each for each in interactions if each.resource_type == name] for name in (*SEARCH_PARAMETERS, None)
    }
    rest = {
        "mode": "server",
        "documentation": "What the register cannot hold is refused by name, unless a request has the header "
        "`Prefer: handling=lenient`. Unknown parameters are refused by name, too.",
        "security": {
            "description": "Send an API key or an access token as `Authorization: Bearer …`. Each interaction needs a "
            "scope. A principal that is restricted to hospitals sees the patients of these.",
        },
        "resource": [_resource(name, by_type[name]) for name in SEARCH_PARAMETERS],
        "interaction": _interactions(by_type[None]),
        "searchParam": [
            {"name": name, "type": kind, "documentation": text} for name, (kind, text) in RESULT_PARAMETERS.items()
        ],
    }
    statement = {
        "resourceType": "CapabilityStatement",
        "status": "active",
        "date": STATEMENT_DATE,
        "kind": "instance",
        "software": {"name": API_METADATA["title"], "version": API_METADATA["version"]},
        "implementation": {"description": API_METADATA["summary"], "url": base},
        "fhirVersion": FHIR_VERSION,
        "format": [FHIR_MEDIA_TYPE, "json"],
        "rest": [{name: value for name, value in rest.items() if value}],
    }
    return to_json(statement)


def _interactions(interactions: Iterable[Interaction]) -> list[dict[str, str]]:
    codes = {code for each in interactions for code in each.code.split() if not code.startswith("$")}
    return [{"code": code} for code in sorted(codes - _NOT_INTERACTIONS)]


def _resource(name: str, interactions: list[Interaction]) -> dict[str, Any]:
    codes = {each.code for each in interactions}
    features: dict[str, Any] = {}
    for code, said in _FEATURES.items():
        features |= said if code in codes else {}
    operations = [
        {"name": code.removeprefix("$"), "definition": _OPERATION_DEFINITIONS[code]}
        for code in sorted(codes & _OPERATION_DEFINITIONS.keys())
    ]
    parameters = [
        {"name": each.name, "type": each.type, "documentation": _documentation(each.documentation, each.all_modifiers)}
        for each in SEARCH_PARAMETERS[name].values()
    ]
    resource = {
        "type": name,
        "documentation": f"Searches can be sorted by {', '.join(SORT_COLUMNS[name])}.",
        "interaction": _interactions(interactions),
        **features,
        "referencePolicy": ["literal"],
        "searchParam": parameters,
        "operation": operations,
    }
    return {key: value for key, value in resource.items() if value != []}


def _documentation(text: str, modifiers: tuple[str, ...]) -> str:
    if not modifiers:
        return text
    return f"{text} Modifiers: {', '.join(f':{modifier}' for modifier in modifiers)}."
