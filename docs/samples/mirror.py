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

    async def read(self, filters: dict[str, Any]) -> tuple[dict[str, Any], str]:
        headers = {"Accept": "application/x-ndjson"}
        async with self.client.stream("GET", "/patients/patients/", params=filters, headers=headers) as response:
            lines = [json.loads(line) async for line in response.raise_for_status().aiter_lines()]
        return {patient["unique_id"]: patient for patient in lines}, response.headers["Changes-Cursor"]

    async def copy(self) -> None:
        self.patients, self.cursor = await self.read({})

    async def follow(self, wait: int = 25) -> bool:
        """Apply the next changes, and return whether there were any."""
        selection = f"after={self.cursor}&resource=patients&include=record&limit=500&wait={wait}"
        response = await self.client.get(f"/changes/?{selection}")
        if response.status_code == httpx.codes.GONE:  # this copy is too old
            await self.copy()
            return True
        changes = response.raise_for_status().json()
        for change in changes:
            if change["action"] == "affected":
                await self.read_again(change["because"], change["patients"])
            elif change["record"] is None:
                self.patients.pop(change["unique_id"], None)
            else:
                self.patients[change["unique_id"]] = change["record"]
        self.cursor = response.headers["Next-Cursor"]  # only now, so that nothing is lost if this program is killed
        return bool(changes)

    async def read_again(self, because: dict[str, Any], ids: list[str] | None) -> None:
        """Read the patients again that show a changed hospital, doctor or profile. Without ids, there are many."""
        by_record = {FILTERS[because["resource"]]: because["unique_id"]}
        pages = [by_record] if ids is None else [{"unique_id": ids[n : n + 100]} for n in range(0, len(ids), 100)]
        for filters in pages:
            self.patients |= (await self.read(filters))[0]


async def main(url: str, key: str) -> None:
    async with httpx.AsyncClient(base_url=url, headers={"X-API-Key": key}, timeout=60) as client:
        mirror = Mirror(client)
        await mirror.copy()
        while True:
            await mirror.follow()
            print(f"{len(mirror.patients)} patients", flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
