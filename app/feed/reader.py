"""Reads the feed for one client: pages of changes, waiting for more, as JSON."""

import json
import math
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import Request

from app.api.resource import ResourceApi
from app.api.services import get_services
from app.audit.recorder import AUDITED_RESOURCES, RequestAudit
from app.auth.principal import Principal
from app.auth.scopes import Scope
from app.changes.cursors import MAX_BATCHES_PER_COPY, open_position, seal_position
from app.changes.numbering import FeedPosition
from app.changes.reading import PATIENTS, Change, FeedQuery
from app.doctors.routes import resource as doctors
from app.errors import UnauthorizedError
from app.feed.schemas import NOW_CURSOR, FeedParameters
from app.hospitals.routes import resource as hospitals
from app.patients.routes import resource as patients
from app.profiles.routes import resource as profiles

RESOURCES: dict[str, ResourceApi[Any, Any]] = {
    resource.repository_class.table.name: resource for resource in (patients, profiles, hospitals, doctors)
}


class FeedReader:
    """Reads the feed for one request, from the position that the request asks for."""

    def __init__(self, request: Request, parameters: FeedParameters) -> None:
        """Prepare to read. `start` must be called before anything else.

        Raises:
            MissingScopeError: the request asks for records that the principal may not read.
        """
        self._request = request
        self._services = get_services(request)
        self._principal = Principal.from_request(request)
        self._parameters = parameters
        resources = None if parameters.resource is None else frozenset[str](parameters.resource)
        self._query = FeedQuery(self._principal.hospitals, resources)
        self._position: FeedPosition | None = None
        if parameters.include is not None:
            possible = {PATIENTS} if self._query.hospitals is not None else RESOURCES.keys()
            for name in sorted(possible if resources is None else resources & possible):
                self._principal.require(RESOURCES[name].read_scope)

    @property
    def stream_limit(self) -> float:
        """The number of changes after which a stream ends, which is infinite unless the request has a limit."""
        return self._parameters.limit or math.inf

    async def start(self, last_event_id: str | None) -> None:
        """Go to the position of the last event, or else to that of the parameter `after`, which is a cursor or now.

        Raises:
            ValidationFailedError: the text is not a cursor of the feed.
            FeedExpiredError: the cursor was made for another hospital scope.
        """
        cursors, after = self._services.cursors, self._parameters.after
        if last_event_id:
            self._position = await open_position(cursors, last_event_id, self._query, ("header", "Last-Event-ID"))
        elif after == NOW_CURSOR:
            self._position = (await self._services.feed.numbering.refresh(MAX_BATCHES_PER_COPY)).newest
        elif after is not None:
            self._position = await open_position(cursors, after, self._query)

    async def page(self, limit: int, wait_seconds: float) -> Sequence[Change]:
        """Return the next changes, and go to the position after them.

        If there are none, wait for some up to `wait_seconds`. The result is empty if there are still none.

        Raises:
            FeedExpiredError: the changes after this position are no longer stored.
            UnauthorizedError: the credentials were revoked or changed during the wait.
        """
        feed, watcher, name = self._services.feed, self._services.change_watcher, self._principal.name
        deadline = time.monotonic() + wait_seconds
        state = watcher.state if wait_seconds else None  # what it does not have yet ends the wait
        while True:
            page = await feed.page(name, self._query, self._position, limit, state)
            self._position = page.end
            remaining = deadline - time.monotonic()
            if page.changes or remaining <= 0 or self._services.is_stopping:
                return page.changes
            state = await watcher.wait(self._query, page.end, remaining)
            await self._authenticate_again()

    async def _authenticate_again(self) -> None:
        authenticator, principal = self._services.authenticator, self._principal
        now = await authenticator.authenticate(self._request, str(principal.request_id), Scope.CHANGES_READ)
        if now != principal:
            raise UnauthorizedError(invalid=True)

    async def cursor(self, position: FeedPosition | None = None) -> str:
        """Return the cursor of a position of the feed. The default is the position at which the next page begins."""
        position = position or self._position
        assert position is not None, "a page has been read"  # noqa: S101
        return await seal_position(self._services.cursors, position, self._query.hospitals)

    async def documents(self, changes: Sequence[Change]) -> list[str]:
        """Return the changes as JSON texts, with the records if the request asks for them."""
        records = None if self._parameters.include is None else await self._read_records(changes)
        return [self._document(change, records) for change in changes]

    def _document(self, change: Change, records: Mapping[tuple[str, str | None], str] | None) -> str:
        content: dict[str, Any] = {
            "position": change.feed_position.position if self._query.hospitals is None else None,
            "resource": change.resource,
            "unique_id": change.unique_id,
            "version": change.version,
            "action": change.action,
            "time": change.time,
        }
        if change.into is not None:
            content["into"] = change.into
        if change.source is not None:
            content["because"] = change.source._asdict()
            content["patients"] = change.patients
        document = json.dumps(content, separators=(",", ":"))
        if records is None:
            return document
        return with_member(document, "record", records.get((change.resource, change.unique_id), "null"))

    async def _read_records(self, changes: Sequence[Change]) -> dict[tuple[str, str | None], str]:
        """Return the documents of the changed records that exist, by resource and id, and record this in the audit."""
        ids_by_resource = defaultdict(set)
        for change in changes:
            if change.unique_id is not None:
                ids_by_resource[change.resource].add(change.unique_id)
        documents: dict[tuple[str, str | None], str] = {}
        for name, ids in ids_by_resource.items():
            async with self._services.database.read() as connection:
                repository = RESOURCES[name].repository_class(connection, self._principal)
                records = await repository.get_many(sorted(ids))
            if name in AUDITED_RESOURCES and records and self._services.settings.reads_audited:
                await RequestAudit.from_request(self._request).record_disclosure(name, sorted(records))
            documents |= {(name, unique_id): record.document for unique_id, record in records.items()}
        return documents


def with_member(document: str, name: str, value: str) -> str:
    """Return a JSON object with one more member, whose value is JSON text."""
    return f'{document[:-1]},"{name}":{value}}}'
