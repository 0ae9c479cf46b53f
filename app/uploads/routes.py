"""The route of imports: `POST /patients/patients/import/`."""

import asyncio
import hashlib
import json
from collections.abc import Sequence
from typing import NamedTuple

from fastapi import Request, Response

from app.api.documentation import IDEMPOTENCY_KEY, header_references, problem_responses, request_parameters
from app.api.routing import make_router, passthrough
from app.api.services import get_services
from app.audit.recorder import RequestAudit, insert_audit_rows
from app.auth.principal import Principal
from app.auth.scopes import Scope, requires
from app.db.connection import Connection
from app.db.errors import OutOfTimeError
from app.errors import BodyTimeoutError, UnavailableError, UnsupportedMediaTypeError
from app.http.query_parameters import parse_query
from app.listing.formats import NDJSON
from app.paths import IMPORT_SUFFIX, router_prefix
from app.patients.service import PatientService
from app.records.idempotency import IdempotencyKey
from app.records.results import Record
from app.uploads.lines import MAX_IMPORT_LINES, read_lines
from app.uploads.patient_import import LineResult, PatientImport
from app.uploads.schemas import ImportParameters, ImportResult

IMPORT_TIMEOUT_SECONDS = 60.0
"""Maximum duration of the transaction of an import, in seconds: several times what 10,000 lines take."""
TIMEOUT_DETAIL = "The import took longer than a minute, so nothing was stored. Send fewer lines at a time."
RECEIVE_TIMEOUT_SECONDS = 120.0
"""Maximum time for receiving the body, in seconds. At 2 Mbit/s, the largest body takes half of it."""
IDS_PER_AUDIT_ROW = 1000
"""Maximum number of patients in an audit row of an import that is undone."""
router = make_router(router_prefix("patients"), tag="patients", audited=True)


class NdjsonResponse(Response):
    """A response with one JSON document per line."""

    media_type = NDJSON.media_type


_PARAMETER_ERROR = {"loc": ["query", "on_error"], "msg": "Must be 'stop' or 'skip'", "type": "literal_error"}


class _UndoError(Exception):
    """Raised to undo an import whose results are complete."""

    def __init__(self, results: list[LineResult], compared_ids: set[str]) -> None:
        super().__init__()
        self.results = results
        self.compared_ids = compared_ids


class _Outcome(NamedTuple):
    """The outcome of an import that is committed."""

    document: str
    """The results, one per line."""
    is_replayed: bool = False
    """Whether an earlier request with the same Idempotency-Key has imported the lines."""
    is_audited: bool = False
    """Whether the import has audit rows, because it wrote patients or compared lines with them."""


@router.post(
    f"/{IMPORT_SUFFIX}",
    name="import_patients",
    summary="Import patients",
    description=f"""\
Create or update many patients in one transaction. The body has one patient per line (NDJSON), as for creating one: at
most 16 MiB and {MAX_IMPORT_LINES:,} lines. A patient keeps the `date_created` and `last_updated` of the line. The
response has one line per line of the body that is not blank.

If a line is rejected, nothing is stored, and the status of all valid lines is `not_stored`, unless `on_error=skip`. A
line whose patient exists and equals it is `unchanged`, so an import with ids can be repeated. This comparison is a
read, which needs the scope `patients:read` unless `update=true`: otherwise any line of an existing patient is rejected.
Linking a different profile also needs the scope `profiles:read`. Changing a profile needs `profiles:write`, and
`duplicates=refuse` needs `patients:read`, unless the operator has made it the default.""",
    response_description="The results, one per line.",
    openapi_extra=requires(Scope.PATIENTS_WRITE)
    | request_parameters(query=ImportParameters, headers=(IDEMPOTENCY_KEY,))
    | {
        "requestBody": {
            "required": True,
            "content": {
                NDJSON.media_type: {
                    "schema": {"type": "string", "description": "One `PatientCreate` per line."},
                    "example": '{"unique_id": "pat123", "patient_last_name": "Doe"}\n{"patient_last_name": "Roe"}\n',
                }
            },
        }
    },
    response_class=NdjsonResponse,
    response_model=ImportResult,
    responses=problem_responses(400, 408, 413, 415, 422, errors=[_PARAMETER_ERROR])
    | {
        200: {
            # FastAPI documents the schema of JSON responses only
            "content": {NDJSON.media_type: {"schema": {"$ref": f"#/components/schemas/{ImportResult.__name__}"}}},
            "headers": header_references("Idempotency-Replayed"),
        }
    },
)
@passthrough
async def import_patients(request: Request) -> Response:
    """Import the patients in the body of a request."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != NDJSON.media_type:
        raise UnsupportedMediaTypeError(NDJSON.media_type)
    parameters, principal = parse_query(request, ImportParameters), Principal.from_request(request)
    services = get_services(request)
    # what the client has sent, so that a retry has the same digest after the setting, or the version, has changed
    sent = parameters.model_dump_json(exclude_none=True)
    if parameters.duplicates == "refuse":
        principal.require(Scope.PATIENTS_READ)  # a rejected line reveals that the person is registered
    if parameters.duplicates is None and services.settings.duplicate_check == "refuse":
        parameters = parameters.model_copy(update={"duplicates": "refuse"})
    # a slow body holds only this slot, of which there are more
    async with services.upload_bulkhead.slot(principal.name):
        try:
            async with asyncio.timeout(RECEIVE_TIMEOUT_SECONDS):
                lines = await read_lines(request)
        except TimeoutError:
            raise BodyTimeoutError(RECEIVE_TIMEOUT_SECONDS) from None
        digest = hashlib.sha256(sent.encode())
        for _, line in lines:
            digest.update(line.strip() + b"\n")
        key = IdempotencyKey.from_request(request, principal, digest.digest())
        async with services.import_bulkhead.slot(principal.name):
            return await _run(request, principal, parameters, lines, key)


async def _run(
    request: Request,
    principal: Principal,
    parameters: ImportParameters,
    lines: Sequence[tuple[int, bytes]],
    key: IdempotencyKey | None,
) -> Response:
    audit, services = RequestAudit.from_request(request), get_services(request)

    async def work(connection: Connection) -> _Outcome:
        repository = PatientService(connection, principal).repository
        stored = None if key is None else await key.claim(repository)
        if stored is not None:
            return _Outcome(stored.document, is_replayed=True)
        patient_import = PatientImport(
            connection, principal, parameters, shares_statements=services.settings.transaction_batching
        )
        results = await patient_import.run(lines)
        rejected = any(result.status == "rejected" for result in results)
        if parameters.dry_run or (rejected and parameters.on_error == "stop"):
            raise _UndoError(results, patient_import.compared_ids)
        document = _ndjson(results)
        ids = patient_import.compared_ids | {result.unique_id for result in results if result.unique_id is not None}
        await insert_audit_rows(connection, [{**audit.build_row(200), "ids": [unique_id]} for unique_id in sorted(ids)])
        if key is not None:
            await key.store(connection, Record("", document))
        return _Outcome(document, is_audited=bool(ids))

    try:
        outcome = await services.database.transaction_for(principal.name, work, timeout_seconds=IMPORT_TIMEOUT_SECONDS)
    except OutOfTimeError as error:
        raise UnavailableError(TIMEOUT_DETAIL) from error.__cause__
    except _UndoError as undone:
        await _record_compared(audit, sorted(undone.compared_ids))
        return NdjsonResponse(_ndjson([one.undone(is_dry_run=parameters.dry_run) for one in undone.results]))
    services.change_watcher.note_commit()
    audit.recorded = outcome.is_audited
    return NdjsonResponse(outcome.document, headers={"Idempotency-Replayed": "true"} if outcome.is_replayed else {})


async def _record_compared(audit: RequestAudit, ids: Sequence[str]) -> None:
    """Record with which patients an undone import has compared lines, because its results reveal some of their data."""
    for start in range(0, len(ids), IDS_PER_AUDIT_ROW):
        await audit.record_page(ids[start : start + IDS_PER_AUDIT_ROW])


def _ndjson(results: Sequence[LineResult]) -> str:
    return "".join(f"{json.dumps(result.as_json(), ensure_ascii=False)}\n" for result in results)
