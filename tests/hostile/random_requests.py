"""Random requests by eight principals, with their responses."""

from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any, NamedTuple
from urllib.parse import urlencode

from app.auth.scopes import Scope
from tests.auth.support import HOSPITALS, PATIENTS, PROFILES
from tests.hospital_scope.conftest import AUDIT_PATH
from tests.hostile.client_connection import ClientConnection, Disconnect, OnHead, TimedResponse
from tests.processes import RawRequest

RECORD_ROUTE_SUFFIX = "{unique_id}/"
DISCONNECT_SHARE = 0.06
"""The share of requests whose client disconnects."""
REDRAW_SHARE = 0.8
"""The share of requests without the required scope that are replaced by another request."""
IMMEDIATE_CHECK_SHARE = 0.05  # of requests: their audit rows are counted as soon as the response head has arrived
HOT_PATIENT_COUNT = 40
"""The number of patients that every second request is about, so that requests collide."""
HOSPITAL_IDS = ("hosA", "hosB", "hosC", "hosD", "hosE")
DOCTOR_IDS = ("docA", "docB", "docC")
PROFILE_IDS = tuple(f"prof{number:02}" for number in range(20))
LAST_NAMES = ("Dlamini", "Nkosi", "Naidoo", "van der Merwe", "Botha", "O'Brien", "Mokoena", "Smith")
FIRST_NAMES = ("Thandi", "Sipho", "Priya", "Anna", "Pieter", "Zoë", "John", "Lerato")
UNKNOWN_TAG = '"AAAAAAAAAAAAAAAAAAAAAA"'
BREAK_GLASS_REASON = "Unconscious after a fall, allergies unknown"


class Caller(NamedTuple):
    """A principal with its scopes and hospitals."""

    name: str
    key: str
    scopes: frozenset[Scope]
    hospitals: frozenset[str] | None

    @property
    def actor(self) -> str:
        """Its name in journal and audit."""
        return f"key:{self.name}"

    def has_scope(self, scope: Scope) -> bool:
        return bool(self.scopes & {scope, Scope.ADMIN})


_ORDINARY_SCOPES = frozenset(Scope) - {Scope.ADMIN, Scope.BREAK_GLASS}
CALLER_RIGHTS: Mapping[str, tuple[frozenset[Scope], tuple[str, ...] | None]] = {
    "admin": (frozenset({Scope.ADMIN}), None),
    "reader": (frozenset({Scope.PATIENTS_READ, Scope.HISTORY_READ, Scope.DIRECTORY_READ, Scope.PROFILES_READ}), None),
    "writer": (
        frozenset({Scope.PATIENTS_READ, Scope.PATIENTS_WRITE, Scope.PROFILES_READ, Scope.PROFILES_WRITE})
        | {Scope.DIRECTORY_READ, Scope.DIRECTORY_WRITE},
        None,
    ),
    "cleaner": (
        frozenset({Scope.PATIENTS_READ, Scope.PATIENTS_WRITE, Scope.PATIENTS_DELETE, Scope.HISTORY_READ}),
        None,
    ),
    "one": (_ORDINARY_SCOPES, ("hosA",)),
    "several": (_ORDINARY_SCOPES, ("hosA", "hosB", "hosC")),
    "emergency": (frozenset({Scope.PATIENTS_READ, Scope.HISTORY_READ, Scope.BREAK_GLASS}), ("hosC",)),
    "auditor": (frozenset({Scope.AUDIT_READ, Scope.PROFILES_READ}), None),
}
"""The scopes and hospitals of each principal, by name."""


@dataclass
class SentRequest:
    """A request and its response."""

    request_id: str
    caller: Caller
    kind: str
    scope: Scope
    route: str
    call: RawRequest
    about: str | None = None
    """The id in its path."""
    group: str | None = None
    """The Idempotency-Key, which repeated requests share."""
    filtered: bool = False
    """Whether it is a list with conditions, a search or an ordering."""
    after: str | None = None
    """The last id of the previous page of an unfiltered list."""
    hang_up: Disconnect | None = None
    heard: TimedResponse = field(default_factory=lambda: TimedResponse(0.0))
    rows_at_head: int | None = None
    """The number of audit rows of the request when the head of its response had arrived, if they were counted."""

    @property
    def resource(self) -> str:
        return self.route.split("/")[1]

    @property
    def is_change(self) -> bool:
        """Whether it is a write."""
        return not self.scope.is_read_only

    @property
    def status(self) -> int | None:
        return self.heard.status

    @property
    def is_accepted(self) -> bool:
        """Whether the response began with a success status."""
        return self.status is not None and self.status < 400

    @property
    def body(self) -> Mapping[str, Any]:
        return self.call.body or {}

    def __str__(self) -> str:
        return f"{self.request_id} ({self.caller.name}: {self.call.method} {self.call.path}, {self.status})"


CountRows = Callable[[str, float], Awaitable[int]]
"""Counts the audit rows of a request id since a time."""


class RequestGenerator:
    """Generates random requests, sends them, and remembers ids, tags and cursors from the responses."""

    def __init__(self, name: str, seed: int, callers: Mapping[str, Caller], count_rows: CountRows) -> None:
        self.random = Random(seed)  # noqa: S311  # no secrets: the seed makes runs repeatable
        self.callers = callers
        self.sent_requests: list[SentRequest] = []
        self._name = name
        self._count_rows = count_rows
        self.patients: list[str] = []
        self._tags: defaultdict[str, deque[str]] = defaultdict(lambda: deque(maxlen=3))
        self._cursors: defaultdict[str, deque[SentRequest]] = defaultdict(lambda: deque(maxlen=20))
        self._idempotent_requests: deque[SentRequest] = deque(maxlen=200)

    async def send_random(self, wire: ClientConnection) -> None:
        """Send a random request by a random principal."""
        kind = self.random.choices(list(REQUEST_KINDS), [weight for weight, _ in REQUEST_KINDS.values()])[0]
        request = REQUEST_KINDS[kind][1](self, self._random_caller())
        if not request.caller.has_scope(request.scope) and self.random.random() < REDRAW_SHARE:
            return
        disconnect = self.random.choice(list(Disconnect)) if self.random.random() < DISCONNECT_SHARE else None
        await self.send(wire, request, disconnect)

    def _random_caller(self) -> Caller:
        return self.random.choice(list(self.callers.values()))

    async def send(
        self, wire: ClientConnection, request: SentRequest, disconnect: Disconnect | None = None
    ) -> SentRequest:
        request = replace(request, request_id=f"{self._name}-{len(self.sent_requests)}", hang_up=disconnect)
        self.sent_requests.append(request)
        if request.group is not None:
            self._idempotent_requests.append(request)
        headers = {"Authorization": f"Bearer {request.caller.key}", "X-Request-ID": request.request_id}
        call = replace(request.call, headers={**request.call.headers, **headers})
        if disconnect is None:
            on_head = self._audit_row_counter(request) if self.random.random() < IMMEDIATE_CHECK_SHARE else None
            request.heard = await wire.send(call, on_head)
        else:
            request.heard = await wire.send_and_disconnect(call, disconnect, self.random)
        self._remember(request)
        return request

    def _audit_row_counter(self, request: SentRequest) -> OnHead:
        began = request.heard.started_at

        async def count_audit_rows() -> None:
            request.rows_at_head = await self._count_rows(request.request_id, began)

        return count_audit_rows

    def _remember(self, request: SentRequest) -> None:
        response = request.heard
        if not response.is_complete or not request.is_accepted:
            return
        if request.call.method == "POST" and request.route == PATIENTS:
            self.patients.append(response.document["unique_id"])
        if response.content and "etag" in response.headers and request.kind in {"create", "get", "update", "restore"}:
            self._tags[request.about or response.document["unique_id"]].append(response.headers["etag"])
        if response.content and 'rel="next"' in response.headers.get("link", ""):
            self._cursors[request.caller.name].append(request)

    def make_request(
        self, caller: Caller, kind: str, scope: Scope, route: str, method: str = "GET", **more: Any
    ) -> SentRequest:
        """Return a request that is not sent yet; `about` is the id in its path, and `query` follows the path."""
        path = route.replace("{unique_id}", more.get("about") or "").replace("{version}", more.pop("version", ""))
        path += more.pop("query", "")
        call = RawRequest(method, path, more.pop("body", None), more.pop("headers", {}), more.pop("content", b""))
        return SentRequest("", caller, kind, scope, route, call, **more)

    def random_patient_id(self) -> str:
        if not self.patients or self.random.random() < 0.02:
            return "pat-never"
        return self.random.choice(self.patients[:HOT_PATIENT_COUNT] if self.random.random() < 0.5 else self.patients)

    def _random_preconditions(self, unique_id: str) -> dict[str, str]:
        tags = self._tags.get(unique_id) or [UNKNOWN_TAG]
        chance = self.random.random()
        if chance < 0.25:
            return {"If-Match": tags[-1]}
        if chance < 0.32:
            return {"If-Match": self.random.choice([tags[0], UNKNOWN_TAG, "*"])}
        return {"If-None-Match": self.random.choice([tags[-1], "*"])} if chance < 0.35 else {}

    def _random_idempotency_key(self, probability: float) -> dict[str, Any]:
        if self.random.random() > probability:
            return {}
        key = f"key-{self._name}-{len(self.sent_requests)}"
        return {"group": key, "headers": {"Idempotency-Key": key}}

    def _random_hospitals(self, caller: Caller) -> list[str]:
        if caller.hospitals is not None and self.random.random() < 0.85:
            own = sorted(caller.hospitals)
            return self.random.sample(own, self.random.randint(1, len(own)))
        return self.random.sample(HOSPITAL_IDS, self.random.randint(0, 3))

    def _random_body(self, caller: Caller, *, new: bool) -> dict[str, Any]:
        """Return random fields of a patient, with at least one value that no other request writes."""
        random, number = self.random, len(self.sent_requests)
        body: dict[str, Any] = {"patient_town": f"Town {number}"}
        if new or random.random() < 0.2:
            body |= {"patient_last_name": random.choice(LAST_NAMES), "patient_first_name": random.choice(FIRST_NAMES)}
            body["patient_date_of_birth"] = f"{random.randint(1930, 1999)}-0{random.randint(1, 9)}-15"
        if new or random.random() < 0.3:
            body["hospital_ids"] = self._random_hospitals(caller)
        if random.random() < 0.15:
            body["doctor_ids"] = random.sample(DOCTOR_IDS, random.randint(0, 2))
        chance = random.random()
        if chance < 0.25:
            profile = random.choice(PROFILE_IDS) if random.random() < 0.8 else f"prof-new{number}"
            body["patient_profile"] = {"unique_id": profile}
            if random.random() < 0.6:
                body["patient_profile"]["first_name"] = f"First {number}"
        elif chance < 0.3:
            body["patient_profile"] = None
        if random.random() < 0.03:
            body |= random.choice([{"patient_gender": "x"}, {"hospital_ids": ["hosNone"]}, {"doctor_ids": ["docNone"]}])
        return body

    def create(self, caller: Caller) -> SentRequest:
        if self.random.random() < 0.02:
            return self.make_request(caller, "create", Scope.PATIENTS_WRITE, PATIENTS, "POST", content=b"{")
        body = self._random_body(caller, new=True)
        if self.random.random() < 0.15:
            body["unique_id"] = self.random.choice([f"pat-own{len(self.sent_requests)}", self.random_patient_id()])
        more = self._random_idempotency_key(0.4)
        if self.random.random() < 0.04:
            more["headers"] = {**more.get("headers", {}), "If-None-Match": "*"}
        return self.make_request(caller, "create", Scope.PATIENTS_WRITE, PATIENTS, "POST", body=body, **more)

    def repeat(self, caller: Caller) -> SentRequest:
        """Return an earlier request with an Idempotency-Key again, perhaps while the first one still runs."""
        if not self._idempotent_requests:
            return self.create(caller)
        recent = (
            list(self._idempotent_requests)[-10:] if self.random.random() < 0.6 else list(self._idempotent_requests)
        )
        return replace(self.random.choice(recent), heard=TimedResponse(0.0), rows_at_head=None)

    def update(self, caller: Caller) -> SentRequest:
        body = self._random_body(caller, new=False) if self.random.random() < 0.93 else {}
        about, method = self.random_patient_id(), self.random.choice(["PUT", "PUT", "PATCH"])
        headers = self._random_preconditions(about)
        route = f"{PATIENTS}{RECORD_ROUTE_SUFFIX}"
        scope = Scope.PATIENTS_WRITE
        return self.make_request(caller, "update", scope, route, method, about=about, body=body, headers=headers)

    def delete(self, caller: Caller) -> SentRequest:
        about = self.random_patient_id()
        headers = self._random_preconditions(about)
        scope = Scope.PATIENTS_DELETE
        return self.make_request(
            caller, "delete", scope, f"{PATIENTS}{RECORD_ROUTE_SUFFIX}", "DELETE", about=about, headers=headers
        )

    def restore(self, caller: Caller) -> SentRequest:
        about, more = self.random_patient_id(), self._random_idempotency_key(0.3)
        more["headers"] = {**more.get("headers", {}), **self._random_preconditions(about)}
        body = {"version": self.random.randint(1, 4), "skip_missing": self.random.random() < 0.5}
        route = f"{PATIENTS}{RECORD_ROUTE_SUFFIX}restore/"
        return self.make_request(caller, "restore", Scope.PATIENTS_WRITE, route, "POST", about=about, body=body, **more)

    def get(self, caller: Caller) -> SentRequest:
        about = self.random_patient_id()
        tags, headers = self._tags.get(about), {}
        if tags and self.random.random() < 0.25:
            headers["If-None-Match"] = self.random.choice(tags)
        if self.random.random() < (0.3 if caller.name == "emergency" else 0.02):
            headers["X-Break-Glass"] = BREAK_GLASS_REASON
        method = "HEAD" if self.random.random() < 0.1 else "GET"
        route = f"{PATIENTS}{RECORD_ROUTE_SUFFIX}"
        return self.make_request(caller, "get", Scope.PATIENTS_READ, route, method, about=about, headers=headers)

    def list(self, caller: Caller) -> SentRequest:
        filters: Any = {}
        if filtered := self.random.random() < 0.5:
            name = self.random.choice(LAST_NAMES)
            filters = self.random.choice(
                [
                    {"hospital_id": self.random.choice(HOSPITAL_IDS)},
                    {"patient_last_name": name},
                    {"patient_last_name__startswith": name[:2]},
                    {"patient_date_of_birth__gte": "1970-01-01", "ordering": "-last_updated"},
                    {"ordering": "patient_last_name"},
                ]
            )
        elif self.random.random() < 0.1:
            filters = {"count": "exact"}
        query = f"?{urlencode({**filters, 'limit': self.random.choice([1, 2, 5, 20, 50])})}"
        method = "HEAD" if self.random.random() < 0.05 else "GET"
        scope = Scope.PATIENTS_READ
        return self.make_request(caller, "list", scope, PATIENTS, method, query=query, filtered=filtered)

    def page(self, caller: Caller) -> SentRequest:
        """Return a request for the page after one that the caller received."""
        if not self._cursors[caller.name]:
            return self.list(caller)
        before = self.random.choice(self._cursors[caller.name])
        target = before.heard.headers["link"].split(">")[0].removeprefix("<")
        by_ids = before.kind == "list" and not before.filtered
        after = before.heard.document[-1]["unique_id"] if by_ids else None
        return replace(before, call=RawRequest("GET", target), after=after, heard=TimedResponse(0.0), rows_at_head=None)

    def list_all(self, caller: Caller) -> SentRequest:
        return self.make_request(caller, "list", Scope.PATIENTS_READ, PATIENTS)

    def search(self, caller: Caller) -> SentRequest:
        text = self.random.choice([*LAST_NAMES, *FIRST_NAMES, "dlamni", "Nkosi Thandi", "1975-05-12", "brien"])
        parameters = {"search": text, "limit": self.random.choice([2, 10, 100])}
        if self.random.random() < 0.5:
            query = f"?{urlencode(parameters)}"
            return self.make_request(caller, "list", Scope.PATIENTS_READ, PATIENTS, query=query, filtered=True)
        route = f"{PATIENTS}search/"
        return self.make_request(caller, "list", Scope.PATIENTS_READ, route, "POST", body=parameters, filtered=True)

    def history(self, caller: Caller) -> SentRequest:
        about = self.random_patient_id()
        if self.random.random() < 0.5:
            query = self.random.choice(["", "?limit=2"])
            route = f"{PATIENTS}{RECORD_ROUTE_SUFFIX}history/"
            return self.make_request(caller, "history", Scope.HISTORY_READ, route, about=about, query=query)
        version, route = str(self.random.randint(1, 4)), f"{PATIENTS}{RECORD_ROUTE_SUFFIX}history/{{version}}/"
        return self.make_request(caller, "version", Scope.HISTORY_READ, route, about=about, version=version)

    def audit(self, caller: Caller) -> SentRequest:
        if self.random.random() < 0.5:
            return self.make_request(caller, "audit", Scope.AUDIT_READ, AUDIT_PATH, query="?limit=5")
        about = self.random_patient_id()
        route = f"{PATIENTS}{RECORD_ROUTE_SUFFIX}access/"
        return self.make_request(caller, "audit", Scope.AUDIT_READ, route, about=about, query="?limit=5")

    def profile(self, caller: Caller) -> SentRequest:
        about, number, route = (
            self.random.choice(PROFILE_IDS),
            len(self.sent_requests),
            f"{PROFILES}{RECORD_ROUTE_SUFFIX}",
        )
        method = self.random.choice(["GET", "GET", "PUT", "PUT", "DELETE", "LIST", "POST"])
        if method == "GET":
            return self.make_request(caller, "get", Scope.PROFILES_READ, route, about=about)
        if method == "LIST":
            return self.make_request(caller, "list", Scope.PROFILES_READ, PROFILES, query="?limit=10")
        if method == "DELETE":
            return self.make_request(caller, "delete", Scope.PROFILES_WRITE, route, method, about=about)
        body = {"last_name": f"Last {number}"}
        if method == "PUT":
            return self.make_request(caller, "update", Scope.PROFILES_WRITE, route, method, about=about, body=body)
        body["unique_id"] = self.random.choice([about, f"prof-new{number}"])
        more = self._random_idempotency_key(0.3)
        return self.make_request(caller, "create", Scope.PROFILES_WRITE, PROFILES, method, body=body, **more)

    def hospital(self, caller: Caller) -> SentRequest:
        about, route = self.random.choice(HOSPITAL_IDS), f"{HOSPITALS}{RECORD_ROUTE_SUFFIX}"
        if self.random.random() < 0.6:
            return self.make_request(caller, "get", Scope.DIRECTORY_READ, route, about=about)
        body = {"hospital_name": f"Hospital {len(self.sent_requests)}"}
        return self.make_request(caller, "update", Scope.DIRECTORY_WRITE, route, "PUT", about=about, body=body)


REQUEST_KINDS: Mapping[str, tuple[float, Callable[[RequestGenerator, Caller], SentRequest]]] = {
    "create": (11, RequestGenerator.create),
    "repeat": (7, RequestGenerator.repeat),
    "update": (22, RequestGenerator.update),
    "delete": (8, RequestGenerator.delete),
    "restore": (7, RequestGenerator.restore),
    "get": (14, RequestGenerator.get),
    "list": (8, RequestGenerator.list),
    "page": (6, RequestGenerator.page),
    "whole": (1, RequestGenerator.list_all),
    "search": (6, RequestGenerator.search),
    "history": (5, RequestGenerator.history),
    "audit": (2, RequestGenerator.audit),
    "profile": (6, RequestGenerator.profile),
    "hospital": (2, RequestGenerator.hospital),
}
"""The weight of each kind of request and the method that generates it."""
