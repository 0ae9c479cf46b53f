"""The operation `$match`: finds the patients that may be a person, by the matching of the register."""

from collections.abc import Mapping
from typing import Any

from fastapi import Request, Response
from pydantic_core import to_json

from app.api.services import get_services
from app.audit.recorder import RequestAudit
from app.auth.principal import Principal
from app.duplicates.matching import matching_records
from app.errors import NotFoundError, UnreadableBodyError, ValidationFailedError
from app.fhir.changes import read_sent_patient
from app.fhir.resources import PATIENT
from app.fhir.responses import bundle, fhir_response
from app.fhir.routing import base_url, checked_type, read_resource
from app.fhir.writes import is_lenient
from app.fhir_resources.elements import Element, Findings
from app.fhir_resources.ids import logical_id
from app.fhir_resources.systems import MATCH_GRADE_EXTENSION
from app.matching.matches import MAX_MATCHES
from app.matching.weights import THRESHOLDS, Grade
from app.patients.schemas import PatientMatch
from app.records.results import Record


async def match_patient(request: Request) -> Response:
    """Return the Bundle of the patients that may be the person in the parameters, best first.

    Raises:
        ValidationFailedError: the parameters have errors, or elements that the register cannot compare.
    """
    content = await read_resource(request, "Parameters")
    resource, only_certain, count = _read_parameters(content)
    patient = read_sent_patient(resource, base_url(request), is_lenient=is_lenient(request))
    body = patient.validated(PatientMatch, {"only_certain": only_certain})
    base, entries = base_url(request), []
    named = await _named_patient(request, body.unique_id)
    if named is not None:
        entries.append(_entry(base, named, Grade.CERTAIN, 1.0))
    if named is None or not only_certain:
        with patient.located_errors():
            found = await matching_records(request, PATIENT.repository_class, body)
        for match, document in found:
            record = Record(match.unique_id, document)
            entries.append(_entry(base, record, match.comparison.grade, _probability(match.comparison.score)))
    return fhir_response(bundle("searchset", [f'"total":{len(entries)}'], entries[:count]))


def _probability(score: float) -> float:
    """Return a score in bits as a number from 0 to 1, as FHIR has it: one half at the threshold of possible matches."""
    return 1 / (1 + 2 ** (THRESHOLDS[Grade.POSSIBLE] - score))


async def _named_patient(request: Request, unique_id: str) -> Record | None:
    """Return the patient with the id in the identifier of the person, if it is visible to the principal."""
    hospitals = Principal.from_request(request).hospitals
    try:
        record = await get_services(request).batched_reads.get(PATIENT.repository_class, hospitals, unique_id)
    except NotFoundError:
        return None
    await RequestAudit.from_request(request).record_page([unique_id])
    return record


def _read_parameters(content: Mapping[str, Any]) -> tuple[dict[str, Any], bool, int]:
    """Return the Patient, whether only a certain match is requested, and the maximum number of matches.

    Raises:
        ValidationFailedError, UnreadableBodyError: a parameter is unknown, repeated or wrong, or there is no Patient.
    """
    findings = Findings()
    parameters = Element(content, "Parameters", findings)
    parameters.take_text("resourceType")
    parameters.take_text("id")
    resource: dict[str, Any] | None = None
    values: dict[str, Any] = {}
    for parameter in parameters.take_objects("parameter"):
        name = parameter.take_text("name")
        if name == "resource" and resource is None:
            resource = parameter.take("resource", dict, description="an object")
        elif name == "onlyCertainMatches" and name not in values:
            values[name] = parameter.take("valueBoolean", bool, description="true or false")
        elif name == "count" and name not in values:
            values[name] = parameter.take("valueInteger", int, description="a number")
        else:
            parameter.refuse("There is no such parameter, or it is given twice")
        parameter.refuse_rest()
    parameters.refuse_rest()
    if findings.errors or findings.refused:
        raise ValidationFailedError([*findings.errors, *findings.refused])
    if resource is None:
        raise UnreadableBodyError("The parameter resource, with a Patient, must be given.")
    count = values.get("count")
    limit = MAX_MATCHES if count is None else min(max(count, 0), MAX_MATCHES)
    return checked_type(resource, "Patient", "The parameter resource"), bool(values.get("onlyCertainMatches")), limit


def _entry(base: str, record: Record, grade: Grade | None, score: float) -> bytes:
    extension = {"url": MATCH_GRADE_EXTENSION, "valueCode": grade}
    search = {"extension": [extension], "mode": "match", "score": round(score, 6)}
    address = f"{base}/Patient/{logical_id(record.unique_id)}"
    return b'{"fullUrl":%b,"resource":%b,"search":%b}' % (to_json(address), record.document.encode(), to_json(search))
