"""The values that fields accept and refuse, and the form in which they store them."""

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import httpx
import pytest
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.models import Patient

PATIENTS = "/patients/patients/"
JSON_HEADERS = {"Content-Type": "application/json"}
REQUEST_SCHEMAS = {
    "patients": ["PatientCreate", "PatientUpdate"],
    "profiles": ["ProfileCreate", "ProfileUpdate", "ProfileUpsert"],
    "hospitals": ["HospitalCreate", "HospitalUpdate"],
    "doctors": ["DoctorCreate", "DoctorUpdate"],
}
FREE_TEXT_FIELDS = [
    column.name
    for column in Patient.__table__.columns
    if "max_length" in column.info and column.name not in {"patient_email_address", "patient_mobile_number"}
]
MARKER = "Zzmarker"


def published_lengths(app: FastAPI, schema: str) -> dict[str, int]:
    """Return the `maxLength` of each text field in the OpenAPI document."""
    lengths = {}
    for name, field in app.openapi()["components"]["schemas"][schema]["properties"].items():
        for form in field.get("anyOf", [field]):
            if "maxLength" in form and name != "unique_id":
                lengths[name] = form["maxLength"]
    return lengths


def value_of_length(name: str, length: int) -> str:
    """Return a valid value of exactly `length` characters."""
    if "email" in name:
        domain = ".".join(["d" * 61] * 2)
        return f"{'a' * (length - len(domain) - 1)}@{domain}"
    if "mobile" in name:
        return f"+123{' ' * (length - 5)}4"
    return "é" * (length - 1) + "😀"


async def post_patient(client: httpx.AsyncClient, body: dict[str, Any]) -> httpx.Response:
    """Create a patient, also with lone surrogates and other values that httpx's own JSON does not send."""
    return await client.post(PATIENTS, content=json.dumps(body), headers=JSON_HEADERS)


def error_locations(response: httpx.Response) -> list[list[str | int]]:
    """Return the locations of a 422's errors, after checking that it does not repeat what was sent."""
    assert response.status_code == 422, response.text
    assert MARKER not in response.text
    return [error["loc"] for error in response.json()["errors"]]


@pytest.mark.parametrize("table", REQUEST_SCHEMAS)
async def test_published_lengths_are_check_constraints(
    app: FastAPI, connection: asyncpg.Connection, table: str
) -> None:
    """Each text field's maxLength in the OpenAPI document is a named CHECK constraint of the same length."""
    constraints = await connection.fetch(
        "SELECT conname, pg_get_constraintdef(oid) AS rule FROM pg_constraint"
        " WHERE contype = 'c' AND conrelid = $1::text::regclass AND conname LIKE '%\\_length'",
        table,
    )
    lengths = {}
    for constraint in constraints:
        rule = re.search(r"char_length\((\w+)\) <= (\d+)\b", constraint["rule"])
        assert rule is not None
        lengths[rule[1]] = int(rule[2])
        assert constraint["conname"] == f"ck_{table}_{rule[1]}_length"
    assert lengths
    for schema in REQUEST_SCHEMAS[table]:
        assert published_lengths(app, schema) == lengths


async def test_text_up_to_the_published_length_is_accepted(client: httpx.AsyncClient, app: FastAPI) -> None:
    """Text of the published length is stored; with one character more it is refused, in all fields at once."""
    lengths = published_lengths(app, "PatientCreate")
    assert lengths.keys() == {*FREE_TEXT_FIELDS, "patient_email_address", "patient_mobile_number"}
    fitting = {name: value_of_length(name, length) for name, length in lengths.items()}
    assert {name: len(value) for name, value in fitting.items()} == lengths
    response = await post_patient(client, {name: f"  {value}\n" for name, value in fitting.items()})
    assert response.status_code == 201, response.text
    assert {name: response.json()[name] for name in lengths} == fitting
    response = await post_patient(client, {name: value_of_length(name, length + 1) for name, length in lengths.items()})
    assert sorted(error_locations(response)) == sorted(["body", name] for name in lengths)


async def test_length_is_counted_after_nfc_normalisation(client: httpx.AsyncClient) -> None:
    """Length is counted in characters after NFC, which joins some characters and splits others."""
    response = await post_patient(client, {"patient_first_name": "e\u0301" * 150})
    assert response.json()["patient_first_name"] == "é" * 150
    taken_apart = "\ufb2c"  # Hebrew shin with dagesh and shin dot: three characters in NFC
    response = await post_patient(client, {"patient_first_name": taken_apart * 50})
    assert response.json()["patient_first_name"] == "\u05e9\u05bc\u05c1" * 50
    assert error_locations(await post_patient(client, {"patient_first_name": taken_apart * 51})) == [
        ["body", "patient_first_name"]
    ]


ACCEPTED_VALUES: list[tuple[str, dict[str, str | None]]] = [
    ("patient_first_name", {"  Thandi\n": "Thandi", "\u2003O'Brien\u00a0": "O'Brien", "de  la\tCruz": "de  la\tCruz"}),
    ("patient_first_name", {"Zoe\u0308": "Zoë", "A\u030angstro\u0308m": "Ångström", "\u212b": "Å"}),
    ("patient_race", {"": None, " ": None, "\t\r\n\u2003": None, "0": "0", "null": "null", "\ufeff": None}),
    ("patient_physical_address", {'"\\/\b\f': '"\\/\b', "1 Main St\nTown": "1 Main St\nTown", "\u2028x\u2029": "x"}),
    ("patient_country", {"\U0001f1ff\U0001f1e6": "\U0001f1ff\U0001f1e6", "<b>&amp;'": "<b>&amp;'", "%00": "%00"}),
    ("patient_gender", {"Male": "Male", "male": "Male", "FEMALE": "Female", "oThEr": "Other", "unknown": "Unknown"}),
    ("patient_gender", {"m": "Male", "F": "Female", "o": "Other", "U": "Unknown", " M ": "Male", "": None}),
    ("patient_date_of_birth", {"1980-01-01": "1980-01-01", " 2000-02-29 ": "2000-02-29", "": None, "  ": None}),
    ("patient_date_of_birth", {"0001-01-02": "0001-01-02", "1582-10-10": "1582-10-10"}),
    ("patient_latitude", {"90": "90.000000", "-90.0": "-90.000000", "+1.5": "1.500000", " 1 ": "1.000000", "": None}),
    ("patient_latitude", {"0.0000005": "0.000001", "1.2345674999": "1.234567", "-0.0000001": "0.000000"}),
    ("patient_longitude", {"180": "180.000000", "-180": "-180.000000", "007.5": "7.500000", " ": None}),
    ("patient_email_address", {" a@b.c ": "a@b.c", "O'B+x@EXAMPLE.org": "O'B+x@EXAMPLE.org", "a@b": "a@b", "": None}),
    ("patient_mobile_number", {"+123456789": "+123456789", "1234": "1234", "1" * 15: "1" * 15, " ": None}),
    ("patient_mobile_number", {" +27 (0)21 555-12.34": "+27 (0)21 555-12.34", "(021) 555 1234": "(021) 555 1234"}),
]


@pytest.mark.parametrize(("field", "expected_by_value"), ACCEPTED_VALUES)
async def test_accepted_values_are_stored_in_normalised_form(
    client: httpx.AsyncClient, field: str, expected_by_value: dict[str, str | None]
) -> None:
    """Values are trimmed and normalised, blanks become null, and free text is stored as written."""
    for value, expected in expected_by_value.items():
        response = await post_patient(client, {"patient_last_name": "Doe", field: value})
        assert response.status_code == 201, value
        assert response.json()[field] == expected
        stored = (await client.get(response.headers["location"])).json()
        assert stored[field] == expected
        again = await client.put(response.headers["location"], json={field: stored[field]})
        assert again.json() == stored


async def test_degrees_may_be_numbers_and_are_rounded_to_six_decimals(client: httpx.AsyncClient) -> None:
    """Degrees may be JSON numbers, and are rounded half away from zero to six decimals."""
    for number, expected in {
        "12": "12.000000",
        "-12.345678": "-12.345678",
        "0.1": "0.100000",
        "1.0000005": "1.000001",
        "-1.0000005": "-1.000001",
        "1e1": "10.000000",
        "1E-7": "0.000000",
        "-0.0": "0.000000",
        "90.0": "90.000000",
        "5e-324": "0.000000",
    }.items():
        content = f'{{"patient_last_name": "Doe", "patient_latitude": {number}}}'
        response = await client.post(PATIENTS, content=content, headers=JSON_HEADERS)
        assert response.status_code == 201, number
        assert response.json()["patient_latitude"] == expected


NON_TEXT_VALUES: list[Any] = [
    "a\0b",
    "\0",
    "\ud800",
    f"{MARKER}\udfff",
    "\udc00\ud800",
    1,
    1.5,
    True,
    False,
    [],
    {},
    [MARKER],
]
FOREIGN_DIGITS = "\u0661\u0669\u0668\u0660"  # Arabic-Indic digits
REFUSED_VALUES: list[tuple[str, list[Any]]] = [
    ("patient_first_name", NON_TEXT_VALUES),
    ("patient_email_address", NON_TEXT_VALUES),
    ("patient_mobile_number", NON_TEXT_VALUES),
    ("patient_gender", [*NON_TEXT_VALUES, MARKER, "X", "Man", "Malé", "M F", "0", "none"]),
    (
        "patient_date_of_birth",
        [*NON_TEXT_VALUES, MARKER, "1980-1-1", "01/01/1980", "1980-01", "1980-W01-1", "19800101"],
    ),
    (
        "patient_date_of_birth",
        ["2023-02-29", "1900-02-29", "1980-13-01", "1980-00-10", "1980-01-32", "0000-01-01", "0001-01-01"],
    ),
    ("patient_date_of_birth", ["1980-01-01T00:00:00", "-001-01-01", "10000-01-01", f"{FOREIGN_DIGITS}-01-01"]),
    ("patient_date_of_birth", ["9999-12-31", "infinity", "today", "now", "epoch", "null", 19800101]),
    ("patient_latitude", [90.000001, -91, "90.0000001", "-90.1", 1000, 1e30, 10**400, -(10**400), "1" * 400]),
    ("patient_longitude", [180.000001, "-180.000001", "181", 360]),
    ("patient_latitude", ["NaN", "nan", "Infinity", "-inf", "1e400", "sNaN", "--1", "1,5", "1_0", "0x1", "1 2"]),
    ("patient_latitude", [True, False, [], {}, ["1"], MARKER, FOREIGN_DIGITS[:1], "1\0", "\ud800", "12.5N", "."]),
    ("patient_email_address", [MARKER, "@", "a@", "@b.c", "a b@c.d", "a@b@c", "a@-b.c", "a@b-.c", "a@b..c", "a@b.c."]),
    ("patient_email_address", ["a@b_c.d", "é@b.c", "a@é.c", "<a@b.c>", "a@b.c,d@e.f", f"a@{'b' * 64}.c", "a@b\n.c"]),
    ("patient_mobile_number", ["123", "1" * 16, "+", MARKER, "12345x", "1234+", "++1234", "0800 FLOWERS", "1234/5"]),
    ("patient_mobile_number", [FOREIGN_DIGITS, "1234\n5", "12 34 ext 5", "+1234;5", "(((())))", "12\u00a034"]),
]


@pytest.mark.parametrize(("field", "values"), REFUSED_VALUES)
async def test_invalid_values_are_422_and_not_stored(client: httpx.AsyncClient, field: str, values: list[Any]) -> None:
    """An invalid value is a 422 at its field, on create and on change, and is neither repeated nor stored."""
    patient = (await post_patient(client, {"patient_last_name": "Doe"})).json()
    path = f"{PATIENTS}{patient['unique_id']}/"
    for value in values:
        assert error_locations(await post_patient(client, {"patient_last_name": "Doe", field: value})) == [
            ["body", field]
        ], value
        response = await client.patch(
            path, content=json.dumps({"patient_title": "Dr.", field: value}), headers=JSON_HEADERS
        )
        assert error_locations(response) == [["body", field]], value
    assert (await client.get(PATIENTS)).json() == [patient]


async def test_every_free_text_field_follows_the_text_rules(client: httpx.AsyncClient) -> None:
    """Every free text field trims, normalises, stores blanks as null, and refuses values that are not text."""
    response = await post_patient(client, dict.fromkeys(FREE_TEXT_FIELDS, " e\u0301\n"))
    assert {name: response.json()[name] for name in FREE_TEXT_FIELDS} == dict.fromkeys(FREE_TEXT_FIELDS, "é")
    expected = {**dict.fromkeys(FREE_TEXT_FIELDS), "patient_last_name": "Doe"}
    for blank in (" ", "\x07", "\x84\xad", "\u200b\u0301"):
        blanks = await post_patient(client, {**dict.fromkeys(FREE_TEXT_FIELDS, blank), "patient_last_name": "Doe"})
        assert {name: blanks.json()[name] for name in FREE_TEXT_FIELDS} == expected
    refused: list[Any] = [f"{MARKER}\0", f"{MARKER}\ud83d", 0, 1.5, True, False, [MARKER], {MARKER: MARKER}, "x" * 501]
    for value in refused:
        assert sorted(error_locations(await post_patient(client, dict.fromkeys(FREE_TEXT_FIELDS, value)))) == sorted(
            ["body", name] for name in FREE_TEXT_FIELDS
        )


@pytest.mark.parametrize(
    ("path", "minimal_body", "texts"),
    [
        ("/profiles/profiles/", {}, ["first_name", "last_name"]),
        ("/doctors/doctors/", {"doctor_first_name": "Ann"}, ["doctor_last_name"]),
        ("/hospitals/hospitals/", {}, ["hospital_name"]),
    ],
)
async def test_hospital_doctor_and_profile_text_follows_the_text_rules(
    client: httpx.AsyncClient, path: str, minimal_body: dict[str, Any], texts: list[str]
) -> None:
    """Text of hospitals, doctors and profiles follows the same rules as that of patients."""
    response = await client.post(path, json={**minimal_body, **dict.fromkeys(texts, " Zoe\u0308 ")})
    assert response.status_code == 201
    for name in texts:
        assert response.json()[name] == "Zoë"
        for value in (f"{MARKER}\0", f"{MARKER}\ud800", MARKER * 50, 1, True, [MARKER]):
            content = json.dumps({**minimal_body, **dict.fromkeys(texts, "x"), name: value})
            assert error_locations(await client.post(path, content=content, headers=JSON_HEADERS)) == [["body", name]]
    assert len((await client.get(path)).json()) == 1


async def test_date_of_birth_may_be_today_in_utc_plus_14(client: httpx.AsyncClient) -> None:
    """A date of birth is at most today in UTC+14, where the day begins first."""
    today = (datetime.now(UTC) + timedelta(hours=14)).date()
    for day, status in ((today, 201), (today - timedelta(days=1), 201), (today + timedelta(days=1), 422)):
        response = await post_patient(client, {"patient_last_name": "Doe", "patient_date_of_birth": day.isoformat()})
        assert response.status_code == status


async def test_mobile_digits_are_stored_for_search(client: httpx.AsyncClient, connection: asyncpg.Connection) -> None:
    """The digits of a mobile number are stored beside the number as written, and follow its changes."""
    query = "SELECT patient_mobile_digits FROM patients"
    response = await post_patient(client, {"patient_last_name": "Doe", "patient_mobile_number": "+27 (0)21-555.1234"})
    assert await connection.fetchval(query) == "270215551234"
    await client.patch(response.headers["location"], json={"patient_mobile_number": None})
    assert await connection.fetchval(query) is None


def optional_strategy(*values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(st.none(), *values)


TEXT_STRATEGY = optional_strategy(
    st.text(max_size=30), st.text("e\u0301\u0327 \t\u2000\ufb2c\u1e69\u212a\u00a0\u200b\ufeff", max_size=8)
)
NUMBER_STRATEGY = st.one_of(
    st.floats(-200, 200), st.integers(-200, 200), st.decimals(-181, 181, places=8).map(str), st.floats().map(str)
)
PATIENT_BODY_STRATEGY = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(FREE_TEXT_FIELDS, TEXT_STRATEGY),
        "patient_email_address": optional_strategy(st.emails(), st.from_regex(r"\A[a-z'+.]{1,9}@[a-z.-]{1,9}\Z")),
        "patient_mobile_number": optional_strategy(st.from_regex(r"\A *\+?[-0-9 .()]{3,20}\Z")),
        "patient_date_of_birth": optional_strategy(
            st.dates().map(str), st.text("0123456789-", min_size=10, max_size=10)
        ),
        "patient_gender": optional_strategy(
            st.sampled_from("MFOUmfou"), st.from_regex(r"\A(?i:male|female|other|unknown)\Z")
        ),
        "patient_latitude": optional_strategy(NUMBER_STRATEGY),
        "patient_longitude": optional_strategy(NUMBER_STRATEGY),
    },
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=PATIENT_BODY_STRATEGY)
async def test_accepted_documents_can_be_put_back_unchanged(client: httpx.AsyncClient, body: dict[str, Any]) -> None:
    """Fields without errors are accepted, and a document as read is accepted unchanged, by PUT and by POST."""
    response = await post_patient(client, body)
    if response.status_code == 422:
        refused = {error["loc"][1] for error in response.json()["errors"] if len(error["loc"]) > 1}
        body = {name: value for name, value in body.items() if name not in refused}
        response = await post_patient(client, {"patient_last_name": "Doe"} | body)
        if response.status_code == 422:  # a blank last name
            response = await post_patient(client, body | {"patient_last_name": "Doe"})
    assert response.status_code == 201
    read = response.json()
    assert all(value is None or value == value.strip() != "" for value in (read[name] for name in FREE_TEXT_FIELDS))
    back = await client.put(response.headers["location"], json=read)
    assert (back.status_code, back.json()) == (200, read)
    copy = await client.post(PATIENTS, json={name: value for name, value in read.items() if name != "unique_id"})
    assert copy.status_code == 201
    assert {
        **read,
        **{name: copy.json()[name] for name in ("unique_id", "date_created", "last_updated")},
    } == copy.json()
