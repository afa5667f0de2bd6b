"""The service itself, without HTTP: accepts, charges, ages, fails, refunds, expires."""

from __future__ import annotations

import hashlib
import math
import re
import statistics
import urllib.parse
from collections.abc import Callable
from functools import partial
from typing import Any

import orjson

from . import api
from .faults import FaultPlan, uniform
from .outputs import LAST, PLAIN, Given, draw
from .settings import SimulatorSettings
from .store import NEVER, NewTask, Store, Task

ODD_STATUS = "waiting_for_capacity"
"""An undocumented status word, for the fault `unknown_status`."""

_OWN = re.compile(r"/media/tasks/(task_[0-9a-f]+)/")
"""A task whose output a request names."""

_OUTCOMES = ("moderate", "fail")
_NORMAL = statistics.NormalDist()


class World:
    """One simulated service over one account file."""

    def __init__(self, settings: SimulatorSettings, store: Store, clock: Callable[[], float]) -> None:
        self.settings = settings
        self.store = store
        self.clock = clock
        self.faults = FaultPlan(settings.seed, settings.faults)
        self.users = api.Users(settings)
        self.models = api.Models(settings.models)
        self._nonce = (store.meta("nonce") or "").encode()
        self._requests = 0

    def digest(self, *what: object) -> str:
        """32 hex digits that nobody else's account has."""
        return hashlib.blake2b(repr(what).encode(), key=self._nonce, digest_size=16).hexdigest()

    def request_id(self) -> str:
        """A new id for an answer."""
        self._requests += 1
        return "req_" + self.digest("request", self._requests, self.clock())

    def enter(self, authorization: str | None, *, submit: bool, scheme: str = "Bearer") -> str:
        """Let a caller in and return the user. What has failed by now is refunded before the caller sees anything.

        Args:
            authorization: the header.
            submit: whether it is a POST.
            scheme: the word before the key in the service's dialect.

        Raises:
            ApiError: 401 or 429.
        """
        now = self.clock()
        user = self.users.authenticate(authorization, scheme)
        self.users.admit(user, now, submit=submit)
        self.store.refund_due(now)
        self.store.open_account(user, self.settings.balance)
        return user

    def latency(self, number: int) -> float:
        """Generation time of task `number`, seconds: lognormal, a pure function of seed and number."""
        s = self.settings
        if not s.sigma:
            return s.median_seconds
        return s.median_seconds * math.exp(s.sigma * _NORMAL.inv_cdf(uniform(s.seed, "latency", number)))

    def submit(self, user: str, endpoint: str, body: bytes, label: str, url: str = "") -> NewTask:
        """Accept a request: charge for it and start its task, both committed on return.

        Args:
            user: who asks.
            endpoint, body: what for.
            label: the job that it is for.
            url: where media is served, without the path. A request may name what is served there.

        Raises:
            ApiError: 400, 402 or 429; nothing created, nothing charged.
        """
        model, request = api.parse_request(endpoint, body, self.models, partial(self._public, url))
        now = self.clock()
        with self.store.transaction():
            if self.settings.in_flight is not None and self.store.running(user, now) >= self.settings.in_flight:
                raise api.throttled(max(1.0, self.settings.median_seconds / 4), "Too many tasks in flight")
            number = self.store.next_number()
            credits_ = api.cost(model, request)
            if self.store.balance(user) < credits_:  # before the dice: `next:N` counts accepted tasks
                raise api.no_credit()
            due_at = NEVER if self.faults.fires("stall", number) else now + self.latency(number)
            odd = self.faults.fires("unknown_status", number)
            task = NewTask(
                number=number,
                id="task_" + self.digest("task", number),
                user=user,
                model=model.name,
                label=label,
                request=body.decode(),
                request_sha256=hashlib.sha256(body).hexdigest(),
                credits=credits_,
                created_at=now,
                due_at=due_at,
                odd_until=min(due_at, now + self.faults.value("unknown_status")) if odd else 0.0,
                error_code=self._failure(number),
            )
            self.store.accept(task)
            if (given := draw({**model.defaults, **request}, self.faults, number)) != PLAIN:
                self.store.give(number, given.packed())
        return task

    def _public(self, url: str, field: str, text: str) -> str:
        """What stands for one of our own URLs, which are no public ones, in the eyes of a model's schema.

        Raises:
            ApiError: 400, where nothing is to be fetched there.
        """
        if not url or not text.startswith(f"{url}/media/"):
            return text
        parts = urllib.parse.urlsplit(text)
        query = dict(urllib.parse.parse_qsl(parts.query))
        task = self.store.task(parts.path.split("/")[3]) if parts.path.count("/") == 4 else None
        if task is None or not self.has_output(task, parts.path):
            raise api.invalid(f"{field}: there is no such file")
        if not self.may_fetch(parts.path, query.get("expires", ""), query.get("signature", "")):
            raise api.invalid(f"{field}: the URL has expired or is not signed")
        return f"https://simulator.invalid{parts.path}"

    def _failure(self, number: int) -> int | None:
        outcome = self.faults.first(_OUTCOMES, number)
        if outcome is None:
            return None
        return 80006 if outcome == "moderate" else int(self.faults.value("fail"))

    def poll(self, task: Task, url: str) -> dict[str, Any]:
        """The answer to a poll.

        Args:
            task: as returned by `Store.polled`.
            url: where media is served, without the path.
        """
        now = self.clock()
        status = task.status(now)
        answer = {"id": task.id, "model": task.model, "status": status, "created_at": int(task.created_at)}
        if status == "processing":
            return answer | ({"status": ODD_STATUS} if now < task.odd_until else {})
        if task.error_code is not None:
            message = api.FAILURES.get(task.error_code, api.FAILURES[80001])
            return answer | {"output": None, "error": {"code": task.error_code, "message": message}}
        kind = self.models[task.model].output
        dead = self.faults.fires("expired_url", task.number, task.polls)
        given = self.given(task)
        paths = [self.media_path(task, name, now, dead=dead) for name in given.names(kind)]
        output: dict[str, Any] = {f"{kind}_urls": [url + path for path in paths]}
        if given.last_frame:
            last = self.media_path(task, f"{LAST}.png", now, dead=dead or given.last_frame_gone)
            output["last_frame_url"] = url + last
        answer["output"] = output
        if self.settings.usage:
            answer["usage"] = {"credits": task.credits}
        return answer

    def given(self, task: Task) -> Given:
        """What a task gives."""
        what = self.store.given(task.number)
        return PLAIN if what is None else Given.unpacked(what)

    def media_path(self, task: Task, file: str, now: float, *, dead: bool = False) -> str:
        """The signed path of a task's file: it carries the time at which it expires, in unix milliseconds."""
        expires = task.due_at + self.settings.url_ttl
        if now >= expires and self.settings.renew_urls:
            expires = now + self.settings.url_ttl
        stamp = int((task.due_at if dead else expires) * 1000)
        name = f"/media/tasks/{task.id}/{file}"
        return f"{name}?expires={stamp}&signature={self.digest('media', name, stamp)}"

    def has_output(self, task: Task, path: str) -> bool:
        """Whether a path names a file of this task, and the task has ended well by now."""
        kind = self.models[task.model].output
        done = task.status(self.clock()) == "completed"
        return done and path in {f"/media/tasks/{task.id}/{name}" for name in self.given(task).files(kind)}

    def may_fetch(self, path: str, expires: str, signature: str) -> bool:
        """Whether a media path was signed by this account and has not expired."""
        if not (expires.isascii() and expires.isdigit() and len(expires) <= 18):
            return False
        return signature == self.digest("media", path, int(expires)) and self.clock() * 1000 < int(expires)

    def account(self) -> dict[str, Any]:
        """Everything that was accepted, charged, refunded and served; see `Simulator.account`."""
        now = self.clock()
        self.store.refund_due(now)
        totals = self.store.totals()
        counters = self.store.counters()
        users = self.store.users()
        return {
            "accepted": totals["accepted"],
            "charged": totals["charged"],
            "refunded": totals["refunded"],
            "balance": sum(users.values()) if users else self.settings.balance,
            "posts": counters.get("posts", 0),
            "polls": totals["polls"] + counters.get("lost_polls", 0),
            "downloads": totals["downloads"],
            "rejected": counters.get("rejected", 0),
            "refused": counters.get("refused", 0),
            "throttled": counters.get("throttled", 0),
            "users": len(users),
            "tasks": [self._row(task, now) for task in self.store.tasks()],
        }

    @staticmethod
    def _row(task: Task, now: float) -> dict[str, Any]:
        request = orjson.loads(task.request)
        return {
            "id": task.id,
            "number": task.number,
            "label": task.label,
            "model": task.model,
            "request_sha256": task.request_sha256,
            "prompt": request.get("prompt", ""),
            "uses": _OWN.findall(task.request),
            "credits": task.credits,
            "status": task.status(now),
            "error": task.error_code,
            "created_at": task.created_at,
            "due_at": task.due_at if task.due_at < NEVER else None,
            "refunded": bool(task.refunded),
            "polls": task.polls,
            "downloads": task.downloads,
        }
