"""Draws docs/states.md from the table of the state machine; a test holds the two equal."""

from __future__ import annotations

from pathlib import Path

from batchrunner.core.job import State
from batchrunner.core.lifecycle import TABLE

PAGE = Path(__file__).with_name("states.md")

MEANING = {
    State.PENDING: "recorded; nothing sent, or the provider proved that it accepted nothing",
    State.SUBMITTING: "the intent to POST is durable; the POST may be on the wire",
    State.UNCONFIRMED: "a POST may have been accepted and its answer was not read; never sent again without a word",
    State.RUNNING: "the provider's task id is durable",
    State.DOWNLOADING: "the provider is done; the output is not yet safe on disk",
    State.SUCCEEDED: "the output is complete under its final name, its hash recorded",
    State.FAILED: "ended without output; the kind says why",
    State.CANCELLED: "the user withdrew it before it was sent",
}


def page() -> str:
    """The whole page, as Markdown with a Mermaid drawing."""
    arrows: dict[tuple[State, State], list[str]] = {}
    for (before, event), afters in TABLE.items():
        for after in sorted(afters):
            arrows.setdefault((before, after), []).append(event.__name__)
    lines = [
        "# The states of a job",
        "",
        "Made by `python docs/make_states.py` from `batchrunner/core/lifecycle.py`; don't edit it by hand.",
        "",
        "```mermaid",
        "stateDiagram-v2",
        "    [*] --> pending",
    ]
    lines += [f"    {a.value} --> {b.value}: {', '.join(names)}" for (a, b), names in arrows.items()]
    lines += ["    succeeded --> [*]", "    cancelled --> [*]", "```", "", "| state | fact |", "|---|---|"]
    lines += [f"| `{state.value}` | {MEANING[state]} |" for state in State]
    lines += ["", "| from | event | to |", "|---|---|---|"]
    lines += [
        f"| {before.value} | {event.__name__} | {', '.join(sorted(a.value for a in afters))} |"
        for (before, event), afters in TABLE.items()
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
