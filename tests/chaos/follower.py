"""A program that follows the change feed and can be killed at any time: python -m tests.chaos.follower URL FILE

It appends a line to the file for each page, with the cursor after it, and continues after the last complete line.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import httpx


def read_pages(file: Path) -> list[dict[str, Any]]:
    """Return the pages that were stored completely."""
    return [json.loads(line) for line in file.read_text().splitlines(keepends=True) if line.endswith("\n")]


def main(url: str, path: str) -> None:
    file = Path(path)
    file.touch()
    pages = read_pages(file)
    file.write_text("".join(f"{json.dumps(page)}\n" for page in pages))  # without an incomplete line
    parameters = {"after": pages[-1]["cursor"]} if pages else {}
    with httpx.Client(base_url=url, timeout=60) as client, file.open("a") as output:
        while True:
            try:
                response = client.get("/changes/", params={**parameters, "limit": 1000, "wait": 5})
            except httpx.TransportError:
                time.sleep(0.05)
                continue
            if response.status_code == httpx.codes.SERVICE_UNAVAILABLE:
                time.sleep(0.05)
                continue
            if response.status_code == httpx.codes.GONE:
                output.write(json.dumps({"cursor": parameters["after"], "gone": True, "changes": []}) + "\n")
                return
            changes = response.raise_for_status().json()
            parameters["after"] = response.headers["Next-Cursor"]
            if changes:
                output.write(json.dumps({"cursor": parameters["after"], "changes": changes}) + "\n")
                output.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
