"""Clients that write and remember what the service acknowledged."""

import asyncio
import itertools
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Self

import httpx

ACKNOWLEDGE_TIMEOUT_SECONDS = 300
"""Limit for a number of writes: at the end of an import, which takes over a minute on a slow machine, nobody can create
a patient with a name that is new and also in the import."""
PATIENTS = "/patients/patients/"
HOSPITALS = ("hos0", "hos1")


@dataclass
class WriteLog:
    """What was requested from the service, and what it has acknowledged so far."""

    attempted: set[str] = field(default_factory=set)
    """All requested writes: `create <key>`, `count <counter> <goal>`, `delete <id>`."""
    created: dict[str, str] = field(default_factory=dict)
    """The id in the response to each Idempotency-Key."""
    counts: dict[str, int] = field(default_factory=dict)
    """The value each counter has reached according to the responses."""
    deleted: set[str] = field(default_factory=set)
    statuses: Counter[int] = field(default_factory=Counter)
    broken_connections: int = 0
    """Connections that ended without a response."""

    @property
    def acknowledged_count(self) -> int:
        """The number of acknowledged writes."""
        return len(self.created) + sum(self.counts.values()) + len(self.deleted)


class Writers:
    """Clients that write until they are stopped, and retry requests that got no response."""

    def __init__(self, url: str, clients: int) -> None:
        self.write_log = WriteLog()
        self._client = httpx.AsyncClient(base_url=url, timeout=10)
        self._clients = clients
        self._stopping = False
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        await self._prepare()
        self._tasks = [asyncio.create_task(self._write(number)) for number in range(self._clients)]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stopping = True
        await asyncio.gather(*self._tasks)
        await self._client.aclose()

    def switch_to(self, url: str) -> None:
        """Send all further requests to another service."""
        self._client.base_url = httpx.URL(url)

    async def await_acknowledged(self, additional: int) -> None:
        """Wait until `additional` more writes are acknowledged."""
        goal = self.write_log.acknowledged_count + additional
        async with asyncio.timeout(ACKNOWLEDGE_TIMEOUT_SECONDS):
            while self.write_log.acknowledged_count < goal:
                done = [task for task in self._tasks if task.done()]
                assert not done, [task.exception() for task in done]
                await asyncio.sleep(0.01)

    async def _prepare(self) -> None:
        for unique_id in HOSPITALS:
            body = {"unique_id": unique_id, "hospital_name": "General"}
            await self._client.post("/hospitals/hospitals/", json=body)
        for number in range(self._clients):
            body = {"unique_id": f"counter{number}", "patient_last_name": "Doe", "patient_race": "0"}
            assert (await self._client.post(PATIENTS, json=body)).status_code == 201
            self.write_log.counts[f"counter{number}"] = 0

    async def _send(self, method: str, path: str, **more: Any) -> httpx.Response | None:
        """Return a final response, or None if the connection broke or the service was unavailable."""
        try:
            response = await self._client.request(method, path, **more)
        except httpx.TransportError:
            self.write_log.broken_connections += 1
            await asyncio.sleep(0.02)
            return None
        self.write_log.statuses[response.status_code] += 1
        if response.status_code == 503:
            assert "Retry-After" in response.headers
            await asyncio.sleep(0.02)
            return None
        return response

    async def _write(self, number: int) -> None:
        for turn in itertools.count():
            if self._stopping:
                return
            await self._create(f"{number}-{turn}")
            await self._increment_counter(f"counter{number}")
            if turn % 3 == 0:
                await self._delete(self.write_log.created[f"{number}-{turn}"])

    @staticmethod
    def patient_body(key: str) -> dict[str, Any]:
        """Return the body sent with an Idempotency-Key."""
        profile = {"unique_id": f"prof-{key}", "first_name": key}
        return {"patient_last_name": key, "patient_profile": profile, "hospital_ids": HOSPITALS}

    async def _create(self, key: str) -> None:
        self.write_log.attempted.add(f"create {key}")
        body, headers = self.patient_body(key), {"Idempotency-Key": key}
        while (response := await self._send("POST", PATIENTS, json=body, headers=headers)) is None:
            pass
        assert response.status_code == 201, response.text
        self.write_log.created[key] = response.json()["unique_id"]

    async def _increment_counter(self, counter: str) -> None:
        """Increment a counter exactly once with If-Match, even if connections break and responses are lost."""
        path = f"{PATIENTS}{counter}/"
        goal = self.write_log.counts[counter] + 1
        self.write_log.attempted.add(f"count {counter} {goal}")
        while True:
            got = await self._send("GET", path)
            if got is None:
                continue
            if int(got.json()["patient_race"]) == goal:  # the response was lost
                break
            assert int(got.json()["patient_race"]) == goal - 1, "an acknowledged change is lost"
            headers = {"If-Match": got.headers["ETag"]}
            put = await self._send("PUT", path, json={"patient_race": str(goal)}, headers=headers)
            if put is not None and put.status_code == 200:
                break
            assert put is None or put.status_code == 412, put.text
        self.write_log.counts[counter] = goal

    async def _delete(self, unique_id: str) -> None:
        self.write_log.attempted.add(f"delete {unique_id}")
        while (response := await self._send("DELETE", f"{PATIENTS}{unique_id}/")) is None:
            pass
        assert response.status_code in {204, 404}, response.text  # 404: deleted by a request that lost its response
        self.write_log.deleted.add(unique_id)
