"""What can go wrong on demand: the list of faults, their notation, and the seeded dice.

A fault is written `NAME=CHANCE` or `NAME=CHANCE:VALUE`. CHANCE is a probability between 0 and 1, or `next:N` for the
next N occasions; `VALUE` is a number whose meaning stands beside the fault in `FAULTS`. A bare `NAME` means always.
One name may be given twice, as a `next:N` and as a probability: the N come first.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class FaultKind:
    """One thing that can go wrong.

    Attributes:
        text: what happens, for people.
        value: default of the fault's number; None where it takes none.
        unit: what the number is.
    """

    text: str
    value: float | None = None
    unit: str = ""


FAULTS: Mapping[str, FaultKind] = {
    # The outcome of a task, drawn when it is accepted.
    "fail": FaultKind("the task fails at the provider and is refunded", 80001, "error code"),
    "moderate": FaultKind("the task fails by content policy (80006) and is refunded"),
    "stall": FaultKind("the task never ends"),
    "unknown_status": FaultKind("polls show an undocumented status for a while first", 2, "seconds"),
    # A POST that creates nothing and charges nothing.
    "drop_before": FaultKind("the connection is reset before the POST is processed"),
    "error500_before": FaultKind("the POST is answered 5xx, nothing is created", 500, "HTTP status"),
    "html": FaultKind("the POST is answered with a proxy's HTML page, nothing is created", 502, "HTTP status"),
    "throttle": FaultKind("the POST is answered 429", 1, "Retry-After in seconds"),
    "reject": FaultKind("the POST is answered as an invalid request", 400, "HTTP status"),
    "no_credit": FaultKind("the POST is answered 402"),
    "unauthorized": FaultKind("the POST is answered 401 as if the key had been revoked"),
    # A POST that creates a task and charges for it, with an answer that does not say so.
    "drop_after": FaultKind("the task is created and charged, then the connection is reset"),
    "error500_after": FaultKind("the task is created and charged, the answer is 5xx", 500, "HTTP status"),
    "html_after": FaultKind("the task is created and charged, the answer is an HTML page", 200, "HTTP status"),
    "no_id": FaultKind("the task is created and charged, the answer has no usable id"),
    "redirect": FaultKind("the task is created and charged, the answer redirects to itself", 307, "HTTP status"),
    "slow": FaultKind("the task is created and charged, the answer comes late", 3, "seconds"),
    # Polls.
    "poll500": FaultKind("the poll is answered 5xx", 500, "HTTP status"),
    "poll_drop": FaultKind("the connection is reset instead of answering the poll"),
    "poll404": FaultKind("the poll does not know the task"),
    "poll_html": FaultKind("the poll is answered with an HTML page", 200, "HTTP status"),
    "poll_throttle": FaultKind("the poll is answered 429", 1, "Retry-After in seconds"),
    "expired_url": FaultKind("the output URL that a poll hands out has expired already"),
    # Media.
    "truncated": FaultKind("the download breaks off before Content-Length is reached"),
    "truncated_file": FaultKind("the file itself is cut short, Content-Length agrees with it"),
    "media500": FaultKind("the download is answered 5xx", 503, "HTTP status"),
    # What a task gives, drawn when it is accepted.
    "several": FaultKind("the task gives several outputs", 3, "outputs"),
    "fewer": FaultKind("the task gives an output fewer than was ordered"),
    "last_frame": FaultKind("the task gives the clip's last frame too, ordered or not"),
    "last_frame_gone": FaultKind("and its URL has expired already"),
    "wrong_kind": FaultKind("a picture comes for a clip, a clip for a picture"),
    "wrong_duration": FaultKind("the clip is of another length", 2, "seconds"),
    "wrong_size": FaultKind("the picture is of another size", 360, "pixels on the short side"),
    "jpeg": FaultKind("a picture is a JPEG, whatever its URL is called"),
}
"""Every fault by name, in the order in which they are tried on one occasion."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault that is switched on.

    Attributes:
        name: a key of `FAULTS`.
        chance: probability on each occasion, 0 to 1. 0 where only `times` counts.
        times: fires on the next so many occasions, counted from the start of this process.
        value: see `FaultKind.value`.
    """

    name: str
    chance: float = 0.0
    times: int = 0
    value: float | None = None

    def __post_init__(self) -> None:
        if self.name not in FAULTS:
            raise ValueError(_unknown(self.name))
        if not 0 <= self.chance <= 1:
            raise ValueError(f"fault {self.name}: the probability must be between 0 and 1, not {self.chance:g}")
        if self.times < 0:
            raise ValueError(f"fault {self.name}: next:N needs a whole number, 0 or more")
        kind = FAULTS[self.name]
        if self.value is not None:
            if kind.value is None:
                raise ValueError(f"fault {self.name} takes no value")
            if not 0 <= self.value < 1e9:
                raise ValueError(f"fault {self.name}: {self.value:g} is no usable {kind.unit}")
            if kind.unit == "HTTP status" and not 200 <= self.value <= 599:
                raise ValueError(f"fault {self.name}: {self.value:g} is no HTTP status from 200 to 599")

    def __str__(self) -> str:
        chance = f"next:{self.times}" if self.times else f"{self.chance:g}"
        return f"{self.name}={chance}" + ("" if self.value is None else f":{self.value:g}")


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name, FAULTS, n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    return f"unknown fault {name!r}{hint}; known: {', '.join(FAULTS)}"


def parse_fault(text: str) -> Fault:
    """One fault from its notation: `moderate=0.05`, `drop_after=next:3`, `slow=0.1:2.5`, `stall`.

    Raises:
        ValueError: unknown name, with a near-miss hint, or a malformed or impossible chance or value.
    """
    name, equals, rest = (part.strip() for part in text.partition("="))
    name = name.replace("-", "_")
    if name not in FAULTS:
        raise ValueError(_unknown(name))
    words = rest.split(":") if equals else ["1"]
    by_count = words[0] == "next"
    if by_count:
        words = words[1:]
    try:
        chance = 0.0 if by_count else float(words[0])
        times = int(words[0]) if by_count else 0
        value = float(":".join(words[1:])) if len(words) > 1 else None
    except (ValueError, IndexError):
        message = f"fault {text!r}: write {name}=PROBABILITY or {name}=next:N"
        if FAULTS[name].value is not None:
            message += f", with :VALUE ({FAULTS[name].unit}) after it if needed"
        raise ValueError(message) from None
    return Fault(name, chance, times, value)


def parse_faults(texts: Iterable[str]) -> tuple[Fault, ...]:
    """Faults from their notations; see `parse_fault`. Commas separate several in one text.

    Raises:
        ValueError: see `parse_fault`.
    """
    return tuple(parse_fault(part) for text in texts for part in text.split(",") if part.strip())


def uniform(seed: int, *what: object) -> float:
    """A number in (0, 1) that is a pure function of `seed` and `what`: 53 bits of BLAKE2b."""
    digest = hashlib.blake2b(repr((seed, what)).encode(), digest_size=8).digest()
    return ((int.from_bytes(digest, "big") >> 11) + 0.5) / 2**53


@dataclass(slots=True)
class _Switch:
    chance: float = 0.0
    left: int = 0
    value: float | None = None
    fired: int = 0


class FaultPlan:
    """The faults of a running simulator.

    Whether a fault fires on an occasion is a pure function of (seed, fault, occasion), apart from `next:N`.
    """

    def __init__(self, seed: int, faults: Iterable[Fault] = ()) -> None:
        self._seed = seed
        self._on: dict[str, _Switch] = {}
        self.replace(faults)

    def replace(self, faults: Iterable[Fault]) -> None:
        """Switch all faults off, then these on."""
        self._on = {}
        for fault in faults:
            switch = self._on.setdefault(fault.name, _Switch())
            switch.chance = max(switch.chance, fault.chance)
            switch.left += fault.times
            switch.value = switch.value if fault.value is None else fault.value

    def fires(self, name: str, *occasion: object) -> bool:
        """Whether fault `name` happens on this occasion (such as a task's number and its count of polls)."""
        switch = self._on.get(name)
        if switch is None:
            return False
        if switch.left > 0:
            switch.left -= 1
        elif not (switch.chance and uniform(self._seed, name, *occasion) < switch.chance):
            return False
        switch.fired += 1
        return True

    def first(self, names: Iterable[str], *occasion: object) -> str | None:
        """The first of `names` that fires on this occasion; the later ones are not tried then."""
        if not self._on:
            return None
        return next((name for name in names if name in self._on and self.fires(name, *occasion)), None)

    def value(self, name: str) -> float:
        """The number of fault `name`, or its default."""
        switch = self._on.get(name)
        given = None if switch is None else switch.value
        return given if given is not None else FAULTS[name].value or 0.0

    def describe(self) -> list[dict[str, Any]]:
        """The faults that are on, as JSON objects."""
        return [
            {"name": name, "chance": s.chance, "next": s.left, "value": self.value(name), "fired": s.fired}
            for name, s in self._on.items()
        ]
