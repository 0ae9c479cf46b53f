"""The lines of an NDJSON body, within limits for its size and the number of its lines."""

import codecs

from fastapi import Request
from starlette.exceptions import HTTPException

from app.errors import ImportTooLargeError
from app.http.strict_json import MAX_BODY_SIZE_BYTES

MAX_IMPORT_BYTES = 16 * 1024 * 1024
"""Maximum size of the body of an import, in bytes."""
MAX_IMPORT_LINES = 10_000
"""Maximum number of lines in the body of an import. Blank lines count, because they take time, too."""


async def read_lines(request: Request) -> list[tuple[int, bytes]]:
    """Read the body of a request, and return its lines that are not blank, with their numbers, counted from 1.

    Raises:
        ImportTooLargeError: the body or a line is too long, or there are too many lines.
    """
    lines: list[tuple[int, bytes]] = []
    pending, number = bytearray(), 0
    try:
        async for chunk in request.stream():
            *ends, rest = chunk.split(b"\n")
            for end in ends:
                number += 1
                _add_line(lines, number, bytes(pending + end))
                pending.clear()
            pending += rest
            if len(pending) > MAX_BODY_SIZE_BYTES:
                raise ImportTooLargeError
    except HTTPException as error:  # from the middleware that limits bodies
        raise ImportTooLargeError from error
    if pending:
        _add_line(lines, number + 1, bytes(pending))
    return lines


def _add_line(lines: list[tuple[int, bytes]], number: int, line: bytes) -> None:
    if number == 1:
        line = line.removeprefix(codecs.BOM_UTF8)  # as the command does
    if line.strip():
        lines.append((number, line))
    if len(line) > MAX_BODY_SIZE_BYTES or number > MAX_IMPORT_LINES:
        raise ImportTooLargeError
