"""The board on a terminal: a few lines that stay where they are, whatever the number of jobs.

What must not be missed scrolls above them (`SCROLLED`); everything that comes by the hundred is a number here, and of
the failures the last few.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..core.job import Job, State
from ..core.text import visible
from .display import ENDED, QuietDisplay, event_line
from .ledgers import db_words
from .tables import STATE_COLOURS, left_text, money, number, span

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live
    from rich.text import Text

    from ..engine.ports import Tally

SCROLLED = frozenset(
    {"ambiguous", "stopping", "limits", "limits_set", "output_renamed", "unknown_status", "remote_closed"}
)
"""Events that get a line of their own above the board; a file that is not as ordered does too."""

FAILURES = frozenset({"taskfailed", "rejected", "vanished", "linkdied", "left_behind"})

SHOWN = 3
"""Failures that are shown."""

PER_SECOND = 2
"""Times a second that the board is drawn."""


class BoardDisplay(QuietDisplay):
    """The board, with a bar, for as long as the run goes."""

    def __init__(self) -> None:
        self._names = ""
        self._tally: Tally | None = None
        self._live: Live | None = None
        self._began = time.monotonic()  # noqa: TID251  a display reads the time of those who watch
        self._facts: dict[str, Any] = {}
        self._failures: deque[str] = deque(maxlen=SHOWN)
        self._stopping = ""

    def begin(self, batches: Sequence[str], tally: Tally) -> None:
        from rich.console import Console
        from rich.live import Live

        self._names = visible(", ".join(batches), 30)
        self._tally = tally
        console = Console(highlight=False, markup=False, emoji=False)
        self._live = Live(console=console, get_renderable=self._picture, refresh_per_second=PER_SECOND)
        self._live.start()

    def event(self, name: str, job: Job | None = None, /, **data: Any) -> None:
        super().event(name, job, **data)
        if name == "progress":
            self._facts = data
        elif name in SCROLLED or name in FAILURES or (name == "stored" and data.get("warnings")):
            self._tell(name, event_line(name, job, data))
        if name == "stopping":
            self._stopping = visible(f"{data['reason']}: {data['message']}", 200)

    def _tell(self, name: str, line: str | None) -> None:
        if line is None:
            return
        if name in FAILURES:
            at = time.strftime("%H:%M:%S")
            self._failures.append(f"{at}  {line}")
        elif self._live is not None:
            self._live.console.print(line, markup=False, highlight=False)

    def close(self) -> None:
        if self._live is not None:
            live, self._live = self._live, None  # once: on a terminal that was closed it raises
            live.stop()

    # --- The picture -------------------------------------------------------------------------------------

    def _picture(self) -> RenderableType:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        assert self._tally is not None  # noqa: S101  set in begin
        states = dict(self._tally.states)
        jobs, ended = sum(states.values()), sum(states.get(s, 0) for s in ENDED)
        share = f"{100 * ended // jobs} %" if jobs else ""
        elapsed = time.monotonic() - self._began  # noqa: TID251
        bar = Table.grid(padding=(0, 1), expand=True)
        bar.add_column(no_wrap=True)
        bar.add_column(ratio=1)
        bar.add_column(no_wrap=True, justify="right")
        bar.add_row(
            Text(self._names, style="bold"),
            ProgressBar(total=max(1, jobs), completed=ended),
            Text(f"{number(ended)}/{number(jobs)}  {share}  {clock_text(elapsed)}"),
        )
        rest = [Text(line, style="dim", no_wrap=True, overflow="ellipsis") for line in figure_lines(self._facts)]
        notes = [Text(line, style="yellow", no_wrap=True, overflow="ellipsis") for line in self._notes()]
        failures = [Text(line, style="red", no_wrap=True, overflow="ellipsis") for line in self._failures]
        if failures:
            failures.insert(0, Text("last failures", style="dim"))
        return Group(bar, _counts(states), *rest, *notes, *failures)

    def _notes(self) -> list[str]:
        """Why the run does not submit now, where it does not."""
        notes = []
        if self._stopping:
            notes.append(f"stopping ({self._stopping}); what was sent is followed to its end")
        if self._facts.get("paused_by"):
            who = visible(self._facts["paused_by"], 60)
            notes.append(f"paused by {who}: `batchrunner continue{db_words(self.db)}` goes on")
        if self._facts.get("hold"):
            notes.append(f"held for {span(self._facts['hold'])}: the service asks to slow down")
        return notes


def _counts(states: dict[State, int]) -> Text:
    from rich.text import Text

    text = Text()
    for state in State:
        if states.get(state):
            text.append("  " if text else "")
            text.append(f"{number(states[state])} {state.value}".replace(" ", "\u00a0"), _style(state))
    return text or Text("no jobs")


def _style(state: State) -> str:
    """Click's name of a colour as rich says it."""
    return STATE_COLOURS.get(state.value, "default")


def figure_lines(facts: dict[str, Any]) -> list[str]:
    """Rate and in flight against their limits, money, and the time left; nothing before the first heartbeat."""
    if not facts:
        return []
    money_ = facts["credits"]
    rate = f"submits {facts['submits_per_minute']:.0f} of {facts['submits_per_minute_limit']:,.4g} a minute"
    pace = [f"in flight {number(facts['in_flight'])} of {number(facts['in_flight_limit'])}", rate]
    if facts["per_minute"]:
        pace.append(f"finished {facts['per_minute']:,.4g} a minute")
    return [
        "   ".join(pace),
        f"spent {money(money_['spent'])}, {number(money_['reserved'])} reserved, {number(money_['at_risk'])} at risk",
        left_text(facts["eta_seconds"], facts["eta_range"]) if facts["eta_seconds"] else "",
    ]


def clock_text(seconds: float) -> str:
    """Elapsed time: `0:04:07`."""
    whole = int(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"
