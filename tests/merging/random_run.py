"""Random requests of several principals, each compared with the model, and then everything that principals see."""

import asyncio
from collections.abc import Callable
from random import Random
from typing import Any, NamedTuple

import httpx

from tests.auth.support import HOSPITALS, PROFILES
from tests.merging.model import FIELDS, SETS, Entry, Model, Outcome, State
from tests.merging.support import PATIENTS

IDENTIFIER_VALUES = ("A1", "B2", "C3", "D4")
INCLUDED = {"include": "identifiers"}
HOSPITAL_IDS, DOCTOR_IDS, PROFILE_IDS = ("hosA", "hosB", "hosC"), ("doc1", "doc2"), ("prof1", "prof2", "prof3")
SCOPES: dict[str, frozenset[str] | None] = {
    "free": None,
    "a": frozenset({"hosA"}),
    "b": frozenset({"hosB"}),
    "ab": frozenset({"hosA", "hosB"}),
}
"""The hospitals of each principal."""
PERSON = {"patient_first_name": "Nomvula", "patient_last_name": "Dlamini", "patient_date_of_birth": "1984-02-17"}
"""All patients have these values, so that each pair is in the queue."""
MAX_PATIENTS = 9
STEP_FREQUENCIES = {
    "create": 3,
    "edit": 6,
    "link": 4,
    "delete": 1,
    "restore": 1,
    "dismiss": 1,
    "get": 2,
    "merge": 8,
    "unmerge": 5,
}
STEPS = [name for name, frequency in STEP_FREQUENCIES.items() for _ in range(frequency)]


class Principal(NamedTuple):
    """A client, the hospitals that it is restricted to, and its copy of the register."""

    name: str
    scope: frozenset[str] | None
    client: httpx.AsyncClient
    mirror: dict[str, Any]


class RandomRun:
    """A run of random steps with one seed."""

    def __init__(self, seed: int, clients: dict[str, httpx.AsyncClient]) -> None:
        self.random = Random(seed)  # noqa: S311  # the numbers need not be secret
        self.principals = [Principal(name, SCOPES[name], client, {}) for name, client in clients.items()]
        self.free = self.principals[0].client
        self.cursors: dict[str, str] = {}
        self.model = Model()
        self.seed = seed
        self.statuses: set[tuple[str, int]] = set()
        """The operations and statuses that the run has seen."""

    async def prepare(self) -> None:
        """Create what patients are linked to, and some patients."""
        for unique_id in HOSPITAL_IDS:
            await self.free.post(HOSPITALS, json={"unique_id": unique_id, "hospital_name": unique_id})
        for unique_id in DOCTOR_IDS:
            await self.free.post("/doctors/doctors/", json={"unique_id": unique_id, "doctor_first_name": unique_id})
        for unique_id in PROFILE_IDS:
            await self.free.post(PROFILES, json={"unique_id": unique_id, "first_name": unique_id})
        for principal in self.principals:
            await self.create(principal)

    async def steps(self, count: int) -> None:
        """Make random steps."""
        for _ in range(count):
            principal = self.random.choice(self.principals)
            await getattr(self, self.random.choice(STEPS))(principal)

    async def send(
        self, principal: Principal, method: str, path: str, expect: Callable[[], Outcome], body: object = None
    ) -> httpx.Response:
        """Send a request, and compare the response with what the model expects of it."""
        request_id = f"{self.seed}-{self.model.number}"
        response = await principal.client.request(
            method, f"{PATIENTS}{path}", json=body, headers={"X-Request-ID": request_id}
        )
        self.model.begin(request_id)
        expected = expect()
        step = (self.seed, self.model.number, principal.name, method, path, body)
        assert response.status_code == expected.status, (step, expected, response.text)
        content = response.json() if response.content else {}
        assert {name: content[name] for name in expected.body} == expected.body, step
        if response.status_code == 409:
            assert ("undo_first" in content) == ("undo_first" in expected.body), step
        self.statuses.add((f"{method} {path.partition('/')[2]}", response.status_code))
        return response

    def pick(self) -> str:
        return self.random.choice([*self.model.patients, "never"])

    def pick_values(self, principal: Principal) -> State:
        """Return random values of some fields. Restricted principals see no other profile to link."""
        fields = FIELDS if principal.scope is None else FIELDS[:-1]
        names = self.random.sample(fields, self.random.randint(1, 3))
        return {
            name: self.random.choice([None, *(PROFILE_IDS if name == "patient_profile" else ("x", "y", "z"))])
            for name in names
        }

    def pick_set(self, ids: tuple[str, ...]) -> frozenset[str]:
        return frozenset(self.random.sample(ids, self.random.randint(0, len(ids))))

    async def create(self, principal: Principal) -> None:
        if len(self.model.patients) >= MAX_PATIENTS:
            return
        hospitals = self.pick_set(HOSPITAL_IDS if principal.scope is None else tuple(sorted(principal.scope)))
        hospitals |= principal.scope or frozenset()
        state = {**dict.fromkeys(FIELDS), **self.pick_values(principal), "hospital_ids": hospitals}
        state |= {"doctor_ids": self.pick_set(DOCTOR_IDS), "patient_identifiers": self.pick_set(IDENTIFIER_VALUES)}
        request_id = f"{self.seed}-{self.model.number}"
        response = await principal.client.post(
            PATIENTS, json={**PERSON, **body_of(state)}, headers={"X-Request-ID": request_id}
        )
        assert response.status_code == 201, response.text
        self.model.begin(request_id)
        self.model.create(response.json()["unique_id"], state)

    async def edit(self, principal: Principal) -> None:
        unique_id, values = self.pick(), self.pick_values(principal)
        if self.random.random() < 0.3:
            values["patient_identifiers"] = self.pick_set(IDENTIFIER_VALUES)
        await self.send(
            principal,
            "PATCH",
            f"{unique_id}/",
            lambda: self.model.edit(principal.scope, unique_id, values),
            body_of(values),
        )

    async def link(self, _: Principal) -> None:
        unique_id = self.pick()
        links: State = {"hospital_ids": self.pick_set(HOSPITAL_IDS), "doctor_ids": self.pick_set(DOCTOR_IDS)}
        free = self.principals[0]
        await self.send(free, "PUT", f"{unique_id}/", lambda: self.model.edit(None, unique_id, links), body_of(links))

    async def get(self, principal: Principal) -> None:
        unique_id = self.pick()
        await self.send(principal, "GET", f"{unique_id}/", lambda: self.model.get(principal.scope, unique_id))

    async def delete(self, principal: Principal) -> None:
        unique_id = self.pick()
        await self.send(principal, "DELETE", f"{unique_id}/", lambda: self.model.delete(principal.scope, unique_id))

    async def restore(self, _: Principal) -> None:
        if self.model.patients:
            unique_id = self.random.choice(list(self.model.patients))
            version = self.random.randint(1, len(self.model.patients[unique_id].entries) + 1)
            free = self.principals[0]
            await self.send(
                free,
                "POST",
                f"{unique_id}/restore/",
                lambda: self.model.restore(unique_id, version),
                {"version": version},
            )

    async def merge(self, principal: Principal) -> None:
        survivor, loser = self.pick(), self.pick()
        choose = {name: self.random.choice(("survivor", "loser")) for name in self.random.sample(FIELDS, 2)}
        await self.send(
            principal,
            "POST",
            f"{survivor}/merge/",
            lambda: self.model.merge(principal.scope, survivor, loser, choose),
            {"from": loser, "choose": choose},
        )

    async def unmerge(self, principal: Principal) -> None:
        merged = [name for name, patient in self.model.patients.items() if patient.merged_into is not None]
        loser = self.random.choice([*merged * 3, self.pick()])
        await self.send(principal, "POST", f"{loser}/unmerge/", lambda: self.model.unmerge(principal.scope, loser), {})

    async def dismiss(self, principal: Principal) -> None:
        pairs = (await principal.client.get("/patients/duplicates/")).json()
        if pairs:
            pair = self.random.choice(pairs)
            path = f"/patients/duplicates/{pair['unique_id']}/dismiss/"
            assert (await principal.client.post(path, json={"reason": "twins"})).status_code == 200
            one, other = pair["patients"]
            self.model.decide(one, other, "dismissed")

    async def compare(self) -> None:
        """Compare all that each principal sees with the model."""
        for principal in self.principals:
            await self._compare_queue(principal)
            await self._compare_feed(principal)
            listed = {
                patient["unique_id"]: patient
                for patient in (await principal.client.get(PATIENTS, params=INCLUDED)).json()
            }
            assert listed == principal.mirror, (self.seed, principal.name)
            assert listed.keys() == {one for one in self.model.patients if self.model.sees(principal.scope, one)}
            for unique_id, document in listed.items():
                assert state_of_document(document) == self.model.patients[unique_id].state, (self.seed, unique_id)
            for unique_id in self.model.patients:
                await self._compare_past(principal, unique_id)

    async def _compare_queue(self, principal: Principal) -> None:
        """Compare the queue, perhaps several times, because the background may be comparing the newest patients."""
        for status in ("open", "dismissed", "merged"):
            expected = self.model.pairs(principal.scope, status) - self.model.undetermined
            found: set[frozenset[str]] | None = None
            async with asyncio.timeout(20):
                while found != expected:
                    response = await principal.client.get("/patients/duplicates/", params={"status": status})
                    found = {frozenset(pair["patients"]) for pair in response.json()} - self.model.undetermined

    async def _compare_feed(self, principal: Principal) -> None:
        """Bring the principal's copy up to date by the feed."""
        while True:
            after = {"after": self.cursors[principal.name]} if principal.name in self.cursors else {}
            response = await principal.client.get("/changes/", params={"resource": "patients", **after})
            self.cursors[principal.name] = response.headers["Next-Cursor"]
            if not response.json():
                return
            for change in response.json():
                unique_id = change["unique_id"]
                if change["action"] == "merged":
                    entry = self.model.patients[unique_id].entries[change["version"] - 1]
                    assert entry.merge == {"merged_into": change["into"]}, (self.seed, change)
                if change["action"] in {"deleted", "merged", "left"}:
                    principal.mirror.pop(unique_id, None)
                else:
                    record = await principal.client.get(f"{PATIENTS}{unique_id}/", params=INCLUDED)
                    if record.status_code == 200:
                        principal.mirror[unique_id] = record.json()
                    else:
                        principal.mirror.pop(unique_id, None)

    async def _compare_past(self, principal: Principal, unique_id: str) -> None:
        """Compare the history of a patient, and the report of its accesses."""
        history = await principal.client.get(f"{PATIENTS}{unique_id}/history/")
        report = await principal.client.get(f"{PATIENTS}{unique_id}/access/")
        if not self.model.may_know(principal.scope, unique_id):
            assert (history.status_code, report.status_code) == (404, 404)
            return
        entries = [
            Entry(entry["action"], entry["record"] and state_of_snapshot(entry["record"]), entry.get("merge"))
            for entry in reversed(history.json())
        ]
        assert entries == self.model.patients[unique_id].entries, (self.seed, unique_id)
        known = {request_id for patient in self.model.patients.values() for _, request_id in patient.events}
        reported = {event["request_id"] for event in report.json()} & known
        assert reported == self.model.report(unique_id), (self.seed, principal.name, unique_id)


def body_of(state: State) -> dict[str, Any]:
    """Return the body of a request that sets these values."""
    body = {name: sorted(value) if name in SETS else value for name, value in state.items()}
    if body.get("patient_profile") is not None:
        body["patient_profile"] = {"unique_id": body["patient_profile"]}
    if "patient_identifiers" in body:
        body["patient_identifiers"] = [{"type": "other", "value": value} for value in body["patient_identifiers"]]
    return body


def state_of_document(document: dict[str, Any]) -> State:
    """Return the values in a patient that a response contains."""
    profile = document["patient_profile"]
    state = {**{name: document[name] for name in FIELDS}, "patient_profile": profile and profile["unique_id"]}
    for name in ("hospital", "doctor"):
        state[f"{name}_ids"] = frozenset(link["unique_id"] for link in document[f"patient_{name}"])
    return {**state, "patient_identifiers": identifier_values(document)}


def state_of_snapshot(snapshot: dict[str, Any]) -> State:
    """Return the values in the snapshot of an entry."""
    state = {**{name: snapshot.get(name) for name in FIELDS}, "patient_profile": snapshot.get("profile_id")}
    state |= {name: frozenset(snapshot[name]) for name in SETS[:2]}
    return {**state, "patient_identifiers": identifier_values(snapshot)}


def identifier_values(record: dict[str, Any]) -> frozenset[str]:
    """Return the values of the identifiers in a document or a snapshot."""
    return frozenset(identifier["value"] for identifier in record.get("patient_identifiers", ()))
