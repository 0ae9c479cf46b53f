"""How PostgreSQL writes the resources Patient, Practitioner and Organization, element by element."""

from collections.abc import Mapping
from typing import Any, cast

from sqlalchemy import (
    CTE,
    ColumnElement,
    FromClause,
    Select,
    Subquery,
    Text,
    and_,
    case,
    column,
    func,
    literal_column,
    select,
)
from sqlalchemy.dialects.postgresql import JSONB, aggregate_order_by, distinct_on

from app.doctors.service import DoctorService
from app.fhir_resources.documents import (
    Columns,
    ResourceDocument,
    resource_members,
    unique_id_identifier,
)
from app.fhir_resources.ids import logical_id_sql
from app.fhir_resources.json_text import (
    SqlText,
    if_any,
    json_array,
    json_object,
    json_value,
    literal,
    member,
    object_of,
    quoted,
)
from app.fhir_resources.systems import (
    ADDRESS_LINE_1_EXTENSION,
    COUNTRY_EXTENSION,
    GEOLOCATION_EXTENSION,
    HOSPITAL_EXTENSION,
    IDENTIFIER_SYSTEM_PREFIX,
    INITIALS_EXTENSION,
    PROFILE_EXTENSION,
    TEXT_EXTENSIONS,
)
from app.hospitals.service import HospitalService
from app.models import journal
from app.patients.service import PatientService
from app.statements.documents import Elements

_patients = PatientService.repository_class
Linked = Mapping[str, ColumnElement[Any]]
PROFILE_PARTS = {"email": "email", "firstName": "first_name", "lastName": "last_name"}
"""Maps the parts of the profile's extension, besides its id, to the fields of a profile."""
ADDRESS_PARTS = {
    "city": "patient_town",
    "district": "patient_region",
    "state": "patient_province",
    "postalCode": "patient_postal_code",
    "country": "patient_country",
}
"""Maps the elements of an address that have one field each to these fields."""


def _string_extension(url: str, value: ColumnElement[Any]) -> SqlText:
    return object_of(f'{{"url":"{url}"', member("valueString", json_value(value)))


def _words(column: ColumnElement[Any]) -> SqlText:
    """Return the array of the words in a text. Given names are such arrays."""
    parts = func.array_remove(func.string_to_array(column, literal(" ")), literal(""))
    return cast("SqlText", func.array_to_json(parts).cast(Text))


def _human_name(opening: str, family: ColumnElement[Any], given: ColumnElement[Any], *more: SqlText) -> SqlText:
    return json_object(opening, member("family", json_value(family)), member("given", _words(given)), *more)


def _patient_name(columns: Columns) -> SqlText:
    initials = _string_extension(INITIALS_EXTENSION, columns["patient_initials"])
    return _human_name(
        '{"use":"official"',
        columns["patient_last_name"],
        columns["patient_first_name"],
        member("prefix", json_array(json_value(columns["patient_title"]))),
        member("extension", json_array(initials)),
    )


def _telecom(columns: Columns) -> SqlText:
    number, address = columns["patient_mobile_number"], columns["patient_email_address"]
    phone = object_of('{"system":"phone"', member("value", json_value(number)), literal(',"use":"mobile"'))
    return json_array(phone, object_of('{"system":"email"', member("value", json_value(address))))


def _address(columns: Columns) -> SqlText:
    first, second = columns["patient_physical_address"], columns["patient_address_line_1"]
    degrees = {name: columns[f"patient_{name}"] for name in ("latitude", "longitude")}
    parts = (
        object_of(f'{{"url":"{name}"', member("valueDecimal", value.cast(Text))) for name, value in degrees.items()
    )
    geolocation = object_of(f'{{"url":"{GEOLOCATION_EXTENSION}"', member("extension", json_array(*parts)))
    mark = literal(f'[{{"extension":[{{"url":"{ADDRESS_LINE_1_EXTENSION}","valueBoolean":true}}]}}]')
    address = json_object(
        '{"type":"physical"',
        member("line", json_array(json_value(first), json_value(second))),
        member("_line", case((and_(first.is_(None), second.is_not(None)), mark))),
        *(member(name, json_value(columns[field])) for name, field in ADDRESS_PARTS.items()),
        member("extension", json_array(geolocation)),
    )
    filled = [first, second, *degrees.values(), *(columns[field] for field in ADDRESS_PARTS.values())]
    return if_any(filled, json_array(address))


def _profile_extension(columns: Columns, linked: Linked) -> SqlText:
    profile_id = columns["profile_id"]
    id_part = object_of('{"url":"uniqueId"', member("valueString", quoted(profile_id)))
    others = (
        _string_extension(part, linked[f"patient_profile.{field}"])
        for part, field in PROFILE_PARTS.items()
        if f"patient_profile.{field}" in linked
    )
    # the other parts are null if there is no profile
    return object_of(f'{{"url":"{PROFILE_EXTENSION}"', member("extension", json_array(id_part, *others)))


def _other_hospitals(references: ColumnElement[Any]) -> SqlText:
    """Return the extensions with all hospitals except the first one, separated by commas."""
    opening = f'{{"url":"{HOSPITAL_EXTENSION}","valueReference":'
    others = func.array_remove(references, references[literal_column("1")])
    joined = func.nullif(func.array_to_string(others, literal(f"}},{opening}")), literal(""), type_=Text)
    return object_of(opening, joined)


def _is_merge(entries: FromClause) -> ColumnElement[bool]:
    """Return the condition of the index of merges."""
    return and_(entries.c.resource == literal(_patients.table.name), entries.c.merge.is_not(None))


def _merges_of(entries: FromClause, *conditions: ColumnElement[bool]) -> Subquery:
    """Return the newest entry of the journal about each patient that was ever merged into another one.

    `entries` is the journal, and `conditions` select entries of the other patients. The columns are the `unique_id` of
    the other patient, the id of the patient that was merged (`other`), and whether it still is (`is_merged`).
    """
    merged_from, unmerged = (
        entries.c.merge.op("->>", return_type=Text())(literal(key)) for key in ("merged_from", "unmerged")
    )
    other = func.coalesce(merged_from, unmerged)
    return (
        select(entries.c.unique_id, other.label("other"), merged_from.is_not(None).label("is_merged"))
        .ext(distinct_on(entries.c.unique_id, other))
        .where(_is_merge(entries), other.is_not(None), *conditions)
        .order_by(entries.c.unique_id, other, entries.c.version.desc())
        .correlate_except(entries)
        .subquery("merges")
    )


def _replaced_links(merges: Subquery) -> SqlText:
    """Return the links to the merged patients in `merges`, separated by commas, or null if there are none."""
    link = object_of('{"other":{"reference":"Patient/', logical_id_sql(merges.c.other), literal('"},"type":"replaces"'))
    return func.string_agg(link, aggregate_order_by(literal(","), merges.c.other), type_=Text)


def links_at(version: ColumnElement[int], unique_id: ColumnElement[str]) -> ColumnElement[Any]:
    """Return the links to the patients that were merged into a patient in one of its versions."""
    entries = journal.alias("merge_entries")
    merges = _merges_of(entries, entries.c.unique_id == unique_id, entries.c.version <= version)
    return select(_replaced_links(merges)).where(merges.c.is_merged).correlate(journal).scalar_subquery()


def _links_of(page: CTE) -> SqlText:
    """Return the links to the patients that are merged into a patient in a page.

    Few patients have any, so the entries are only sorted if there is one.
    """
    entries = journal.alias("merge_entries")
    is_of_patient = entries.c.unique_id == page.c.unique_id
    merges = _merges_of(entries, is_of_patient)
    links = select(_replaced_links(merges)).where(merges.c.is_merged).correlate(page)
    any_merge: Select[Any] = (
        select(literal_column("true"))
        .select_from(entries)
        .where(_is_merge(entries), is_of_patient)
        .limit(literal_column("1"))
        .correlate(page)
    )
    return case((any_merge.scalar_subquery(), links.scalar_subquery()))


def _identifiers(columns: Columns) -> SqlText:
    """Return the identifiers that others have given to a patient, separated by commas, or null if there are none."""
    items = func.jsonb_array_elements(columns["patient_identifiers"]).table_valued(
        column("item", JSONB), with_ordinality="ordinal", name="identifiers"
    )
    items = items.render_derived()
    item = items.c.item
    fields = {name: item.op("->>", return_type=Text())(literal(name)) for name in ("type", "use", "country")}
    hospital_id = item.op("->>", return_type=Text())(literal("hospital_id"))
    text = json_object(
        f'{{"system":"{IDENTIFIER_SYSTEM_PREFIX}',
        fields["type"],
        literal('"'),
        member("value", item.op("->", return_type=JSONB())(literal("value")).cast(Text)),
        member("use", quoted(fields["use"])),
        member("extension", json_array(_string_extension(COUNTRY_EXTENSION, fields["country"]))),
        member("assigner", object_of('{"reference":"Organization/', logical_id_sql(hospital_id), literal('"'))),
    )
    joined = select(func.string_agg(text, aggregate_order_by(literal(","), items.c.ordinal), type_=Text)).select_from(
        items
    )
    return case(
        (columns["patient_identifiers"].is_not(None), joined.correlate_except(items).scalar_subquery()),
    )


def patient_resource(columns: Columns, linked: Linked) -> SqlText:
    """Return the text of a Patient."""
    opening, *head = resource_members("Patient", columns)
    hospitals, doctors = linked["patient_hospital"], linked["patient_doctor"]
    gender = columns["patient_gender"]
    extensions = json_array(
        *(_string_extension(url, columns[field]) for url, field in TEXT_EXTENSIONS.items()),
        _profile_extension(columns, linked),
        _other_hospitals(hospitals),
    )
    return json_object(
        opening,
        *head,
        member("extension", extensions),
        member("identifier", json_array(unique_id_identifier(columns), _identifiers(columns))),
        literal(',"active":true'),
        member("name", json_array(_patient_name(columns))),
        member("telecom", _telecom(columns)),
        member("gender", quoted(func.lower(gender))),
        member("birthDate", json_value(columns["patient_date_of_birth"])),
        member("address", _address(columns)),
        member("generalPractitioner", json_array(func.array_to_string(doctors, literal(","), type_=Text))),
        member("managingOrganization", hospitals[literal_column("1")]),
        member("link", json_array(linked["merges"])),
    )


def merged_patient_resource(columns: Columns, merged_into: ColumnElement[str]) -> SqlText:
    """Return the text of a Patient that is merged into another one. It contains only a reference to the survivor."""
    opening, *head = resource_members("Patient", columns)
    link = object_of('{"other":{"reference":"Patient/', logical_id_sql(merged_into), literal('"},"type":"replaced-by"'))
    return json_object(
        opening,
        *head,
        member("identifier", json_array(unique_id_identifier(columns))),
        literal(',"active":false'),
        member("link", json_array(link)),
    )


def practitioner_resource(columns: Columns, _: Linked) -> SqlText:
    """Return the text of a Practitioner."""
    opening, *head = resource_members("Practitioner", columns)
    name = _human_name('{"use":"official"', columns["doctor_last_name"], columns["doctor_first_name"])
    return json_object(
        opening,
        *head,
        member("identifier", json_array(unique_id_identifier(columns))),
        literal(',"active":true'),
        member("name", json_array(name)),
    )


def organization_resource(columns: Columns, _: Linked) -> SqlText:
    """Return the text of an Organization."""
    opening, *head = resource_members("Organization", columns)
    return json_object(
        opening,
        *head,
        member("identifier", json_array(unique_id_identifier(columns))),
        literal(',"active":true'),
        member("name", json_value(columns["hospital_name"])),
    )


PATIENT_DOCUMENT = ResourceDocument(
    _patients.table,
    patient_resource,
    {name: one for name, one in _patients.document.relations.items() if not isinstance(one, Elements)},
    {
        "patient_hospital": ("Organization", ("hospital_name",)),
        "patient_doctor": ("Practitioner", ("doctor_first_name", "doctor_last_name")),
    },
    {"merges": _links_of},
)
PRACTITIONER_DOCUMENT = ResourceDocument(DoctorService.repository_class.table, practitioner_resource, {}, {}, {})
ORGANIZATION_DOCUMENT = ResourceDocument(HospitalService.repository_class.table, organization_resource, {}, {}, {})
