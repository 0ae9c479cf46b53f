"""A small world of hospitals and patients in which every field that may be hidden contains a marker."""

from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import date, timedelta
from itertools import count
from typing import Any, NamedTuple, Self

import asyncpg
import httpx
from fastapi import FastAPI

from app.patients.schemas import PatientFields
from app.profiles.schemas import ProfileFields
from tests.auth.support import HOSPITALS, PATIENTS, PROFILES, client_for, make_key
from tests.hospital_scope.conftest import REGULAR_SCOPES

ID_PREFIXES = {PATIENTS: "pat", PROFILES: "prof"}
_UNMARKED_FIELDS = {"patient_profile", "patient_hospital", "patient_doctor", "patient_gender"}
_MARKED_FIELDS = {
    PATIENTS: [
        name for name in PatientFields.model_fields if name.startswith("patient_") and name not in _UNMARKED_FIELDS
    ],
    PROFILES: list(ProfileFields.model_fields),
}
_UNIQUE_NUMBERS = count(1)


class Marker(NamedTuple):
    """Unique values for all fields of a record, which identify it wherever they appear."""

    number: int

    @property
    def values(self) -> dict[str, str]:
        text, number = f"zq{self.number:06d}x", self.number
        return {
            "email": f"{text}@example.com",
            "patient_email_address": f"{text}@example.com",
            "patient_mobile_number": f"+2755{number:06d}",
            "patient_date_of_birth": str(date(1930, 1, 1) + timedelta(days=number)),
            "patient_latitude": f"{number % 80}.{number:06d}",
            "patient_longitude": f"-{number % 80}.{number:06d}",
            "text": text,
        }

    def fields(self, resource: str) -> dict[str, Any]:
        values = {**self.values, "patient_identifiers": [{"type": "other", "value": self.values["text"]}]}
        return {name: values.get(name, self.values["text"]) for name in _MARKED_FIELDS[resource]}

    @property
    def traces(self) -> set[str]:
        return {self.values["text"], *(self.values[f"patient_{name}"] for name in _TRACED_FIELDS)}


_TRACED_FIELDS = ("mobile_number", "date_of_birth", "latitude")


class VisibleState(NamedTuple):
    """What the restricted principal may know, according to the tables."""

    visible_ids: dict[str, set[str]]
    """Ids of the visible records, by resource."""
    deleted_patients: dict[str, str | None]
    """Ids of the deleted patients that were visible, with the profile that each had."""
    hidden_versions: dict[tuple[str, str], int]
    """Versions of all other records."""

    def may_read(self, resource: str, unique_id: str, path: str) -> bool:
        """Return whether the principal may use a route about a record."""
        was_readable = resource == PATIENTS and path != "" and unique_id in self.deleted_patients
        return was_readable or unique_id in self.visible_ids[resource]


_SELECT_PATIENTS = """
SELECT unique_id, version, profile_id,
    EXISTS (SELECT FROM patient_hospitals WHERE patient_id = unique_id AND hospital_id = $1) AS seen
FROM patients
"""
_SELECT_DELETED_PATIENTS = """
SELECT unique_id, record->>'profile_id' AS profile_id FROM (
    SELECT DISTINCT ON (unique_id) unique_id, record FROM journal
    WHERE resource = 'patients' AND record IS NOT NULL AND unique_id NOT IN (SELECT unique_id FROM patients)
    ORDER BY unique_id, version DESC
) AS last WHERE (record->'hospital_ids')::jsonb ? $1
"""
_SELECT_LINKED_PROFILES = """
SELECT DISTINCT record->>'profile_id' FROM journal WHERE resource = 'patients' AND unique_id = ANY ($1)
"""


@dataclass
class World:
    """Hospitals A, B and C, a principal that is restricted to A, and an unrestricted principal."""

    number: int
    restricted: httpx.AsyncClient
    unrestricted: httpx.AsyncClient
    connection: asyncpg.Connection
    stack: AsyncExitStack
    ids: dict[str, list[str]] = field(default_factory=lambda: {PATIENTS: [], PROFILES: []})
    """Ids of the records that requests target; the first of each resource belongs to a record that never existed."""
    traces_by_record: dict[tuple[str, str], set[str]] = field(default_factory=dict)
    """Traces of the current and earlier markers of each record."""
    shown_traces: set[str] = field(default_factory=set)
    """Traces that the restricted principal may legitimately know."""

    @classmethod
    async def create(
        cls, app: FastAPI, database_url: str, connection: asyncpg.Connection, unrestricted_key: str
    ) -> Self:
        """Create a world with patients of A, of B, of several hospitals and of none, and with deleted ones."""
        number = next(_UNIQUE_NUMBERS)
        stack = AsyncExitStack()
        key = await make_key(database_url, *REGULAR_SCOPES, name=f"limited{number}", hospitals=[f"A{number}"])
        restricted = await stack.enter_async_context(client_for(app, key))
        world = cls(
            number, restricted, await stack.enter_async_context(client_for(app, unrestricted_key)), connection, stack
        )
        for hospital in world.hospitals:
            await world.unrestricted.post(HOSPITALS, json={"unique_id": hospital, "hospital_name": hospital})
        for resource, prefix in ID_PREFIXES.items():
            world.ids[resource].append(f"w{number}-{prefix}-never")
        anchor = {"unique_id": f"w{number}-anchor", "patient_last_name": "Anchor", "hospital_ids": world.hospitals}
        assert (await world.unrestricted.post(PATIENTS, json=anchor)).status_code == 201
        for name, bits in {"own": 1, "ours": 1, "other": 2, "shared": 7, "none": 0, "gone": 1, "lost": 2}.items():
            ids = [f"w{number}-{prefix}-{name}" for prefix in ID_PREFIXES.values()]
            nested = {"unique_id": ids[1], **world.new_marked_fields(PROFILES, ids[1])}
            body = {"unique_id": ids[0], **world.new_marked_fields(PATIENTS, ids[0]), "patient_profile": nested}
            response = await world.unrestricted.post(
                PATIENTS, json={**body, "hospital_ids": world.hospitals_from_bits(bits)}
            )
            assert response.status_code == 201, response.text
            if name in {"gone", "lost"}:
                assert (await world.unrestricted.delete(f"{PATIENTS}{ids[0]}/")).status_code == 204
        retired = f"w{number}-prof-retired"
        await world.unrestricted.post(
            PROFILES, json={"unique_id": retired, **world.new_marked_fields(PROFILES, retired)}
        )
        assert (await world.unrestricted.delete(f"{PROFILES}{retired}/")).status_code == 204
        return world

    @property
    def hospitals(self) -> list[str]:
        return [f"{letter}{self.number}" for letter in "ABC"]

    def hospitals_from_bits(self, bits: int) -> list[str]:
        return [hospital for index, hospital in enumerate(self.hospitals) if bits >> index & 1]

    def new_marked_fields(self, resource: str, unique_id: str) -> dict[str, str]:
        """Return field values with a new marker for a record."""
        if unique_id not in self.ids[resource]:
            self.ids[resource].append(unique_id)
        marker = Marker(next(_UNIQUE_NUMBERS))
        self.traces_by_record.setdefault((resource, unique_id), {unique_id}).update(marker.traces)
        return marker.fields(resource)

    async def read_visible_state(self) -> VisibleState:
        """Return which of the current records the restricted principal sees."""
        own_hospital = self.hospitals[0]
        patients = await self.connection.fetch(_SELECT_PATIENTS, own_hospital)
        profiles = await self.connection.fetch("SELECT unique_id, version FROM profiles")
        seen = {PATIENTS: {row["unique_id"] for row in patients if row["seen"]}}
        seen[PROFILES] = {row["profile_id"] for row in patients if row["seen"]} - {None}
        rows = [(PATIENTS, row) for row in patients] + [(PROFILES, row) for row in profiles]
        deleted = {
            row["unique_id"]: row["profile_id"]
            for row in await self.connection.fetch(_SELECT_DELETED_PATIENTS, own_hospital)
        }
        hidden = {
            (resource, row["unique_id"]): row["version"]
            for resource, row in rows
            if row["unique_id"] not in seen[resource]
        }
        return VisibleState(seen, deleted, hidden)

    async def note_shown_traces(self, state: VisibleState) -> None:
        """Note what the restricted principal may know from now on: each visible record with its history."""
        readable_patient_ids = {*state.visible_ids[PATIENTS], *state.deleted_patients}
        whole = [(PATIENTS, unique_id) for unique_id in readable_patient_ids]
        whole += [
            (PROFILES, unique_id)
            for unique_id in {*state.visible_ids[PROFILES], *state.deleted_patients.values()}
            if unique_id
        ]
        for record in whole:
            self.shown_traces |= self.traces_by_record.get(record, set())
        self.shown_traces |= {
            row[0] for row in await self.connection.fetch(_SELECT_LINKED_PROFILES, list(readable_patient_ids)) if row[0]
        }

    def leaked_traces(self, response: httpx.Response) -> Iterator[str]:
        """Yield the traces of hidden records in a response."""
        text = f"{response.text}\n{response.headers}"
        for traces in self.traces_by_record.values():
            yield from (trace for trace in traces - self.shown_traces if trace in text)


UNRESTRICTED_ACTIONS = ("move", "move", "rewrite", "link", "delete", "restore", "delete_profile")


class Step(NamedTuple):
    """One request: its action, and numbers that choose its record and its variant."""

    action: str
    record_number: int
    other_number: int
    variant: int
    condition_number: int


class UnrestrictedChanges:
    """The actions of the unrestricted principal."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.state: VisibleState

    def pick_id(self, resource: str, number: int) -> str:
        """Return the id of any record; for every other number, that of a visible one."""
        seen = sorted(self.state.visible_ids[resource].intersection(self.world.ids[resource]))
        ids = seen if number % 2 and seen else self.world.ids[resource]
        return ids[number // 2 % len(ids)]

    def linkable_profile_id(self, number: int) -> str:
        """Return the id of a profile to link, but not of the one that never existed and must not."""
        unused_id, *others = self.world.ids[PROFILES]
        picked = self.pick_id(PROFILES, number)
        return others[0] if picked == unused_id else picked

    async def move(self, step: Step) -> None:
        """Move a patient into, out of or within the hospital scope, with new data for it and its profile."""
        unique_id = self.pick_id(PATIENTS, step.record_number)
        path = f"{PATIENTS}{unique_id}/"
        record = await self.world.unrestricted.get(path)
        if record.status_code == 200:
            body: dict[str, Any] = {
                **self.world.new_marked_fields(PATIENTS, unique_id),
                "hospital_ids": self.world.hospitals_from_bits(step.variant),
            }
            if profile := record.json()["patient_profile"]:
                named = profile["unique_id"]
                body["patient_profile"] = {"unique_id": named, **self.world.new_marked_fields(PROFILES, named)}
            assert (await self.world.unrestricted.put(path, json=body)).status_code == 200

    async def rewrite(self, step: Step) -> None:
        profile = self.pick_id(PROFILES, step.record_number)
        if (await self.world.unrestricted.get(f"{PROFILES}{profile}/")).status_code == 200:
            await self.world.unrestricted.put(
                f"{PROFILES}{profile}/", json=self.world.new_marked_fields(PROFILES, profile)
            )

    async def link(self, step: Step) -> None:
        profile = None if step.variant == 0 else {"unique_id": self.linkable_profile_id(step.other_number)}
        await self.world.unrestricted.put(
            f"{PATIENTS}{self.pick_id(PATIENTS, step.record_number)}/", json={"patient_profile": profile}
        )

    async def delete(self, step: Step) -> None:
        await self.world.unrestricted.delete(f"{PATIENTS}{self.pick_id(PATIENTS, step.record_number)}/")

    async def restore(self, step: Step) -> None:
        body = {"version": step.variant % 4 + 1, "skip_missing": True}
        await self.world.unrestricted.post(
            f"{PATIENTS}{self.pick_id(PATIENTS, step.record_number)}/restore/", json=body
        )

    async def delete_profile(self, step: Step) -> None:
        await self.world.unrestricted.delete(f"{PROFILES}{self.pick_id(PROFILES, step.record_number)}/")
