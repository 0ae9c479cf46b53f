"""The routes that merge two records and undo this."""

from dataclasses import replace
from typing import Any, cast

from fastapi import APIRouter, Request, Response

from app.api.crud import written_service
from app.api.documentation import IDEMPOTENCY_KEY, IF_MATCH, header_references, problem_responses, request_parameters
from app.api.resource import ResourceApi, annotate
from app.api.responses import nested_document, record_response
from app.api.writes import WriteRequest
from app.audit.recorder import RequestAudit
from app.auth.scopes import Scope, requires
from app.errors import AlreadyMergedError, MergedError, UndoFirstError
from app.merging.schemas import MergeRequest, UnmergeRequest, merge_request, unmerged_schema
from app.merging.service import MergingService, choosable_columns
from app.records.preconditions import Precondition, entity_tag
from app.records.results import Record

_MERGE_ERRORS = [{"loc": ["body", "from"], "msg": "Must be the unique_id of a patient", "type": "unknown_patient"}]


class _UndoError(Exception):
    """Raised to undo a merge that was only a dry run."""

    def __init__(self, stored: Record, outcome: Record) -> None:
        super().__init__()
        self.stored = stored
        self.outcome = outcome


def add_merge_routes(router: APIRouter, resource: ResourceApi[Any, Any], example: dict[str, Any]) -> None:
    """Add to a router the routes that merge two records of `resource` and undo this.

    `example` is the example of a request to merge. The service class of the resource must be a `MergingService`.
    """
    noun, service_class = resource.noun, cast("type[MergingService[Any, Any]]", resource.service_class)
    name = resource.representation.__name__
    body_schema: Any = merge_request(name, choosable_columns(resource.repository_class), example)
    unmerged: Any = unmerged_schema(
        name,
        resource.representation,
        {noun: resource.representation.example, "survivor": "pat456", "kept": ["patient_town"]},
    )

    async def merge_records(request: Request, unique_id: str, body: MergeRequest) -> Response:
        RequestAudit.from_request(request).ids = [unique_id, body.loser_id]
        service = cast("type[MergingService[Any, Any]]", written_service(request, resource))
        write = WriteRequest(request, service, body=body, unique_id=unique_id, accepts_key=True)

        async def merge(service: MergingService[Any, Any], precondition: Precondition) -> Record:
            if not body.dry_run:
                return await service.merge(unique_id, body, precondition)
            stored = await service.repository.get(unique_id)
            raise _UndoError(stored, await service.merge(unique_id, body, precondition))

        try:
            return write.response(await write.run(merge))
        except _UndoError as tried:
            stored_tag = {"ETag": entity_tag(tried.stored.document)}  # for the If-Match of the merge itself
            return record_response(request, tried.outcome.document, headers=stored_tag)

    annotate(merge_records, unique_id=resource.path_id, body=body_schema)
    router.post(
        "/{unique_id}/merge/",
        name=f"merge_{noun}",
        summary=f"Merge another {noun} into this one",
        description=f"Merge the {noun} in `from` into the one in the path, which gets the links of both. The merged "
        f"{noun} leaves all lists, and requests for it get a 410 that names the other one. Its history stays readable. "
        "`unmerge/` undoes this, also after later changes.",
        response_description=f"The {noun} in the path after the merge or, with `dry_run`, as it would be, with the "
        "`ETag` that it has now.",
        response_model=resource.record_model,
        openapi_extra=requires(Scope.PATIENTS_MERGE)
        | request_parameters(query=resource.write_parameters, headers=(IF_MATCH, IDEMPOTENCY_KEY)),
        responses=problem_responses(
            400,
            404,
            409,
            410,
            412,
            413,
            415,
            422,
            428,
            noun=noun,
            conflict=AlreadyMergedError(noun, "pat789"),
            gone=MergedError(noun, "pat789"),
            errors=_MERGE_ERRORS,
        )
        | {200: {"headers": header_references("ETag", "Idempotency-Replayed")}},
    )(merge_records)

    async def unmerge_record(request: Request, unique_id: str, body: UnmergeRequest) -> Response:
        audit = RequestAudit.from_request(request)
        write = WriteRequest(request, service_class, body=body, unique_id=unique_id, accepts_key=True)

        async def unmerge(service: MergingService[Any, Any], precondition: Precondition) -> Record:
            record, survivor_id, kept = await service.unmerge(unique_id, body, precondition)
            audit.ids = [unique_id, survivor_id]
            document = nested_document(noun, record.document, {"survivor": survivor_id, "kept": kept})
            return Record(unique_id, document)

        record = await write.run(unmerge)
        return Response(record.document, headers=write.replay_headers, media_type="application/json")

    annotate(unmerge_record, unique_id=replace(resource, example_id=body_schema.example["from"]).path_id)
    router.post(
        "/{unique_id}/unmerge/",
        name=f"unmerge_{noun}",
        summary=f"Undo the merge of a {noun}",
        description=f"Bring back a {noun} that was merged into another one, as it was. The other one loses what the "
        "merge gave to it, except for fields and links that have changed since. If several were merged into it, the "
        "newest merge has to be undone first.",
        response_description=f"The {noun} that is back, and the fields of the other one that stay.",
        response_model=unmerged,
        openapi_extra=requires(Scope.PATIENTS_MERGE) | request_parameters(headers=(IDEMPOTENCY_KEY,)),
        responses=problem_responses(
            400,
            404,
            409,
            412,
            413,
            415,
            422,
            noun=noun,
            conflict=UndoFirstError(noun, "pat789"),
            errors=[{"loc": ["body", "skip_missing"], "msg": "Must be true or false", "type": "bool_type"}],
        )
        | {200: {"headers": header_references("Idempotency-Replayed")}},
    )(unmerge_record)
