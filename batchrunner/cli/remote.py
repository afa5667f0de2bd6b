"""`pause`, `continue`, `limits`: a word to the run that is alive, from another terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ..core.text import visible
from ..exits import EXIT_OK
from ..ledger.address import Address
from .ledgers import db_words
from .options import db_option, json_option, ledger_path
from .tables import number, print_json, say

if TYPE_CHECKING:
    from ..remote.protocol import Request


def _ask(path: Address, request: Request, *, as_json: bool) -> dict[str, Any]:
    """The run's progress after it has done what is asked. Raises UsageError, exit code 2, where no run is alive."""
    from ..remote.client import ask

    progress: dict[str, Any] = ask(path, request)["progress"]
    if as_json:
        print_json(progress)
    return progress


@click.command(
    epilog="""\b
Examples:
  batchrunner pause
  batchrunner pause --db nights.db && batchrunner limits --in-flight 5 --db nights.db

\b
What was sent is followed and fetched. The pause ends with `continue`, and with the run: it is written down nowhere.
A paused run waits, whatever is left; a signal or its deadline ends it with the jobs pending.
"""
)
@json_option
@db_option
def pause(as_json: bool, db: Address | None) -> int:
    """Let the run that is alive submit nothing for now."""
    from ..remote.protocol import Pause

    path = ledger_path(db)
    progress = _ask(path, Pause(), as_json=as_json)
    if not as_json:
        say(f"paused: nothing more is submitted, {number(progress['in_flight'])} in flight are followed to their end")
        say(f"`batchrunner continue{db_words(path)}` goes on")
    return EXIT_OK


@click.command(
    "continue",
    epilog="""\b
Examples:
  batchrunner continue
""",
)
@json_option
@db_option
def go_on(as_json: bool, db: Address | None) -> int:
    """Let a paused run submit again."""
    from ..remote.protocol import Continue

    progress = _ask(ledger_path(db), Continue(), as_json=as_json)
    if not as_json:
        stop = progress["stop"]
        more = f"; it has stopped submitting all the same: {visible(str(stop))}" if stop else ""
        say(f"the run goes on: {number(progress['states'].get('pending', 0))} pending{more}")
    return EXIT_OK


globals()["continue"] = go_on  # a verb is found by its name, and this one Python keeps for itself


@click.command(
    epilog="""\b
Examples:
  batchrunner limits                                        what holds now
  batchrunner limits --in-flight 40 --submits-per-minute 120
  batchrunner limits --polls-per-minute 600                 ask less often, and hear of results later
  batchrunner limits --in-flight 1                          as slow as it gets; `pause` stops

\b
Upper bounds for the rest of this run, in place of the manifest's: above them too, since a person says so. Below them
the run goes on finding by itself what the service allows. The next run takes the manifest's again.
"""
)
@click.option("--in-flight", type=click.IntRange(1, 1_000_000), metavar="N", help="Tasks in flight at most.")
@click.option(
    "--submits-per-minute",
    type=click.FloatRange(0, 1_000_000, min_open=True),
    metavar="N",
    help="Submissions a minute at most.",
)
@click.option(
    "--polls-per-minute",
    type=click.FloatRange(1, 1_000_000),
    metavar="N",
    help="Questions after running tasks a minute at most.",
)
@json_option
@db_option
def limits(
    in_flight: int | None,
    submits_per_minute: float | None,
    polls_per_minute: float | None,
    as_json: bool,
    db: Address | None,
) -> int:
    """Show or change the upper bounds of the run that is alive."""
    from ..remote.protocol import Limits

    progress = _ask(ledger_path(db), Limits(submits_per_minute, in_flight, polls_per_minute), as_json=as_json)
    if not as_json:
        for line in limit_lines(progress):
            say(line)
    return EXIT_OK


def limit_lines(progress: dict[str, Any]) -> list[str]:
    """The bounds, what is used of them, and what the run allows itself below them."""
    flight, rate = progress["in_flight_limit"], progress["submits_per_minute_limit"]
    return [
        f"in flight    {number(progress['in_flight'])} of {number(progress['in_flight_bound'])}"
        + (f", {number(flight)} allowed now" if flight < progress["in_flight_bound"] else ""),
        f"submissions  at most {progress['submits_per_minute_bound']:,g} a minute"
        + (f", {rate:,g} allowed now" if rate < progress["submits_per_minute_bound"] else ""),
        f"polls        at most {progress['polls_per_minute_bound']:,.10g} a minute",
    ]
