"""Keep a copy of all patients up to date: python mirror.py http://127.0.0.1:8000 API-KEY"""

import asyncio
import json
import sys
from typing import Any

import httpx

FILTERS = {"hospitals": "hospital_id", "doctors": "doctor_id", "profiles": "profile_id"}


class Mirror:
    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client
        self.patients: dict[str, Any] = {}
        self.cursor = ""

    async def read(self, **filters: str) -> tuple[dict[str, Any], str]:
        async with self.client.stream(
            "GET", "/patients/patients/", params=filters, headers={"Accept": "application/x-ndjson"}, timeout=600
        ) as response:
            lines = [json.loads(line) async for line in response.raise_for_status().aiter_lines()]
        return {patient["unique_id"]: patient for patient in lines}, response.headers["Changes-Cursor"]

    async def copy(self) -> None:
        self.patients, self.cursor = await self.read()

    async def follow(self, wait: int = 25) -> bool:
        """Apply the next changes, and return whether there were any."""
        selection = f"after={self.cursor}&resource=patients&limit=1000&wait={wait}"
        response = await self.client.get(f"/changes/?{selection}", timeout=60)
        if response.status_code == httpx.codes.GONE:
            await self.copy()
            return True
        changes, changed_ids = response.raise_for_status().json(), set()
        for change in changes:
            if change["action"] != "affected":
                changed_ids.add(change["unique_id"])
            elif change["patients"] is not None:
                changed_ids.update(change["patients"])
            else:  # too many to list
                because = change["because"]
                patients, _ = await self.read(**{FILTERS[because["resource"]]: because["unique_id"]})
                self.patients |= patients
        for unique_id in changed_ids:
            response_for_one = await self.client.get(f"/patients/patients/{unique_id}/")
            self.patients.pop(unique_id, None)
            if response_for_one.status_code != httpx.codes.NOT_FOUND:
                self.patients[unique_id] = response_for_one.raise_for_status().json()
        self.cursor = response.headers["Next-Cursor"]  # only now, so that nothing is lost if this program is killed
        return bool(changes)


async def main(url: str, key: str) -> None:
    async with httpx.AsyncClient(base_url=url, headers={"X-API-Key": key}) as client:
        mirror = Mirror(client)
        await mirror.copy()
        while True:
            await mirror.follow()
            print(f"{len(mirror.patients)} patients", flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
