"""Random requests by eight principals, and what each was and heard."""

from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any, NamedTuple
from urllib.parse import urlencode

from app.auth.scopes import Scope
from tests.auth.support import HOSPITALS, PATIENTS, PROFILES
from tests.hostile.wire import HangUp, Heard, OnHead, Wire
from tests.processes import Call
from tests.walls.conftest import AUDIT

ONE = "{unique_id}/"
HANG_UPS = 0.06
"""The share of requests whose client hangs up."""
REDRAWN = 0.8
"""The share of requests for which their principal lacks the scope, and another request is made up instead."""
CHECKED_AT_ONCE = 0.05
"""The share of answers whose audit rows are looked for as soon as the head of the answer has arrived."""
HOT = 40
"""Patients that every other request is about, so that requests meet."""
HOSPITAL_IDS = ("hosA", "hosB", "hosC", "hosD", "hosE")
DOCTOR_IDS = ("docA", "docB", "docC")
PROFILE_IDS = tuple(f"prof{number:02}" for number in range(20))
LAST_NAMES = ("Dlamini", "Nkosi", "Naidoo", "van der Merwe", "Botha", "O'Brien", "Mokoena", "Smith")
FIRST_NAMES = ("Thandi", "Sipho", "Priya", "Anna", "Pieter", "Zoë", "John", "Lerato")
NO_TAG = '"AAAAAAAAAAAAAAAAAAAAAA"'
REASON = "Unconscious after a fall, allergies unknown"


class Caller(NamedTuple):
    """A principal, and what it may do."""

    name: str
    key: str
    scopes: frozenset[Scope]
    hospitals: frozenset[str] | None

    @property
    def actor(self) -> str:
        """Its name in journal and audit."""
        return f"key:{self.name}"

    def may(self, scope: Scope) -> bool:
        return bool(self.scopes & {scope, Scope.ADMIN})


_ALL = frozenset(Scope) - {Scope.ADMIN, Scope.BREAK_GLASS}
CALLERS: Mapping[str, tuple[frozenset[Scope], tuple[str, ...] | None]] = {
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
    "one": (_ALL, ("hosA",)),
    "several": (_ALL, ("hosA", "hosB", "hosC")),
    "emergency": (frozenset({Scope.PATIENTS_READ, Scope.HISTORY_READ, Scope.BREAK_GLASS}), ("hosC",)),
    "auditor": (frozenset({Scope.AUDIT_READ, Scope.PROFILES_READ}), None),
}
"""The scopes and hospitals of each principal, by its name."""


@dataclass
class Asked:
    """One request, and what was heard of it."""

    request_id: str
    caller: Caller
    kind: str
    scope: Scope
    route: str
    call: Call
    about: str | None = None
    """The id in its path."""
    group: str | None = None
    """Requests that are repeats of each other have the same; it is the Idempotency-Key."""
    filtered: bool = False
    """Whether a list was asked for with conditions, a search, or an order of its own."""
    after: str | None = None
    """The id that ends the page before, in an unfiltered list."""
    hang_up: HangUp | None = None
    heard: Heard = field(default_factory=lambda: Heard(0.0))
    rows_at_head: int | None = None
    """How many audit rows the request had when the head of its answer had arrived, if they were looked for."""

    @property
    def resource(self) -> str:
        return self.route.split("/")[1]

    @property
    def changes(self) -> bool:
        """Whether it is to change something."""
        return not self.scope.reads

    @property
    def status(self) -> int | None:
        return self.heard.status

    @property
    def accepted(self) -> bool:
        """Whether the answer said, or began to say, that it was done."""
        return self.status is not None and self.status < 400

    @property
    def body(self) -> Mapping[str, Any]:
        return self.call.body or {}

    def __str__(self) -> str:
        return f"{self.request_id} ({self.caller.name}: {self.call.method} {self.call.path}, {self.status})"


CountRows = Callable[[str, float], Awaitable[int]]
"""Counts the audit rows of a request id since a moment."""


class Asker:
    """Makes up requests, sends them, and remembers what answers told."""

    def __init__(self, name: str, seed: int, callers: Mapping[str, Caller], count_rows: CountRows) -> None:
        self.random = Random(seed)  # noqa: S311  # nobody is to be kept from guessing
        self.callers = callers
        self.asked: list[Asked] = []
        self._name = name
        self._count_rows = count_rows
        self.patients: list[str] = []
        self._tags: defaultdict[str, deque[str]] = defaultdict(lambda: deque(maxlen=3))
        self._cursors: defaultdict[str, deque[Asked]] = defaultdict(lambda: deque(maxlen=20))
        self._keyed: deque[Asked] = deque(maxlen=200)

    async def send_any(self, wire: Wire) -> None:
        """Send one request of some kind by somebody."""
        kind = self.random.choices(list(KINDS), [weight for weight, _ in KINDS.values()])[0]
        asked = KINDS[kind][1](self, self._caller())
        if not asked.caller.may(asked.scope) and self.random.random() < REDRAWN:
            return
        when = self.random.choice(list(HangUp)) if self.random.random() < HANG_UPS else None
        await self.send(wire, asked, when)

    def _caller(self) -> Caller:
        return self.random.choice(list(self.callers.values()))

    async def send(self, wire: Wire, asked: Asked, when: HangUp | None = None) -> Asked:
        asked = replace(asked, request_id=f"{self._name}-{len(self.asked)}", hang_up=when)
        self.asked.append(asked)
        if asked.group is not None:
            self._keyed.append(asked)
        headers = {"Authorization": f"Bearer {asked.caller.key}", "X-Request-ID": asked.request_id}
        call = replace(asked.call, headers={**asked.call.headers, **headers})
        if when is None:
            look = self._looking(asked) if self.random.random() < CHECKED_AT_ONCE else None
            asked.heard = await wire.ask(call, look)
        else:
            asked.heard = await wire.hang_up(call, when, self.random)
        self._learn(asked)
        return asked

    def _looking(self, asked: Asked) -> OnHead:
        began = asked.heard.began

        async def look() -> None:
            asked.rows_at_head = await self._count_rows(asked.request_id, began)

        return look

    def _learn(self, asked: Asked) -> None:
        heard = asked.heard
        if not heard.complete or not asked.accepted:
            return
        if asked.call.method == "POST" and asked.route == PATIENTS:
            self.patients.append(heard.document["unique_id"])
        if heard.content and "etag" in heard.headers and asked.kind in {"create", "get", "update", "restore"}:
            self._tags[asked.about or heard.document["unique_id"]].append(heard.headers["etag"])
        if heard.content and 'rel="next"' in heard.headers.get("link", ""):
            self._cursors[asked.caller.name].append(asked)

    def asking(self, caller: Caller, kind: str, scope: Scope, route: str, method: str = "GET", **more: Any) -> Asked:
        """A request that is yet to be sent; `about` is the id in its path, `query` follows that."""
        path = route.replace("{unique_id}", more.get("about") or "").replace("{version}", more.pop("version", ""))
        path += more.pop("query", "")
        call = Call(method, path, more.pop("body", None), more.pop("headers", {}), more.pop("content", b""))
        return Asked("", caller, kind, scope, route, call, **more)

    def a_patient(self) -> str:
        if self.random.random() < 0.02:
            return "pat-never"
        return self.random.choice(self.patients[:HOT] if self.random.random() < 0.5 else self.patients)

    def _conditions(self, unique_id: str) -> dict[str, str]:
        tags = self._tags.get(unique_id) or [NO_TAG]
        chance = self.random.random()
        if chance < 0.25:
            return {"If-Match": tags[-1]}
        if chance < 0.32:
            return {"If-Match": self.random.choice([tags[0], NO_TAG, "*"])}
        return {"If-None-Match": self.random.choice([tags[-1], "*"])} if chance < 0.35 else {}

    def _key(self, likely: float) -> dict[str, Any]:
        if self.random.random() > likely:
            return {}
        key = f"key-{self._name}-{len(self.asked)}"
        return {"group": key, "headers": {"Idempotency-Key": key}}

    def _hospitals(self, caller: Caller) -> list[str]:
        if caller.hospitals is not None and self.random.random() < 0.85:
            own = sorted(caller.hospitals)
            return self.random.sample(own, self.random.randint(1, len(own)))
        return self.random.sample(HOSPITAL_IDS, self.random.randint(0, 3))

    def _body(self, caller: Caller, *, new: bool) -> dict[str, Any]:
        """What to write of a patient: something that no other request writes, and more."""
        random, number = self.random, len(self.asked)
        body: dict[str, Any] = {"patient_town": f"Town {number}"}
        if new or random.random() < 0.2:
            body |= {"patient_last_name": random.choice(LAST_NAMES), "patient_first_name": random.choice(FIRST_NAMES)}
            body["patient_date_of_birth"] = f"{random.randint(1930, 1999)}-0{random.randint(1, 9)}-15"
        if new or random.random() < 0.3:
            body["hospital_ids"] = self._hospitals(caller)
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

    def create(self, caller: Caller) -> Asked:
        if self.random.random() < 0.02:
            return self.asking(caller, "create", Scope.PATIENTS_WRITE, PATIENTS, "POST", content=b"{")
        body = self._body(caller, new=True)
        if self.random.random() < 0.15:
            body["unique_id"] = self.random.choice([f"pat-own{len(self.asked)}", self.a_patient()])
        more = self._key(0.4)
        if self.random.random() < 0.04:
            more["headers"] = {**more.get("headers", {}), "If-None-Match": "*"}
        return self.asking(caller, "create", Scope.PATIENTS_WRITE, PATIENTS, "POST", body=body, **more)

    def repeat(self, caller: Caller) -> Asked:
        """A request with an Idempotency-Key once more, perhaps while the first is under way."""
        if not self._keyed:
            return self.create(caller)
        recent = list(self._keyed)[-10:] if self.random.random() < 0.6 else list(self._keyed)
        return replace(self.random.choice(recent), heard=Heard(0.0), rows_at_head=None)

    def update(self, caller: Caller) -> Asked:
        body = self._body(caller, new=False) if self.random.random() < 0.93 else {}
        about, method = self.a_patient(), self.random.choice(["PUT", "PUT", "PATCH"])
        headers = self._conditions(about)
        route = f"{PATIENTS}{ONE}"
        scope = Scope.PATIENTS_WRITE
        return self.asking(caller, "update", scope, route, method, about=about, body=body, headers=headers)

    def delete(self, caller: Caller) -> Asked:
        about = self.a_patient()
        headers = self._conditions(about)
        scope = Scope.PATIENTS_DELETE
        return self.asking(caller, "delete", scope, f"{PATIENTS}{ONE}", "DELETE", about=about, headers=headers)

    def restore(self, caller: Caller) -> Asked:
        about, more = self.a_patient(), self._key(0.3)
        more["headers"] = {**more.get("headers", {}), **self._conditions(about)}
        body = {"version": self.random.randint(1, 4), "skip_missing": self.random.random() < 0.5}
        route = f"{PATIENTS}{ONE}restore/"
        return self.asking(caller, "restore", Scope.PATIENTS_WRITE, route, "POST", about=about, body=body, **more)

    def get(self, caller: Caller) -> Asked:
        about = self.a_patient()
        tags, headers = self._tags.get(about), {}
        if tags and self.random.random() < 0.25:
            headers["If-None-Match"] = self.random.choice(tags)
        if self.random.random() < (0.3 if caller.name == "emergency" else 0.02):
            headers["X-Break-Glass"] = REASON
        method = "HEAD" if self.random.random() < 0.1 else "GET"
        route = f"{PATIENTS}{ONE}"
        return self.asking(caller, "get", Scope.PATIENTS_READ, route, method, about=about, headers=headers)

    def list(self, caller: Caller) -> Asked:
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
        return self.asking(caller, "list", scope, PATIENTS, method, query=query, filtered=filtered)

    def page(self, caller: Caller) -> Asked:
        """The page after one that the caller was shown."""
        if not self._cursors[caller.name]:
            return self.list(caller)
        before = self.random.choice(self._cursors[caller.name])
        target = before.heard.headers["link"].split(">")[0].removeprefix("<")
        by_ids = before.kind == "list" and not before.filtered
        after = before.heard.document[-1]["unique_id"] if by_ids else None
        return replace(before, call=Call("GET", target), after=after, heard=Heard(0.0), rows_at_head=None)

    def whole(self, caller: Caller) -> Asked:
        return self.asking(caller, "list", Scope.PATIENTS_READ, PATIENTS)

    def search(self, caller: Caller) -> Asked:
        typed = self.random.choice([*LAST_NAMES, *FIRST_NAMES, "dlamni", "Nkosi Thandi", "1975-05-12", "brien"])
        wanted = {"search": typed, "limit": self.random.choice([2, 10, 100])}
        if self.random.random() < 0.5:
            query = f"?{urlencode(wanted)}"
            return self.asking(caller, "list", Scope.PATIENTS_READ, PATIENTS, query=query, filtered=True)
        route = f"{PATIENTS}search/"
        return self.asking(caller, "list", Scope.PATIENTS_READ, route, "POST", body=wanted, filtered=True)

    def history(self, caller: Caller) -> Asked:
        about = self.a_patient()
        if self.random.random() < 0.5:
            query = self.random.choice(["", "?limit=2"])
            route = f"{PATIENTS}{ONE}history/"
            return self.asking(caller, "history", Scope.HISTORY_READ, route, about=about, query=query)
        version, route = str(self.random.randint(1, 4)), f"{PATIENTS}{ONE}history/{{version}}/"
        return self.asking(caller, "version", Scope.HISTORY_READ, route, about=about, version=version)

    def audit(self, caller: Caller) -> Asked:
        if self.random.random() < 0.5:
            return self.asking(caller, "audit", Scope.AUDIT_READ, AUDIT, query="?limit=5")
        about = self.a_patient()
        route = f"{PATIENTS}{ONE}access/"
        return self.asking(caller, "audit", Scope.AUDIT_READ, route, about=about, query="?limit=5")

    def profile(self, caller: Caller) -> Asked:
        about, number, route = self.random.choice(PROFILE_IDS), len(self.asked), f"{PROFILES}{ONE}"
        method = self.random.choice(["GET", "GET", "PUT", "PUT", "DELETE", "LIST", "POST"])
        if method == "GET":
            return self.asking(caller, "get", Scope.PROFILES_READ, route, about=about)
        if method == "LIST":
            return self.asking(caller, "list", Scope.PROFILES_READ, PROFILES, query="?limit=10")
        if method == "DELETE":
            return self.asking(caller, "delete", Scope.PROFILES_WRITE, route, method, about=about)
        body = {"last_name": f"Last {number}"}
        if method == "PUT":
            return self.asking(caller, "update", Scope.PROFILES_WRITE, route, method, about=about, body=body)
        body["unique_id"] = self.random.choice([about, f"prof-new{number}"])
        more = self._key(0.3)
        return self.asking(caller, "create", Scope.PROFILES_WRITE, PROFILES, method, body=body, **more)

    def hospital(self, caller: Caller) -> Asked:
        about, route = self.random.choice(HOSPITAL_IDS), f"{HOSPITALS}{ONE}"
        if self.random.random() < 0.6:
            return self.asking(caller, "get", Scope.DIRECTORY_READ, route, about=about)
        body = {"hospital_name": f"Hospital {len(self.asked)}"}
        return self.asking(caller, "update", Scope.DIRECTORY_WRITE, route, "PUT", about=about, body=body)


KINDS: Mapping[str, tuple[float, Callable[[Asker, Caller], Asked]]] = {
    "create": (11, Asker.create),
    "repeat": (7, Asker.repeat),
    "update": (22, Asker.update),
    "delete": (8, Asker.delete),
    "restore": (7, Asker.restore),
    "get": (14, Asker.get),
    "list": (8, Asker.list),
    "page": (6, Asker.page),
    "whole": (1, Asker.whole),
    "search": (6, Asker.search),
    "history": (5, Asker.history),
    "audit": (2, Asker.audit),
    "profile": (6, Asker.profile),
    "hospital": (2, Asker.hospital),
}
"""How often each kind of request is made, and by what."""
