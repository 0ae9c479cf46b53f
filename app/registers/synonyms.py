"""The names by which other systems call the fields, in English and Afrikaans."""

import unicodedata
from collections.abc import Mapping

SYNONYMS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "patients": {
        "unique_id": (
            "id",
            "patient id",
            "patient no",
            "patient number",
            "file no",
            "file number",
            "folder number",
            "hospital number",
            "record number",
            "record id",
            "identifier",
            "mrn",
            "pasiëntnommer",
            "lêernommer",
        ),
        "patient_email_address": ("e-mail", "mail", "email id", "e-pos", "e-posadres"),
        "patient_mobile_number": (
            "mobile",
            "mobile no",
            "mobile phone",
            "cell",
            "cell no",
            "cell number",
            "cellphone",
            "cellphone number",
            "cellular",
            "phone",
            "phone no",
            "phone number",
            "tel",
            "tel no",
            "telephone",
            "telephone number",
            "contact number",
            "selfoon",
            "selfoonnommer",
            "sel",
            "selnommer",
            "telefoon",
            "telefoonnommer",
            "kontaknommer",
        ),
        "patient_title": ("prefix", "salutation", "titel", "aanspreekvorm"),
        "patient_first_name": (
            "first",
            "first names",
            "given name",
            "given names",
            "forename",
            "forenames",
            "christian name",
            "voornaam",
            "voorname",
            "noemnaam",
        ),
        "patient_initials": ("initial", "voorletters", "paraaf"),
        "patient_last_name": ("last", "surname", "family name", "van", "familienaam", "agternaam"),
        "patient_date_of_birth": (
            "dob",
            "birth date",
            "birthday",
            "birth dt",
            "date birth",
            "born",
            "geboortedatum",
            "gebore",
            "geb. datum",
        ),
        "patient_gender": ("sex", "m/f", "geslag"),
        "patient_race": ("ethnic group", "population group", "ras", "bevolkingsgroep"),
        "patient_physical_address": (
            "address",
            "street address",
            "residential address",
            "home address",
            "adres",
            "straatadres",
            "woonadres",
            "fisiese adres",
        ),
        "patient_address_line_1": ("address 1", "street", "address line", "adreslyn 1", "adres 1", "straat"),
        "patient_town": ("city", "town city", "city village", "dorp", "stad", "woonplek"),
        "patient_region": ("suburb", "area", "district", "voorstad", "woonbuurt", "streek", "distrik"),
        "patient_province": ("state", "state province", "provinsie"),
        "patient_country": ("land",),
        "patient_postal_code": ("post code", "postal", "zip", "zip code", "poskode"),
        "patient_latitude": ("lat", "breedtegraad"),
        "patient_longitude": ("lon", "long", "lng", "lengtegraad"),
        "patient_access_medical_care": (
            "medical care",
            "medical aid",
            "public or private",
            "mediese sorg",
            "mediese fonds",
        ),
        "patient_identifiers": ("identifiers",),
        "patient_identifiers.za_id": (
            "id no",
            "id number",
            "identity no",
            "identity number",
            "identity document",
            "national id",
            "national id number",
            "rsa id",
            "rsa id number",
            "sa id",
            "sa id number",
            "id-nommer",
            "identiteitsnommer",
        ),
        "patient_identifiers.passport": ("passport", "passport no", "passport number", "paspoort", "paspoortnommer"),
        "patient_identifiers.asylum": ("asylum", "asylum no", "asylum number", "asylum seeker number"),
        "patient_identifiers.medical_aid": (
            "medical aid no",
            "medical aid number",
            "medical scheme number",
            "medical aid member number",
            "mediese fonds nommer",
        ),
        "patient_identifiers.birth_certificate": (
            "birth certificate",
            "birth certificate no",
            "birth certificate number",
            "geboortesertifikaat",
        ),
        "hospital_ids": (
            "hospital",
            "hospitals",
            "hospital id",
            "clinic",
            "clinics",
            "clinic id",
            "facility",
            "hospital name",
            "clinic name",
            "facility name",
            "hospitaal",
            "hospitale",
            "kliniek",
            "klinieke",
            "hospitaalnaam",
            "klinieknaam",
        ),
        "doctor_ids": (
            "doctor",
            "doctors",
            "doctor id",
            "gp",
            "physician",
            "practitioner",
            "doctor name",
            "dokter",
            "dokters",
            "dokternaam",
            "geneesheer",
            "huisarts",
        ),
        "patient_profile.unique_id": ("profile", "profile id", "account", "account id", "profiel", "rekening"),
        "patient_profile.email": ("profile email", "account email", "profiel e-pos"),
        "patient_profile.first_name": ("profile first name", "account first name", "profiel voornaam"),
        "patient_profile.last_name": ("profile last name", "account last name", "profiel van"),
        "date_created": (
            "created",
            "created at",
            "created on",
            "date registered",
            "registered on",
            "geskep",
            "geregistreer",
        ),
        "last_updated": ("updated", "updated at", "updated on", "modified", "last modified", "bygewerk", "gewysig"),
    },
    "hospitals": {
        "unique_id": ("id", "hospital id", "clinic id", "code", "kode"),
        "hospital_name": ("name", "hospital", "clinic", "clinic name", "facility", "naam", "hospitaal", "kliniek"),
        "date_created": ("created", "created at"),
        "last_updated": ("updated", "updated at"),
    },
    "doctors": {
        "unique_id": ("id", "doctor id", "code", "kode", "practice number", "praktyknommer"),
        "doctor_first_name": ("first", "first name", "name", "given name", "doctor", "voornaam", "naam", "dokter"),
        "doctor_last_name": ("last", "last name", "surname", "family name", "van", "familienaam"),
        "date_created": ("created", "created at"),
        "last_updated": ("updated", "updated at"),
    },
    "profiles": {
        "unique_id": ("id", "profile id", "account id", "profiel"),
        "email": ("e-mail", "email address", "mail", "e-pos", "e-posadres"),
        "first_name": ("first", "given name", "voornaam"),
        "last_name": ("last", "surname", "family name", "van", "familienaam"),
        "date_created": ("created", "created at"),
        "last_updated": ("updated", "updated at"),
    },
}
"""The names of each column in other systems, by resource. `docs/import-export.md` has the same table for patients.

Case, spaces, punctuation and accents do not matter. The names of the API need no mention, with and without the prefix
`patient_`. The words `no`, `nr`, `num`, `number` and `nommer` at the end of a name are equivalent.
"""
FULL_NAME_KEYS = frozenset(
    ("name", "names", "fullname", "patientname", "patient", "naam", "volnaam", "vollenaam", "pasient", "pasientnaam")
)
"""Keys of headers that may be a full name, or only a first name. They are not recognized, but explained."""
NUMBER_KEYS = frozenset(("no", "nr", "num", "number", "nommer"))
"""Keys of headers that may be an id, a telephone number or a row's number. They are not recognized, but explained."""
PATIENT_PREFIX = "patient"


def header_key(header: str) -> str:
    """Return what two headers have in common that differ only in case, accents, blanks, punctuation and marks.

    Invisible characters, such as byte order marks, do not matter either.
    """
    decomposed = unicodedata.normalize("NFKD", header.casefold())
    return "".join(character for character in decomposed if character.isalnum())
