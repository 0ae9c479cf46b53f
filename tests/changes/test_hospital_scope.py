"""Principals that are restricted to hospitals get the changes of their own patients, and learn nothing of others."""

import random
from collections import Counter
from typing import Any

import asyncpg
import httpx
import pytest

from app.auth.principal import Principal
from app.auth.scopes import Scope
from app.db.connection import Connection
from app.db.database import Database
from app.errors import NotFoundError
from app.patients.service import PatientService
from app.records.service import FormerProfilePolicy
from docs.samples.mirror import Mirror
from tests.auth.support import HOSPITALS, PATIENTS, PROFILES, client_for, make_key, secured_app
from tests.changes.conftest import CHANGES, Follower, insert_patients_of, pages_read, summary
from tests.hospital_scope.conftest import ScopedClients, scoped_clients
from tests.support import recorded_statements

__all__ = ["scoped_clients"]

DOCTORS = "/doctors/doctors/"


async def followers(clients: ScopedClients) -> dict[str, Follower]:
    """Return a follower for each client, which has read everything so far."""
    all_followers = {name: Follower(client) for name, client in clients._asdict().items()}
    for follower in all_followers.values():
        await follower.read_all()
    return all_followers


async def actions(all_followers: dict[str, Follower]) -> dict[str, list[str]]:
    """Return what each follower gets next: the actions, and the id or the cause."""
    return {
        name: [
            f"{change['action']} {change['unique_id'] or change['patients']}" for change in await follower.read_all()
        ]
        for name, follower in all_followers.items()
    }


async def test_each_principal_gets_its_own_patients(scoped_clients: ScopedClients) -> None:
    """Changes of a patient reach the principals that can see it, before or after the change, and no others."""
    free = scoped_clients.free
    everyone = await followers(scoped_clients)

    async def put(unique_id: str, **body: Any) -> None:
        assert (await free.put(f"{PATIENTS}{unique_id}/", json=body)).status_code == 200

    await put("pat-a", patient_last_name="Changed")
    assert await actions(everyone) == {
        "a": ["updated pat-a"], "b": [], "both": ["updated pat-a"], "free": ["updated pat-a"]
    }  # fmt: skip
    await put("pat-a", hospital_ids=["hosB"])
    assert await actions(everyone) == {
        "a": ["left pat-a"], "b": ["entered pat-a"], "both": ["updated pat-a"], "free": ["updated pat-a"]
    }  # fmt: skip
    await put("pat-a", hospital_ids=["hosA", "hosB", "hosC"])
    await put("pat-a", hospital_ids=["hosC"])
    assert await actions(everyone) == {
        "a": ["entered pat-a", "left pat-a"],
        "b": ["updated pat-a", "left pat-a"],
        "both": ["updated pat-a", "left pat-a"],
        "free": ["updated pat-a", "updated pat-a"],
    }
    await put("pat-a", patient_last_name="Elsewhere")
    await free.delete(f"{PATIENTS}pat-a/")
    await free.delete(f"{PATIENTS}pat-b/")
    await free.post(f"{PATIENTS}pat-b/restore/", json={"version": 1})
    assert await actions(everyone) == {
        "a": [],
        "b": ["deleted pat-b", "restored pat-b"],
        "both": ["deleted pat-b", "restored pat-b"],
        "free": ["updated pat-a", "deleted pat-a", "deleted pat-b", "restored pat-b"],
    }


async def test_affected_patients_are_those_that_the_principal_sees(
    scoped_clients: ScopedClients, connection: asyncpg.Connection
) -> None:
    """A changed hospital or profile is reported to those whose patients show it, with these patients only."""
    everyone = await followers(scoped_clients)
    await scoped_clients.free.put(f"{HOSPITALS}hosC/", json={"hospital_name": "Renamed"})
    assert await actions(everyone) == {
        **{name: ["affected ['pat-shared']"] for name in ("a", "b", "both")},
        "free": ["updated hosC", "affected ['pat-shared']"],
    }
    await scoped_clients.free.put(f"{PROFILES}prof-a/", json={"first_name": "Eve"})
    assert await actions(everyone) == {
        "a": ["affected ['pat-a']"],
        "b": [],
        "both": ["affected ['pat-a']"],
        "free": ["updated prof-a", "affected ['pat-a']"],
    }
    await make_wide(connection, "hosB")
    await scoped_clients.free.put(f"{HOSPITALS}hosB/", json={"hospital_name": "Large"})
    assert await actions(everyone) == {
        "a": ["affected ['pat-shared']"],
        "b": ["affected None"],
        "both": ["affected None"],
        "free": ["updated hosB", "affected None"],
    }


async def make_wide(connection: asyncpg.Connection, hospital_id: str, patients: int = 251) -> None:
    """Give a hospital so many patients that numbering a change of it does not read their hospitals."""
    await insert_patients_of(connection, hospital_id, patients, f"{hospital_id}-{patients}-")


async def test_a_lookup_that_fails_reveals_nothing_of_other_hospitals(
    scoped_clients: ScopedClients, connection: asyncpg.Connection
) -> None:
    """If it cannot be found out whether a hospital's patients are the principal's own, the response is a 503."""
    (await scoped_clients.free.post(HOSPITALS, json={"unique_id": "big", "hospital_name": "Big"})).raise_for_status()
    await make_wide(connection, "big")
    follower = Follower(scoped_clients.a)
    await follower.read_all()
    await scoped_clients.free.put(f"{HOSPITALS}big/", json={"hospital_name": "Renamed"})
    await scoped_clients.free.get(CHANGES)
    async with connection.transaction():
        await connection.execute("LOCK TABLE patient_hospitals")
        response = await scoped_clients.a.get(CHANGES, params={"after": follower.cursor})
        assert (response.status_code, "big" in response.text) == (503, False)
    assert await follower.read() == []


async def test_many_changes_of_large_hospitals_are_looked_up_once(
    scoped_clients: ScopedClients, connection: asyncpg.Connection
) -> None:
    """A page is empty only at the end, and its patients are looked up once per changed record."""
    free = scoped_clients.free
    await make_wide(connection, "hosB")
    await free.put(f"{PATIENTS}pat-shared/", json={"hospital_ids": ["hosA", "hosC"]})
    everyone = await followers(scoped_clients)
    for number in range(30):
        await free.put(f"{HOSPITALS}hosB/", json={"hospital_name": f"Name {number}"})
    await free.put(f"{PATIENTS}pat-a/", json={"patient_last_name": "Own"})
    await free.get(CHANGES)
    for follower, parameters in ((everyone["a"], {"limit": 2}), (everyone["b"], {"limit": 100})):
        with recorded_statements() as sent:
            page = await follower.read(**parameters)
        assert len([one for one in sent if "FROM patient_hospitals" in one.text and "251" in one.text]) == 1
        assert {change["action"] for change in page} == ({"updated"} if follower is everyone["a"] else {"affected"})


async def test_what_is_read_does_not_depend_on_the_size_of_others(
    scoped_clients: ScopedClients, connection: asyncpg.Connection
) -> None:
    """A read after changes of large hospitals reads as many pages, however many hospitals and patients these are."""
    free = scoped_clients.free
    for hospital in ("big1", "big2", "big3"):
        (await free.post(HOSPITALS, json={"unique_id": hospital, "hospital_name": "Big"})).raise_for_status()
        await make_wide(connection, hospital)

    async def read_after_renaming(*hospitals: str) -> int:
        await connection.execute("VACUUM ANALYZE patient_hospitals, patients, changes, hospital_changes")
        follower = Follower(scoped_clients.a, "now")
        await follower.read()
        for hospital in hospitals:
            await free.put(f"{HOSPITALS}{hospital}/", json={"hospital_name": f"Renamed {len(hospitals)}"})
        await free.get(CHANGES)
        with recorded_statements() as sent:
            assert await follower.read() == []
        selects = [one for one in sent if one.text.startswith(("SELECT", "WITH")) and "251" in one.text]
        assert selects
        return sum([await pages_read(connection, one.text, *one.values) for one in selects])

    before = await read_after_renaming("big1")
    await make_wide(connection, "big2", 3000)
    assert await read_after_renaming("big1", "big2", "big3") <= before + 5


async def test_nothing_reveals_how_much_others_change(scoped_clients: ScopedClients) -> None:
    """Restricted principals get no positions, and cursors of one length, however many changes others make."""
    everyone = await followers(scoped_clients)
    lengths = {len(str(everyone["a"].cursor))}
    for number in range(120):
        await scoped_clients.free.put(f"{PATIENTS}pat-b/", json={"patient_last_name": f"Name {number}"})
    await scoped_clients.free.put(f"{PATIENTS}pat-a/", json={"patient_last_name": "Own"})
    (change,) = await everyone["a"].read(limit=1)
    assert summary([change]) == [("updated", "patients", "pat-a", 2)]
    assert change["position"] is None
    lengths.add(len(str(everyone["a"].cursor)))
    assert len(lengths) == 1
    assert await everyone["a"].read(limit=1) == []


async def test_a_cursor_belongs_to_a_hospital_scope(scoped_clients: ScopedClients) -> None:
    """With another hospital scope, a cursor is a 410: what came before it said nothing of the other hospitals."""
    everyone = await followers(scoped_clients)
    for owner, follower in everyone.items():
        for name, client in scoped_clients._asdict().items():
            response = await client.get(CHANGES, params={"after": follower.cursor})
            assert response.status_code == (200 if name == owner else 410)


async def test_restricted_principals_get_no_other_resources(scoped_clients: ScopedClients) -> None:
    """Changes of profiles, hospitals and doctors are not listed for restricted principals."""
    for resource in ("profiles", "hospitals", "doctors"):
        assert await Follower(scoped_clients.a, resource=resource).read() == []


class RandomChanges:
    """Makes random changes of patients and of what they show, some of which are refused."""

    def __init__(self, client: httpx.AsyncClient, database_url: str, seed: int) -> None:
        self.client = client
        self.database_url = database_url
        self.random = random.Random(seed)  # noqa: S311  # not a secret
        self.number = 0
        self.made = Counter[str]()
        self.ids = ["pat-a", "pat-b", "pat-shared", "pat-none"]
        self.kinds = [
            *(self.create, self.rename, *[self.move] * 3, self.identify, self.delete, self.restore),
            *(self.change_shown_record, *[self.merge] * 2, self.unmerge, self.erase),
        ]

    async def make(self) -> None:
        """Make one change, and count it by its kind unless it was refused."""
        self.number += 1
        kind = self.random.choice(self.kinds)
        status = await kind(self.random.choice(self.ids))
        refusals = {404, 409, 410, 422} if kind in (self.merge, self.unmerge) else {404, 410}
        assert status in {200, 201, 204} | refusals, (kind.__name__, status)
        if status not in refusals:
            self.made[kind.__name__] += 1

    def hospitals(self) -> list[str]:
        return self.random.sample(["hosA", "hosB", "hosC"], self.random.randint(0, 3))

    async def send(self, method: str, path: str, body: dict[str, Any] | None = None) -> int:
        return (await self.client.request(method, path, json=body)).status_code

    async def create(self, _: str) -> int:
        self.ids.append(f"pat-{self.number}")
        profile = {"unique_id": f"prof-{self.random.choice('ab')}", "first_name": f"Name {self.number}"}
        links = {"hospital_ids": self.hospitals(), "doctor_ids": ["doc"], "patient_profile": profile}
        return await self.send("POST", PATIENTS, {"unique_id": self.ids[-1], "patient_last_name": "New", **links})

    async def rename(self, unique_id: str) -> int:
        return await self.send("PUT", f"{PATIENTS}{unique_id}/", {"patient_last_name": f"Name {self.number}"})

    async def move(self, unique_id: str) -> int:
        return await self.send("PUT", f"{PATIENTS}{unique_id}/", {"hospital_ids": self.hospitals()})

    async def identify(self, unique_id: str) -> int:
        identifiers = [{"type": "passport", "value": f"A{self.number}"}]
        return await self.send("PATCH", f"{PATIENTS}{unique_id}/", {"patient_identifiers": identifiers})

    async def delete(self, unique_id: str) -> int:
        return await self.send("DELETE", f"{PATIENTS}{unique_id}/")

    async def restore(self, unique_id: str) -> int:
        return await self.send("POST", f"{PATIENTS}{unique_id}/restore/", {"version": 1})

    async def merge(self, unique_id: str) -> int:
        other = self.random.choice([each for each in self.ids if each != unique_id])
        return await self.send("POST", f"{PATIENTS}{unique_id}/merge/", {"from": other})

    async def unmerge(self, _: str) -> int:
        merged = (await self.client.get(PATIENTS, params={"merged": "true", "limit": 1})).json()
        path = f"{PATIENTS}{merged[0]['unique_id'] if merged else 'none'}/unmerge/"
        return await self.send("POST", path, {})

    async def erase(self, unique_id: str) -> int:
        async def work(connection: Connection) -> None:
            service = PatientService(connection, Principal("erase"))
            await service.erase(unique_id, "asked for", FormerProfilePolicy.KEEP)

        try:
            async with Database(self.database_url, pool_size=1) as database:
                await database.transaction(work)
        except NotFoundError:
            return 404
        return 204

    async def change_shown_record(self, _: str) -> int:
        path, field = self.random.choice(
            [
                *((f"{HOSPITALS}{unique_id}/", "hospital_name") for unique_id in ("hosA", "hosB", "hosC")),
                (f"{DOCTORS}doc/", "doctor_first_name"),
                (f"{PROFILES}prof-a/", "first_name"),
            ]
        )
        return await self.send("PUT", path, {field: f"Name {self.number}"})


@pytest.mark.parametrize("seed", range(3))
async def test_mirrors_equal_what_their_principals_see(
    scoped_clients: ScopedClients, database_url: str, seed: int
) -> None:
    """After random changes, a mirror that was copied and then followed equals what its principal sees, at any time."""
    doctor = {"unique_id": "doc", "doctor_first_name": "Ann"}
    assert (await scoped_clients.free.post(DOCTORS, json=doctor)).status_code == 201
    mirrors = [Mirror(client) for client in scoped_clients]
    for mirror in mirrors:
        await mirror.copy()
    changes = RandomChanges(scoped_clients.free, database_url, seed)
    for _ in range(80):
        await changes.make()
        mirror = changes.random.choice(mirrors)
        while await mirror.follow(wait=0):
            pass
        visible = (await mirror.client.get(PATIENTS)).json()
        assert mirror.patients == {patient["unique_id"]: patient for patient in visible}
    assert min(changes.made[kind] for kind in ("merge", "unmerge", "erase", "identify", "restore")) > 0, changes.made


@pytest.mark.parametrize("accept", ["application/json", "application/x-ndjson", "text/event-stream"])
async def test_no_trace_of_other_hospitals_is_sent(scoped_clients: ScopedClients, accept: str) -> None:
    """Whatever changes at another hospital, a restricted principal gets none of its ids and names, in any format."""
    free = scoped_clients.free
    cursor = (await scoped_clients.a.get(CHANGES, params={"after": "now"})).headers["Next-Cursor"]
    body = {"unique_id": "marker-id", "patient_last_name": "Marker", "hospital_ids": ["hosB"]}
    profile = {"unique_id": "marker-profile", "first_name": "Marker"}
    assert (await free.post(PATIENTS, json={**body, "patient_profile": profile})).status_code == 201
    await free.put(f"{HOSPITALS}hosB/", json={"hospital_name": "Marker"})
    await free.put(f"{PROFILES}marker-profile/", json={"first_name": "Marker two"})
    await free.put(f"{PATIENTS}marker-id/", json={"hospital_ids": ["hosB", "hosC"]})
    await free.delete(f"{PATIENTS}marker-id/")
    await free.put(f"{PATIENTS}pat-a/", json={"patient_last_name": "Own"})
    await free.put(f"{PATIENTS}pat-shared/", json={"patient_last_name": "Shared", "hospital_ids": ["hosA"]})
    path = f"{CHANGES}?after={cursor}&include=record&limit=2"
    response = await scoped_clients.a.get(path, headers={"Accept": accept})
    assert response.status_code == 200
    assert "marker" not in response.text.lower()
    assert response.text.count('"action"') == 2


async def test_records_need_their_scopes_and_are_audited(database_url: str, connection: asyncpg.Connection) -> None:
    """`include=record` is a 403 without the scope of each resource, and the audit has the records that were shown."""
    async with secured_app(database_url) as app:
        admin_key = await make_key(database_url, Scope.ADMIN, name="admin")
        reader_key = await make_key(database_url, Scope.CHANGES_READ, Scope.PATIENTS_READ, name="reader")
        async with client_for(app, admin_key) as admin, client_for(app, reader_key) as reader:
            patient = {"unique_id": "pat", "patient_last_name": "Doe", "patient_profile": {"unique_id": "prof"}}
            assert (await admin.post(PATIENTS, json=patient)).status_code == 201
            refused = await reader.get(CHANGES, params={"include": "record"})
            assert (refused.status_code, refused.json()["detail"]) == (
                403, "This request needs the scope directory:read."
            )  # fmt: skip
            assert (await reader.get(CHANGES)).status_code == 200
            before = await connection.fetchval("SELECT count(*) FROM audit")
            shown = await reader.get(CHANGES, params={"include": "record", "resource": "patients"})
            assert shown.json()[0]["record"]["unique_id"] == "pat"
            await reader.head(CHANGES, params={"include": "record", "resource": "patients"})  # shows nothing
            await admin.get(CHANGES, params={"include": "record"})
            access = (await admin.get(f"{PATIENTS}pat/access/")).json()
    rows = await connection.fetch("SELECT principal, resource, ids FROM audit WHERE route = '/changes/' ORDER BY id")
    assert [tuple(row) for row in rows] == [
        ("key:reader", "patients", ["pat"]), ("key:admin", "profiles", ["prof"]), ("key:admin", "patients", ["pat"])
    ]  # fmt: skip
    assert before == 1
    assert access[0]["description"] == "Saw the record in the feed of changes"
