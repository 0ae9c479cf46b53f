"""Matching over HTTP: the patients who may be a person, and the check before a person is registered."""

from functools import partial
from typing import Any

from fastapi import APIRouter, Request, Response

from app.api.documentation import JsonObject, problem_responses
from app.api.resource import CreationCheck, ResourceApi, annotate
from app.api.responses import nested_document
from app.api.services import get_services
from app.audit.recorder import RequestAudit
from app.auth.principal import Principal
from app.auth.scopes import requires
from app.db.connection import Connection
from app.errors import FieldError, PossibleDuplicateError, ValidationFailedError
from app.fields.schemas import Representation
from app.matching.matches import Match, find_matches
from app.matching.similar_words import SimilarWords
from app.matching.weights import STRONG_GRADES, Grade
from app.paths import MATCH_SUFFIX
from app.records.repository import Repository

DUPLICATE_CHECK: JsonObject = {
    "name": "Duplicate-Check",
    "description": "`refuse`: if the person may be registered already, nothing is stored, and the response is 409 with "
    "the patients who may be the person. `queue`: the patient is registered, and the pairs are added to the queue of "
    "possible duplicates. The operator chooses the default.",
    "schema": {"type": "string", "enum": ["refuse", "queue"]},
}


def duplicate_check(request: Request, body: Any) -> CreationCheck | None:
    """Return the check that a request asks for before it registers a patient, or None if it asks for none.

    Raises:
        ValidationFailedError: the header `Duplicate-Check` is neither `refuse` nor `queue`.
    """
    header = request.headers.get("duplicate-check")
    if header not in {None, "refuse", "queue"}:
        error = FieldError(("header", "Duplicate-Check"), "Must be refuse or queue", "literal_error")
        raise ValidationFailedError([error])
    if (header or get_services(request).settings.duplicate_check) == "queue":
        return None
    return partial(_refuse_duplicates, request, body)


async def _refuse_duplicates(request: Request, body: Any, connection: Connection) -> None:
    """Raise an error if the patient to create is probably registered already.

    Raises:
        PossibleDuplicateError: there are such patients that are visible to the principal.
    """
    excluded_ids = [*body.not_duplicates, body.unique_id]  # a taken id is an error of its own
    matches = await find_matches(connection, body.sent_fields(), _similar_words(request), excluded_ids)
    duplicates = {
        match.unique_id: match.comparison.grade for match in matches if match.comparison.grade in STRONG_GRADES
    }
    if duplicates:
        RequestAudit.from_request(request).ids = list(duplicates)
        raise PossibleDuplicateError(
            [{"unique_id": unique_id, "grade": str(grade)} for unique_id, grade in duplicates.items()]
        )


def _similar_words(request: Request) -> SimilarWords:
    """Return the similar words of names that the principal may see. All unrestricted principals share them."""
    hospitals = Principal.from_request(request).hospitals
    return get_services(request).comparison.similar_words if hospitals is None else SimilarWords(hospitals)


async def matching_records(request: Request, repository_class: type[Repository], body: Any) -> list[tuple[Match, str]]:
    """Return the patients who may be the person in the body of a request, with their documents, and audit the access.

    `body` has the fields of a patient, the id of a patient to leave out, and `only_certain`.
    """
    services, principal = get_services(request), Principal.from_request(request)
    async with services.database.search_snapshot(principal.name) as connection:
        matches = await find_matches(connection, body.sent_fields(), _similar_words(request), [body.unique_id])
        if body.only_certain:
            certain = [match for match in matches if match.comparison.grade is Grade.CERTAIN]
            matches = certain if len(certain) == 1 else []
        records = await repository_class(connection, principal).get_many([match.unique_id for match in matches])
    await RequestAudit.from_request(request).record_page([match.unique_id for match in matches])
    return [(match, records[match.unique_id].document) for match in matches]


def add_match_route(
    router: APIRouter, resource: ResourceApi[Any, Any], body: Any, candidate: type[Representation]
) -> None:
    """Add the route that returns the patients who may be a person. It must precede the routes of single patients.

    `body` and `candidate` are the models of the request body and of an item of the response.
    """

    async def match_patient(request: Request, body: Any) -> Response:
        candidates = []
        for (_, comparison), document in await matching_records(request, resource.repository_class, body):
            score, grade = comparison.score, comparison.grade
            rest = {"score": score, "grade": grade, "agrees": comparison.agrees, "differs": comparison.differs}
            candidates.append(nested_document("patient", document, rest))
        return Response(f"[{','.join(candidates)}]", media_type="application/json")

    annotate(match_patient, body=body)
    router.post(
        f"/{MATCH_SUFFIX}",
        name="match_patient",
        summary="Find who a person may be",
        description="Find the patients who may be the person that the body describes, best first, at most 20. The body "
        "is any part of the body that would create the patient.",
        response_description="The patients who may be the person.",
        response_model=list[candidate],  # type: ignore[valid-type]
        openapi_extra=requires(resource.read_scope),
        responses=problem_responses(400, 413, 415, 422, errors=resource.body_errors),
    )(match_patient)
