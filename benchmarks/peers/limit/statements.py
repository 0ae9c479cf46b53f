"""Handwritten SQL: PostgreSQL parses the request's JSON and builds the response's; nothing is checked or journaled."""

from app import contract

PATIENT_FIELDS = tuple(
    name for name in contract.CREATE_BODY if name not in {"patient_profile", "hospital_ids", "doctor_ids"}
)
_PATIENT_COLUMNS = ", ".join(PATIENT_FIELDS)


def _timestamp_text(column: str) -> str:
    return f"""to_char({column} AT TIME ZONE 'UTC', CASE WHEN {column} = date_trunc('second', {column})
        THEN 'YYYY-MM-DD"T"HH24:MI:SS"Z"' ELSE 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"' END)"""


_HOSPITAL_JSON = "json_build_object('unique_id', h.unique_id, 'hospital_name', h.hospital_name)"
_DOCTOR_JSON = "json_build_object('unique_id', d.unique_id, 'doctor_first_name', d.doctor_first_name)"
_HOSPITALS_JSON = f"coalesce(json_agg({_HOSPITAL_JSON} ORDER BY h.unique_id), '[]')"
_DOCTORS_JSON = f"coalesce(json_agg({_DOCTOR_JSON} ORDER BY d.unique_id), '[]')"


def _document(hospitals: str, doctors: str) -> str:
    """Return an expression for the JSON text of row `p` of the patients and row `f` of the profiles."""
    profile = """CASE WHEN f.unique_id IS NOT NULL THEN json_build_object(
        'unique_id', f.unique_id, 'email', f.email, 'first_name', f.first_name, 'last_name', f.last_name) END"""
    pairs = {"unique_id": "p.unique_id", "patient_profile": profile, **{name: f"p.{name}" for name in PATIENT_FIELDS}}
    pairs |= {name: f"p.{name}::text" for name in ("patient_latitude", "patient_longitude")}
    pairs |= {"patient_hospital": hospitals, "patient_doctor": doctors}
    pairs |= {name: _timestamp_text(f"p.{name}") for name in ("date_created", "last_updated")}
    arguments = ", ".join(f"'{name}', {value}" for name, value in pairs.items())
    return f"json_build_object({arguments})::text"


_DOCUMENT_BY_SUBQUERIES = _document(
    f"""(SELECT {_HOSPITALS_JSON} FROM patient_hospitals l JOIN hospitals h ON h.unique_id = l.hospital_id
        WHERE l.patient_id = p.unique_id)""",
    f"""(SELECT {_DOCTORS_JSON} FROM patient_doctors l JOIN doctors d ON d.unique_id = l.doctor_id
        WHERE l.patient_id = p.unique_id)""",
)
_DOCUMENT_BY_JOINS = _document("coalesce(hs.nested, '[]')", "coalesce(ds.nested, '[]')")

SELECT_PATIENT = f"""
    SELECT {_DOCUMENT_BY_SUBQUERIES}
    FROM patients p LEFT JOIN profiles f ON f.unique_id = p.profile_id WHERE p.unique_id = $1
"""


def _select_documents(source: str, link_condition: str = "") -> str:
    """Select the documents of patients `p` with their links aggregated together, which is faster for many patients."""
    return f"""
        SELECT {_DOCUMENT_BY_JOINS} AS document, p.unique_id
        FROM {source} p
        LEFT JOIN profiles f ON f.unique_id = p.profile_id
        LEFT JOIN (
            SELECT l.patient_id, {_HOSPITALS_JSON} AS nested
            FROM patient_hospitals l JOIN hospitals h ON h.unique_id = l.hospital_id {link_condition}
            GROUP BY l.patient_id
        ) hs ON hs.patient_id = p.unique_id
        LEFT JOIN (
            SELECT l.patient_id, {_DOCTORS_JSON} AS nested
            FROM patient_doctors l JOIN doctors d ON d.unique_id = l.doctor_id {link_condition} GROUP BY l.patient_id
        ) ds ON ds.patient_id = p.unique_id
        ORDER BY p.unique_id
        """


def select_page(limit: int) -> str:
    """Select the first patients after the id $1 as one array. The limit is a literal, so that it is planned better."""
    documents = _select_documents("page", "WHERE l.patient_id IN (SELECT unique_id FROM page)")
    return f"""
        WITH page AS (SELECT * FROM patients WHERE unique_id > $1 ORDER BY unique_id LIMIT {limit})
        SELECT '[' || coalesce(string_agg(document, ',' ORDER BY unique_id), '') || ']' FROM ({documents})
        """


SELECT_ALL_PATIENTS = f"SELECT ',' || document FROM ({_select_documents('patients')})"
"""Every patient with a comma before it, to be copied out."""

_UPSERT_PROFILE = """
    INSERT INTO profiles (unique_id, email, first_name, last_name)
    SELECT unique_id, email, first_name, last_name
    FROM body, json_populate_record(NULL::profiles, whole->'patient_profile')
    WHERE unique_id IS NOT NULL
    ON CONFLICT (unique_id) DO UPDATE SET
        email = excluded.email, first_name = excluded.first_name, last_name = excluded.last_name,
        last_updated = clock_timestamp()
    RETURNING *
"""


def _requested_ids(name: str) -> str:
    return f"(SELECT json_array_elements_text(whole->'{name}') FROM body)"


INSERT_PATIENT = f"""
    WITH body AS (SELECT $2::json AS whole),
    f AS ({_UPSERT_PROFILE}),
    p AS (
        INSERT INTO patients (unique_id, profile_id, {_PATIENT_COLUMNS})
        SELECT $1, whole->'patient_profile'->>'unique_id', {_PATIENT_COLUMNS}
        FROM body, json_populate_record(NULL::patients, whole)
        RETURNING *
    ),
    h AS (SELECT * FROM hospitals WHERE unique_id IN {_requested_ids("hospital_ids")}),
    d AS (SELECT * FROM doctors WHERE unique_id IN {_requested_ids("doctor_ids")}),
    hs AS (INSERT INTO patient_hospitals SELECT $1, unique_id FROM h),
    ds AS (INSERT INTO patient_doctors SELECT $1, unique_id FROM d)
    SELECT {_document(f"(SELECT {_HOSPITALS_JSON} FROM h)", f"(SELECT {_DOCTORS_JSON} FROM d)")}
    FROM p LEFT JOIN f ON true
"""
"""Parameters: $1 is the new id and $2 the body."""

_UPDATED_DOCUMENT = _document(
    f"(SELECT {_HOSPITALS_JSON} FROM h)",
    f"""(SELECT {_DOCTORS_JSON} FROM patient_doctors l JOIN doctors d ON d.unique_id = l.doctor_id
        WHERE l.patient_id = $1)""",
)
UPDATE_PATIENT = f"""
    WITH body AS (SELECT $2::json AS whole),
    p AS (
        UPDATE patients SET ({_PATIENT_COLUMNS}, last_updated) = (
            SELECT {", ".join(f"new.{name}" for name in PATIENT_FIELDS)}, clock_timestamp()
            FROM body, json_populate_record(patients, whole) new
        )
        WHERE unique_id = $1
        RETURNING *
    ),
    h AS (SELECT * FROM hospitals WHERE unique_id IN {_requested_ids("hospital_ids")}),
    gone AS (DELETE FROM patient_hospitals WHERE patient_id = $1 AND hospital_id NOT IN (SELECT unique_id FROM h)),
    hs AS (INSERT INTO patient_hospitals SELECT $1, unique_id FROM h ON CONFLICT DO NOTHING)
    SELECT {_UPDATED_DOCUMENT} FROM p LEFT JOIN profiles f ON f.unique_id = p.profile_id
"""
"""Parameters: $1 is the id and $2 the body, which replaces the hospitals.

The version stays, as the journal gets no entry: the journal accepts the service's next entry only without a gap.
"""
