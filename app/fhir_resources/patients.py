"""Reads a Patient as a client sends it: the fields of the record, and what the register cannot hold."""

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, NamedTuple

from app.errors import FieldError
from app.fhir_resources.elements import REFUSED_MESSAGE, Element, Findings
from app.fhir_resources.ids import unique_id_of
from app.fhir_resources.patient_elements import PATIENT_ELEMENTS
from app.fhir_resources.resources import ADDRESS_PARTS, PROFILE_PARTS
from app.fhir_resources.systems import (
    ADDRESS_LINE_1_EXTENSION,
    COUNTRY_EXTENSION,
    GEOLOCATION_EXTENSION,
    HOSPITAL_EXTENSION,
    IDENTIFIER_SYSTEM_PREFIX,
    INITIALS_EXTENSION,
    PROFILE_EXTENSION,
    TEXT_EXTENSIONS,
    UNIQUE_ID_SYSTEM,
)

_DATE_PATTERN = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_PARTIAL_DATE_PATTERN = re.compile(r"[0-9]{4}(-(0[1-9]|1[0-2]))?")
_DEGREES_DECIMALS = 6
_MAX_DEGREES = 180
_GENDERS = ("male", "female", "other", "unknown")
_TELECOM_FIELDS = {"phone": "patient_mobile_number", "email": "patient_email_address"}


class PatientRecord(NamedTuple):
    """The record that a Patient describes."""

    fields: dict[str, Any]
    """The values of the fields that the Patient has, not validated."""
    paths: dict[str, str]
    """The paths of the elements from which the fields come. Links have names such as `hospital_ids.0`."""
    displays: dict[str, str]
    """The texts that the Patient shows for references, by path."""
    replaced: dict[str, str]
    """The references to patients that are merged into this one, by path."""
    findings: Findings

    @property
    def has_derived_parts(self) -> bool:
        """Whether the Patient has parts that the service derives from other records, and that therefore may differ."""
        return bool(self.displays or self.replaced)

    def path_for(self, location: tuple[str | int, ...]) -> str:
        """Return the path of the element that an error about the record, at this location in its body, is about."""
        name = str(location[0]) if location else ""
        for length in range(len(location), 0, -1):
            path = self.paths.get(".".join(map(str, location[:length])))
            if path is not None:
                return path
        return PATIENT_ELEMENTS.get(name, "Patient")


class _PatientReader:
    def __init__(self, resource: Mapping[str, Any], base_url: str) -> None:
        self.findings = Findings()
        self.fields: dict[str, Any] = {}
        self.paths: dict[str, str] = {}
        self.displays: dict[str, str] = {}
        self.replaced: dict[str, str] = {}
        self._base_url = base_url
        self._patient = Element(resource, "Patient", self.findings)

    def read(self) -> PatientRecord:
        patient = self._patient
        patient.take_text("resourceType")
        patient.take_text("id")
        self._read_meta()
        patient.take_constant("active", True)
        self._read_identifiers()
        self._read_names()
        self._read_telecom()
        self._set_text("patient_gender", patient, "gender")
        if self.fields.get("patient_gender") not in {None, *_GENDERS}:
            self.findings.add_error("Patient.gender", f"Must be one of {', '.join(_GENDERS)}", "code_invalid")
            del self.fields["patient_gender"]
        self._read_birth_date()
        self._read_addresses()
        organization = patient.take_object("managingOrganization")
        hospitals = [] if organization is None else [organization]
        self._read_extensions(hospitals)
        self._read_links("hospital_ids", "Organization", hospitals)
        self._check_managing_organization()
        self._read_links("doctor_ids", "Practitioner", patient.take_objects("generalPractitioner"))
        self._read_merges()
        patient.refuse_rest()
        return PatientRecord(self.fields, self.paths, self.displays, self.replaced, self.findings)

    def _set(self, field: str, value: Any, path: str) -> None:
        self.fields[field] = value
        self.paths[field] = path

    def _set_text(self, field: str, element: Element, name: str) -> None:
        value = element.take_text(name)
        if value is not None:
            self._set(field, value, element.path_of(name))

    def _set_content(self, field: str, element: Element, name: str) -> None:
        """Set a field from the member `name` of an element, without which the register cannot hold the element."""
        if name in element:
            self._set_text(field, element, name)
            element.refuse_rest()
        else:
            element.refuse(f"The register holds this element with its {name}")

    def _read_meta(self) -> None:
        meta = self._patient.take_object("meta")
        if meta is not None:  # a server sets these two whatever a client sends (FHIR R4, http.html#update)
            meta.take_text("versionId")
            meta.take_text("lastUpdated")
            meta.refuse_rest()

    def _read_identifiers(self) -> None:
        for identifier in self._patient.take_objects("identifier"):
            system = identifier.peek("system")
            if system == UNIQUE_ID_SYSTEM and "unique_id" not in self.fields:
                identifier.take_text("system")
                self._set_content("unique_id", identifier, "value")
            elif isinstance(system, str) and system.startswith(IDENTIFIER_SYSTEM_PREFIX):
                self._read_identifier(identifier, system.removeprefix(IDENTIFIER_SYSTEM_PREFIX))
            else:
                identifier.refuse("The register has no identifiers of this system")

    def _read_identifier(self, identifier: Element, type_name: str) -> None:
        """Read an identifier that others have given to the patient."""
        identifiers = self.fields.setdefault("patient_identifiers", [])
        prefix = f"patient_identifiers.{len(identifiers)}"
        fields = {"type": type_name, "value": identifier.take_text("value"), "use": identifier.take_text("use")}
        identifier.take_text("system")
        self.paths |= {prefix: identifier.path, f"{prefix}.type": identifier.path_of("system")}
        self.paths |= {f"{prefix}.{name}": identifier.path_of(name) for name in ("value", "use")}
        for extension in identifier.take_objects("extension"):
            if extension.peek("url") != COUNTRY_EXTENSION or "country" in fields:
                extension.refuse()
                continue
            extension.take_text("url")
            fields["country"] = extension.take_text("valueString")
            self.paths[f"{prefix}.country"] = extension.path_of("valueString")
            extension.refuse_rest()
        assigner = identifier.take_object("assigner")
        if assigner is not None:
            self.paths[f"{prefix}.hospital_id"] = assigner.path_of("reference")
            fields["hospital_id"] = self._read_reference(assigner, "Organization")
        identifier.refuse_rest()
        identifiers.append(fields)

    def _read_names(self) -> None:
        names = self._patient.take_objects("name")
        official = next((name for name in names if name.peek("use") == "official"), None)
        main = official or next((name for name in names if name.peek("use") is None), None)
        for name in names:
            if name is main:
                self._read_name(name)
            else:
                name.refuse("The register holds one name, with the use official or none")

    def _read_name(self, name: Element) -> None:
        name.take_text("use")
        self._set_text("patient_last_name", name, "family")
        given = name.take_list("given", str, description="a text")
        words = []
        for path, word in given:
            if any(character.isspace() for character in word):
                self.findings.refuse(path, "Send each word of the given names as an item of its own")
            else:
                words.append(word)
        if words:
            self._set("patient_first_name", " ".join(words), name.path_of("given"))
        for index, (path, prefix) in enumerate(name.take_list("prefix", str, description="a text")):
            if index == 0:
                self._set("patient_title", prefix, path)
            else:
                self.findings.refuse(path, "The register holds one title")
        for extension in name.take_objects("extension"):
            self._read_text_extension(extension, {INITIALS_EXTENSION: "patient_initials"})
        name.refuse_rest()

    def _read_telecom(self) -> None:
        for contact in self._patient.take_objects("telecom"):
            system, use = contact.peek("system"), contact.peek("use")
            field = _TELECOM_FIELDS.get(system) if isinstance(system, str) else None
            if field is None or field in self.fields or use not in ({None, "mobile"} if system == "phone" else {None}):
                contact.refuse(
                    "The register holds one phone number, with the use mobile or none, and one e-mail address"
                )
                continue
            contact.take_text("system")
            contact.take_text("use")
            self._set_content(field, contact, "value")

    def _read_birth_date(self) -> None:
        text = self._patient.take_text("birthDate")
        if text is None:
            return
        if _PARTIAL_DATE_PATTERN.fullmatch(text):
            self.findings.refuse("Patient.birthDate", "The register holds complete dates of birth")
        elif _DATE_PATTERN.fullmatch(text):
            self._set("patient_date_of_birth", text, "Patient.birthDate")
        else:
            self.findings.add_error("Patient.birthDate", "Must be a date written YYYY-MM-DD", "date")

    def _read_addresses(self) -> None:
        for index, address in enumerate(self._patient.take_objects("address")):
            if index:
                address.refuse("The register holds one address")
                continue
            known = len(self.fields)
            address.take_constant("type", "physical")
            self._read_lines(address)
            for name, field in ADDRESS_PARTS.items():
                self._set_text(field, address, name)
            for extension in address.take_objects("extension"):
                if extension.peek("url") == GEOLOCATION_EXTENSION and "patient_latitude" not in self.paths:
                    self._read_geolocation(extension)
                else:
                    extension.refuse()
            address.refuse_rest()
            if len(self.fields) == known:
                address.refuse("The register holds lines, a city or other parts of an address")

    def _read_lines(self, address: Element) -> None:
        lines = address.take_list("line", str, description="a text")
        fields = ["patient_physical_address", "patient_address_line_1"]
        mark = [{"extension": [{"url": ADDRESS_LINE_1_EXTENSION, "valueBoolean": True}]}]
        if len(lines) == 1 and address.peek("_line") == mark:
            address.take_constant("_line", mark)
            fields = fields[1:]
        for (path, line), field in zip(lines, fields, strict=False):
            self._set(field, line, path)
        for path, _ in lines[len(fields) :]:
            self.findings.refuse(path, "The register holds two lines of an address")

    def _read_geolocation(self, geolocation: Element) -> None:
        geolocation.take_text("url")
        for part in geolocation.take_objects("extension"):
            url = part.peek("url")
            field = f"patient_{url}" if url in {"latitude", "longitude"} else None
            if field is None or field in self.fields:
                part.refuse()
                continue
            part.take_text("url")
            value = part.take("valueDecimal", int | float, description="a number")
            path = part.path_of("valueDecimal")
            part.refuse_rest()
            degrees = Decimal(0 if value is None else str(value))
            if not -_MAX_DEGREES <= degrees <= _MAX_DEGREES:  # also a number such as 1e999, which is infinite
                self.findings.add_error(
                    path, f"Must be a number from -{_MAX_DEGREES} to {_MAX_DEGREES}", "element_type"
                )
            elif round(degrees, _DEGREES_DECIMALS) != degrees:
                self.findings.refuse(path, "The register holds six decimals of a degree")
            elif value is not None:
                self._set(field, value, path)
        geolocation.refuse_rest()

    def _read_extensions(self, hospitals: list[Element]) -> None:
        """Read the extensions of the patient. Append the references to hospitals to `hospitals`."""
        for extension in self._patient.take_objects("extension"):
            url = extension.peek("url")
            if url == HOSPITAL_EXTENSION and "valueReference" in extension:
                extension.take_text("url")
                reference = extension.take_object("valueReference")
                extension.refuse_rest()
                hospitals += [] if reference is None else [reference]
            elif url == PROFILE_EXTENSION and "patient_profile" not in self.fields:
                self._read_profile(extension)
            else:
                self._read_text_extension(extension, TEXT_EXTENSIONS)

    def _read_text_extension(self, extension: Element, fields: Mapping[str, str]) -> None:
        url = extension.peek("url")
        field = fields.get(url) if isinstance(url, str) else None
        if field is None or field in self.fields:
            extension.refuse()
            return
        extension.take_text("url")
        self._set_content(field, extension, "valueString")

    def _read_profile(self, extension: Element) -> None:
        """Read the profile: an id alone links a profile, and other parts replace all parts of the profile."""
        extension.take_text("url")
        profile: dict[str, Any] = {}
        names = {"uniqueId": "unique_id", **PROFILE_PARTS}
        for part in extension.take_objects("extension"):
            url = part.peek("url")
            name = names.get(url) if isinstance(url, str) else None
            if name is None or name in profile:
                part.refuse()
                continue
            part.take_text("url")
            value = part.take_text("valueString")
            part.refuse_rest()
            if value is not None:
                profile[name] = value
                self.paths[f"patient_profile.{name}"] = part.path_of("valueString")
        extension.refuse_rest()
        if profile.keys() - {"unique_id"}:
            profile = {**dict.fromkeys(PROFILE_PARTS.values()), **profile}
        self._set("patient_profile", profile, extension.path)

    def _read_links(self, field: str, resource_type: str, references: list[Element]) -> None:
        ids: list[str] = []
        for reference in references:
            display = reference.take_text("display")
            unique_id = self._read_reference(reference, resource_type)
            if unique_id in ids:
                self.findings.refuse(reference.path, "The register holds each reference once")
            elif unique_id is not None:
                self.paths[f"{field}.{len(ids)}"] = reference.path_of("reference")
                ids.append(unique_id)
                if display is not None:
                    self.displays[reference.path_of("display")] = display
        if ids:
            self.fields[field] = ids

    def _read_reference(self, reference: Element, resource_type: str) -> str | None:
        """Return the id of the record to which a reference refers, or None if the register cannot hold it."""
        text = reference.take_text("reference")
        reference.take_constant("type", resource_type)
        reference.refuse_rest()
        if text is None:
            self.findings.refuse(reference.path, f"The register holds references to {resource_type} resources")
            return None
        kind, _, resource_id = text.removeprefix(f"{self._base_url}/").rpartition("/")
        unique_id = unique_id_of(resource_id) if kind == resource_type else None
        if unique_id is None:
            self.findings.refuse(reference.path, f"The reference must be {resource_type}/ and the id of a resource")
        return unique_id

    def _read_merges(self) -> None:
        for link in self._patient.take_objects("link"):
            other = link.take_object("other")
            reference = None if other is None else other.take_text("reference")
            if other is None or reference is None or link.peek("type") != "replaces":
                link.refuse("A patient becomes another one by a merge only")
                continue
            other.refuse_rest()
            link.take_text("type")
            link.refuse_rest()
            self.replaced[link.path] = reference.removeprefix(f"{self._base_url}/")

    def _check_managing_organization(self) -> None:
        """Refuse hospitals unless the one with the first id is the managing organization, as it is in responses."""
        ids, path = self.fields.get("hospital_ids", ()), self.paths.get("hospital_ids.0", "")
        if ids and not (ids[0] == min(ids) and path.startswith("Patient.managingOrganization")):
            message = "The register has no main hospital: send the hospital with the first id, and others as extensions"
            self.findings.refuse("Patient.managingOrganization", message)


def read_patient(resource: Mapping[str, Any], base_url: str) -> PatientRecord:
    """Return the record that a Patient describes. `base_url` is the address to which absolute references may refer."""
    return _PatientReader(resource, base_url).read()


def differing_parts(record: PatientRecord, resource: Any) -> list[FieldError]:
    """Return an error for each part of a record that the service derives and that the stored Patient does not have.

    These are texts of references and links to merged patients. `resource` is the stored Patient.
    """
    organizations = [resource.get("managingOrganization", {})]
    organizations += [item.get("valueReference", {}) for item in resource.get("extension", ())]
    shown = {item.get("display") for item in (*organizations, *resource.get("generalPractitioner", ()))}
    replaced = {link["other"]["reference"] for link in resource.get("link", ())}
    differing = [path for path, display in record.displays.items() if display not in shown]
    differing += [path for path, reference in record.replaced.items() if reference not in replaced]
    return [FieldError((path,), REFUSED_MESSAGE, "element_refused") for path in differing]
